"""Fit a classification within a budget: look, prepare, frozen features, measure, train, calibrate, export."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput, UsageError, VesaliusError
from vesalius.core.grid import Array
from vesalius.core.progress import Progress
from vesalius.core.protocols import Fitted
from vesalius.imaging.whole import WholePreparation, prepare_whole
from vesalius.learning import classify_plan as planning
from vesalius.learning.classify_data import (
    Look,
    WholeCases,
    images_of,
    look,
    preparation_for,
    prepare_whole_cases,
)
from vesalius.learning.classify_frozen import Folds, Frozen, fit_frozen
from vesalius.learning.classify_plan import ClassifyPlan
from vesalius.learning.classify_stack import CalibratedEnsemble, Weights, fit_weights, probabilities, thresholds
from vesalius.learning.classify_train import ask_networks, seconds_side_by_side, train_networks, views_of
from vesalius.learning.classify_weights import Pretrained, affordable, read_pretrained, shipped_json
from vesalius.learning.export import check_volume, export_module
from vesalius.learning.fit import spent_before_in, training_curve, usable_threads, versions, write_note
from vesalius.learning.loop import State
from vesalius.learning.study import FitSettings
from vesalius.measures.target import Target
from vesalius.networks.efficientnet import EfficientNetFeatures

_MEASURING_SHARE, _MEASURING_SECONDS = 0.05, 2.0
_RESERVE_SECONDS, _RESERVE_SHARE = 8.0, 0.015  # kept for judging and export
_BACKBONE_SHARE = 0.15  # of the budget, for the features of a pretrained backbone
_FEATURES_SHARE = 0.5  # of a training step's time that looking at frozen features takes, per image
_LOOKING = 0.8  # of a training step's time an answer takes: no backward pass, but in float32
_PREPARING_SHARE, _TIMED = 0.4, 12  # of what is left of the budget, and cases whose preparation is timed


def fit_classification(
    cohort: Cohort, train: Sequence[Case], settings: FitSettings, work: Path, progress: Progress, question: Target
) -> Fitted:
    """Fit a model of classes within `settings.minutes`.

    Args:
        cohort: for its folder, digest and split.
        train: what may be learned from.
        settings: what is asked for; `folds` of 1 leaves their number to the plan.
        work: folder for checkpoints and the plan; an interrupted call is resumed from it.
        progress: told the plan, the loss and the time left.
        question: what is asked of each case.

    Returns:
        The bundle's files, the card's keys `preparation`, `network`, `plan`, `threshold`, `versions` and
        `sentences`, `start` and `weights` where something was learned elsewhere, and the curve.

    Raises:
        UsageError: there is nothing to learn from: no usable image, or one class only.
        VesaliusError: torch and ONNX Runtime disagree on the result.
    """
    began = time.monotonic()
    if settings.network is not None:
        raise UsageError("A network of one's own is for segmentation.", remedy="Fit without --network.")
    spent_before = spent_before_in(work, settings)
    deadline = began + 60 * settings.minutes - spent_before
    found = look(train, settings.inputs)
    progress.say(found.sentence())
    _check_planes(found, settings)
    given = read_pretrained(settings.weights, settings.weights_licence) if settings.weights else None
    plan, cases, folds, frozen = _prepared(cohort, train, settings, work, progress, question, found, deadline, given)

    def note_spent() -> None:
        write_note(work / "spent.json", {"seconds": spent_before + time.monotonic() - began})

    def seconds_left() -> float:
        return deadline - time.monotonic() - _reserve(settings) - _looking(plan, cases)

    networks, states = train_networks(
        plan, cases, [inside for inside, _ in folds], question.kind, settings.seed, work, progress,
        seconds_left=None if settings.plan is not None else seconds_left, resume=settings.resume, saved=note_spent,
    )  # fmt: skip
    outside = np.full(cases.truth.shape, np.nan)
    for (_, left_out), answer in zip(folds, ask_networks(plan, cases, networks, folds, question.kind), strict=True):
        outside[left_out] = answer
    weights = fit_weights(outside, frozen.outside, cases.truth, question.kind)
    joined = weights.joined(outside, frozen.outside)
    threshold = thresholds(joined, cases.truth, question.kind)
    plan = replace(plan, turns=tuple(tuple(state.turns) for state in states))
    ensemble = CalibratedEnsemble(
        networks, frozen.features, frozen.head, weights, plan.size, plan.changes.mirror_axes, question.kind
    )
    image = check_volume(cases.images.shape[1], plan.size)
    axes = {name: {0: "n"} for name in ("image", "logits", "map")}
    try:
        files = export_module(ensemble, image, axes)
    except VesaliusError:  # what was learned in the whole budget is not thrown away for half the size
        files = export_module(ensemble, image, axes, half=False)
    said = {"networks": outside, "frozen features": frozen.outside, "together": joined}
    sentences = [
        found.sentence(), *plan.sentences(), frozen.sentence,
        *_judgement(question, cases, states, weights, said),
    ]  # fmt: skip
    for sentence in sentences[-3:]:
        progress.say(sentence)
    card = {
        "preparation": _preparation(found, settings, plan).as_json(), "threshold": threshold,
        "network": {
            "outputs": ["logits", "map"], "size": list(plan.size), "mirror_axes": list(plan.changes.mirror_axes)
        },
        "plan": plan.as_json(), "versions": versions(), "fingerprint": found.as_json(), "sentences": sentences,
        **_from_elsewhere(given, plan, frozen),
    }  # fmt: skip
    return Fitted(files, card, training_curve(states, "cross-entropy"))


def _prepared(
    cohort: Cohort,
    train: Sequence[Case],
    settings: FitSettings,
    work: Path,
    progress: Progress,
    question: Target,
    found: Look,
    deadline: float,
    given: Pretrained | None,
) -> tuple[ClassifyPlan, WholeCases, Folds, Frozen]:
    """The plan, the prepared cases, who learns from which, and the model of frozen features."""
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    threads = settings.threads or usable_threads()
    torch.set_num_threads(threads)
    kept, plan = work / "plan.json", None
    if settings.plan is not None:
        plan = replace(ClassifyPlan.from_json(settings.plan), device=device)
    elif settings.resume and kept.exists():
        plan = ClassifyPlan.from_json(json.loads(kept.read_text(encoding="utf-8")))
    known: Sequence[Case] = [case for case in train if question.value(case) is not None]
    stored = plan is not None
    if plan is None:
        folds_guess = _folds_guess(known, question, settings)
        seconds = deadline - time.monotonic() - _reserve(settings) - 0.02 * 60 * settings.minutes
        seconds -= _backbone_seconds(settings) if given else 0.0
        plan = _measured_plan(found, question, settings, folds_guess, device, threads, seconds)
    preparation = _preparation(found, settings, plan)
    if not stored:
        known = _affordable(known, preparation, _PREPARING_SHARE * (deadline - time.monotonic()), progress)
    cases = prepare_whole_cases(cohort, known, question.value, preparation, progress)
    _check(cases, question, progress)
    folds = folds_of(cases, plan.folds if stored else max(settings.folds, 1), settings.seed)
    axes = planning.mirror_candidates(found, question.classes)
    if given:
        looks = len(cases.images) * (1 + len(axes))
        longest = plan.backbone_longest or affordable(
            given, cases.images.shape[1], plan.size, looks, _backbone_seconds(settings)
        )
        given.backbone.longest, plan = longest, replace(plan, backbone_longest=longest)
    extractor: nn.Module | None = given.backbone if given else None
    if not stored and given is None and plan.network == planning.EFFICIENTNET:
        plan = replace(plan, shipped_features=_features_affordable(plan, cases, axes, settings))
    if plan.shipped_features:
        extractor = EfficientNetFeatures(cases.images.shape[1])
    frozen = fit_frozen(cases, folds, axes, settings.seed, extractor)
    if not stored:
        plan = replace(plan, folds=len(folds), changes=replace(plan.changes, mirror_axes=frozen.mirror_axes))
        left = deadline - time.monotonic() - _reserve(settings)
        plan = replace(plan, steps=max(20, int(left / max(plan.seconds_per_step, 1e-6))))
    write_note(kept, plan.as_json())
    for sentence in (*plan.measured, *plan.sentences(), frozen.sentence):
        progress.say(sentence)
    return plan, cases, folds, frozen


def _measured_plan(
    found: Look, question: Target, settings: FitSettings, folds: int, device: str, threads: int, seconds: float
) -> ClassifyPlan:
    """The plan for so many seconds: from weights that have seen photographs, where the time is enough for them."""
    measure = _measure(found, len(question.classes), question.kind, folds, settings)
    images = round(found.images * (1 - 1 / max(2, folds)))
    if settings.shipped_weights and found.planar:
        first = planning.first_plan(found, folds, found.images, device, threads, planning.EFFICIENTNET)
        plan = planning.fitted_to(first, found, images, seconds, measure)
        if planning.learns_enough(plan, images):
            return plan
    first = planning.first_plan(found, folds, found.images, device, threads)
    return planning.fitted_to(first, found, images, seconds, measure)


def _affordable(
    known: Sequence[Case], preparation: WholePreparation, seconds: float, progress: Progress
) -> Sequence[Case]:
    """As many cases, drawn evenly, as can be prepared in the time there is, judged by a few of them."""
    few = [known[n] for n in np.unique(np.linspace(0, len(known) - 1, _TIMED).astype(int))] if known else []
    began = time.monotonic()
    for number, case in enumerate(few):
        if number == 1:  # the first one loads what preparation needs
            began = time.monotonic()
        for image in images_of(case, preparation.inputs):
            with contextlib.suppress(UnusableInput):
                prepare_whole(image, preparation)
    needed = (time.monotonic() - began) / max(1, len(few) - 1) * len(known)
    number = max(_TIMED, int(len(known) * seconds / max(needed, 1e-9)))
    if number >= len(known):
        return known
    progress.say(f"Preparing all {len(known)} cases would take {needed / 60:.1f} minutes; {number} are learned from.")
    return [known[n] for n in np.unique(np.linspace(0, len(known) - 1, number).astype(int))]


def _measure(
    found: Look, classes: int, kind: str, networks: int, settings: FitSettings
) -> Callable[[ClassifyPlan], float | None]:
    """Seconds per step of a candidate, until the time for measuring is over."""
    enough = time.monotonic() + max(_MEASURING_SECONDS, _MEASURING_SHARE * 60 * settings.minutes)

    def measure(plan: ClassifyPlan) -> float | None:
        left = enough - time.monotonic()
        return None if left <= 0 else seconds_side_by_side(plan, found.channels, classes, kind, networks, left / 3)

    return measure


def _folds_guess(known: Sequence[Case], question: Target, settings: FitSettings) -> int:
    """The number of folds if nothing looks alike and everything can be used."""
    patients: dict[int, set[str]] = {n: set() for n in range(len(question.classes))}
    for case in known:
        for number, share in enumerate(question.value(case) or ()):
            if share > 0:
                patients[number].add(case.patient)
    return planning.folds_for([max(1, len(p)) for p in patients.values() if p] or [1], settings.folds, len(known))


def _check(cases: WholeCases, question: Target, progress: Progress) -> None:
    """Refuse what cannot be learned from.

    Raises:
        UsageError: no usable case, or no two classes to tell apart.
    """
    for sentence in cases.left_out[:10]:
        progress.say(sentence)
    if not len(cases.truth):
        raise UsageError("No training case can be used.", remedy="See the reasons above, and label the cases.")
    share = cases.truth.mean(0)
    if question.kind == "multilabel":
        if not ((share > 0) & (share < 1)).any():
            raise UsageError("Every training case has the same labels.", remedy="Add cases with and without each.")
    elif (share > 0).sum() < 2:
        only = question.classes[int(np.argmax(share))]
        raise UsageError(
            f"All training cases that can be used are of one class, {only!r}.", remedy="Add cases of another class."
        )


def folds_of(cases: WholeCases, asked: int, seed: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """For each network the cases it learns from and those left out; groups stay together, classes are spread.

    One pair with nothing left out where a class has fewer than two groups.
    """
    everything = np.arange(len(cases.truth))
    present = cases.truth[:, cases.truth.sum(0) > 0] > 0
    groups = [len(np.unique(cases.groups[column])) for column in present.T]
    number = planning.folds_for(groups, asked, len(everything))
    if number == 1:
        return [(everything, everything[:0])]
    from sklearn.model_selection import StratifiedGroupKFold

    _, stratum = np.unique(present, axis=0, return_inverse=True)
    if present.shape[1] > 2 and present.sum(1).max() > 1:
        stratum = present.argmax(1)  # several labels: by the first
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of classes with fewer members than folds
        drawn = StratifiedGroupKFold(number, shuffle=True, random_state=seed).split(everything, stratum, cases.groups)
        pairs = [(np.asarray(inside), np.asarray(left_out)) for inside, left_out in drawn]
    if any(not len(left_out) or (present[inside].sum(0) == 0).any() for inside, left_out in pairs):
        return [(everything, everything[:0])]
    return pairs


def _preparation(found: Look, settings: FitSettings, plan: ClassifyPlan) -> WholePreparation:
    made = preparation_for(found, settings.inputs, plan.longest)
    return replace(made, hide_marks=settings.hide_marks)


def _check_planes(found: Look, settings: FitSettings) -> None:
    """Refuse for volumes what is made for planes.

    Raises:
        UsageError: marks are to be hidden in volumes, or a backbone is to look at them.
    """
    if not found.planar and (settings.hide_marks or settings.weights):
        what = "--hide-marks" if settings.hide_marks else "--weights"
        raise UsageError(f"{what} is for planes, and these are volumes.", remedy=f"Fit without {what}.")


def _backbone_seconds(settings: FitSettings) -> float:
    """What a pretrained backbone may take of the budget for looking at every image."""
    return _BACKBONE_SHARE * 60 * settings.minutes


def _features_affordable(plan: ClassifyPlan, cases: WholeCases, axes: Sequence[int], settings: FitSettings) -> bool:
    """Whether the shipped network can look at every image, and at its mirror images, in its share of the budget."""
    looks = len(cases.images) * (1 + len(axes))
    return _FEATURES_SHARE * plan.seconds_per_step / plan.batch * looks <= _backbone_seconds(settings)


def _from_elsewhere(given: Pretrained | None, plan: ClassifyPlan, frozen: Frozen) -> dict[str, Any]:
    """The card's keys on what was learned elsewhere: `start` of the networks, and `weights` that were given."""
    found = {}
    if plan.network == planning.EFFICIENTNET:
        found["start"] = shipped_json() | ({} if given else {"used": frozen.used})
    if given:
        found["weights"] = given.as_json(frozen.used)
    return found


def _reserve(settings: FitSettings) -> float:
    """Seconds kept for judging and export."""
    return min(_RESERVE_SECONDS + _RESERVE_SHARE * 60 * settings.minutes, 0.5 * 60 * settings.minutes)


def _looking(plan: ClassifyPlan, cases: WholeCases) -> float:
    """Seconds that the networks will take to answer for the cases that they left out, all side by side."""
    views = len(views_of(plan.changes.mirror_axes))
    return _LOOKING * views * len(cases.images) / max(1, plan.folds) * plan.seconds_per_step / plan.batch


def _judgement(
    question: Target, cases: WholeCases, states: Sequence[State], weights: Weights, said: Mapping[str, Array]
) -> list[str]:
    """What the training came to, in plain words."""
    steps = sum(state.step for state in states)
    sentences = [f"Trained {steps} steps; {len(cases.left_out)} cases were left out."]
    together = said["together"]
    known = np.isfinite(together).all(1)
    if not known.any():
        return [*sentences, "There are too few patients to leave any out: nothing is known of unseen cases."]
    sentences.append(
        f"Weights found out of fold: networks {weights.network:.2f}, frozen features {weights.frozen:.2f}."
    )
    areas = {name: _area(values[known], cases.truth[known], question.kind) for name, values in said.items()}
    figures = ", ".join(f"{name} {area:.3f}" for name, area in areas.items())
    sentences.append(f"Area under the ROC curve of {known.sum()} cases that the answering parts never saw: {figures}.")
    return sentences


def _area(logits: Array, truth: Array, kind: str) -> float:
    """Mean over classes of the area under the ROC curve, each class against the others."""
    from scipy.stats import rankdata

    scores, areas = probabilities(logits, kind), []
    for number in range(truth.shape[1]):
        positive = truth[:, number] > 0.5
        n, m = int(positive.sum()), int((~positive).sum())
        if n and m:
            areas.append((rankdata(scores[:, number])[positive].sum() - n * (n + 1) / 2) / (n * m))
    return float(np.mean(areas)) if areas else float("nan")
