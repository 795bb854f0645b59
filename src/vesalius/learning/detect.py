"""Fit a detector within a budget: look, prepare, measure, train, judge out of fold, export."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vesalius.classical.detection_model import in_bundle
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.progress import Progress
from vesalius.core.protocols import Fitted
from vesalius.inference.candidates import candidates, with_points
from vesalius.inference.heat import HeatGeometry, heat_map
from vesalius.inference.second_look import features
from vesalius.inference.second_opinion import marks_of
from vesalius.learning.classify_weights import shipped_json
from vesalius.learning.detect_data import LesionPatches, LookedOver, Places, look_over
from vesalius.learning.detect_judge import ALARMS_PER_IMAGE, Judged, Scoring, fit_scoring
from vesalius.learning.detect_lesson import DetectionLesson, runner
from vesalius.learning.detect_opinion import Filters, FilterStudy
from vesalius.learning.detect_plan import DetectPlan, first_plan, with_photographs
from vesalius.learning.export import check_volume, export_module
from vesalius.learning.fit import training_curve, versions, write_note
from vesalius.learning.loop import Schedule, State, train
from vesalius.learning.study import FitSettings
from vesalius.measures.target import Target
from vesalius.networks.detector import DetectorEnsemble, detector

_MEASURED_STEPS = 4
_HOPELESS = 4.0  # a first step this many times slower than the best way is not repeated
_ENOUGH_STEPS = 600  # of each network, where there is a choice
_LEAST_STEPS = 150  # of a pretrained network; with fewer, a smaller one is quicker to be of use
_MEASURING_SHARE = 0.03  # of the budget, at most, goes into measuring ways of computing
_RESERVE_SECONDS, _RESERVE_SHARE = 4.0, 0.02  # kept for the second look and export
_JUDGING_SECONDS = 0.15  # per image and class: candidates, features and their classifier

Part = tuple[list[LookedOver], list[LookedOver]]


def fit_detection(
    cohort: Cohort,
    train_cases: Sequence[Case],
    settings: FitSettings,
    work: Path,
    progress: Progress,
    question: Target,
) -> Fitted:
    """Fit a detector to places within `settings.minutes`.

    Args:
        cohort: for its folder and digest.
        train_cases: what may be learned from.
        settings: what is asked for; `folds` 1 leaves the number of networks to the plan.
        work: folder for checkpoints and the plan; an interrupted call is resumed from it.
        progress: told the plan, the loss and the time left.
        question: the target, of kind "places".

    Returns:
        The bundle's files; the card's keys `preparation`, `network`, `second_look`, `second_opinion`, `other_views`,
        `threshold`, `plan`, `versions` and `sentences`; and the curve.

    Raises:
        UsageError: there is nothing to learn from, or something is asked that a detector cannot do.
        VesaliusError: torch and ONNX Runtime disagree on the result.
    """
    began = time.monotonic()
    if settings.network is not None or settings.only is not None:
        raise UsageError("A detection trains its own networks, all of them in one process.", remedy="Leave it out.")
    if not settings.resume:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    spent_before = _spent(work)
    deadline = began + 60 * settings.minutes - spent_before
    cases = [(case, _places(case, question, settings.inputs)) for case in train_cases]
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    plan, planned = _plan(cases, settings, work, device)
    images, left_out = look_over(cohort, cases, plan.view, progress)
    for sentence in left_out:
        progress.say(sentence)
    if not any(len(image.classes) for image in images):
        raise UsageError("No image with a lesion can be used.", remedy="See the reasons above.")
    classes = len(question.classes)
    study = None
    if plan.filters or (not planned and plan.folds > 1):
        budget = math.inf if planned else 60 * settings.minutes
        study = FilterStudy.of(cohort, train_cases, question, settings, budget, progress)
    if not planned:
        end = deadline if study is None else deadline - study.seconds(plan.folds)
        plan = _chosen(replace(plan, filters=study is not None), images, classes, settings, end)
        write_note(work / "plan.json", plan.as_json())
    parts = _folded(images, plan.folds, settings.seed)
    groups = [{item.patient for item in inner} for _, inner in parts]
    filters = study.ask(cohort, settings.inputs, groups) if study is not None and plan.folds > 1 else None
    plan = replace(plan, filters=filters is not None)
    torch.set_num_threads(plan.threads)
    for sentence in plan.sentences():
        progress.say(sentence)
    looking = _looking(plan, images, classes)
    averages, states = [], []
    for number, (learned, _) in enumerate(parts):
        if plan.folds > 1:
            progress.say(f"Network {number + 1} of {plan.folds}.")
        patches = LesionPatches(
            learned, plan.patch, plan.batch, classes, settings.seed * 1009 + number, plan.augmentation
        )
        lesson = DetectionLesson(patches, plan, work / f"alarms{number}.json")

        end = time.monotonic() + _share(deadline, settings.minutes, looking, plan.folds - number)

        def left(end: float = end) -> float:
            return end - time.monotonic()

        def saved() -> None:
            write_note(work / "spent.json", {"seconds": spent_before + time.monotonic() - began})

        network = _network(images[0].array.shape[0], classes, plan, settings.seed, number)
        average, state = train(
            network, None, _schedule(plan, number, classes, settings.seed),
            work / f"network{number}.safetensors", progress,
            deadline=None if settings.plan is not None else left, resume=settings.resume, saved=saved, lesson=lesson,
        )  # fmt: skip
        averages.append(average)
        states.append(state)
    plan = replace(plan, turns=tuple(tuple(state.turns) for state in states))
    scoring = _judged(averages, parts, plan, question, filters, settings, progress)
    return _finished(averages, plan, scoring, filters, states, question.classes, images, settings, left_out)


def _finished(
    averages: Sequence[nn.Module],
    plan: DetectPlan,
    scoring: Scoring,
    filters: Filters | None,
    states: Sequence[State],
    names: Sequence[str],
    images: Sequence[LookedOver],
    settings: FitSettings,
    left_out: Sequence[str],
) -> Fitted:
    """Export, and write the card."""
    size = [1 if n == 1 else max(2 * m, 32) for n, m in zip(plan.patch, plan.multiple, strict=True)]
    whole = DetectorEnsemble(averages)
    free = {0: "n", 2: "i", 3: "j"} | ({} if plan.planar else {4: "k"})
    image = check_volume(images[0].array.shape[0], size)
    small = {axis: f"{name}_heat" if axis else name for axis, name in free.items()}
    files = export_module(whole, image, {"image": free, "heat": small, "size": small})
    opinion = None
    if scoring.opinion is not None and filters is not None:
        entry, more = in_bundle(filters.model)
        opinion, files = {**scoring.opinion.as_json(), "filters": entry}, files | more
    minutes = sum(state.seconds for state in states) / 60
    lesions = sum(len(item.classes) for item in images)
    spacing = list(plan.view.spacing)
    card = {
        "preparation": {
            "inputs": list(settings.inputs), "spacing": spacing, "view": plan.view.as_json(),
            "normalisation": [{"kind": "zscore"} for _ in settings.inputs],
        },
        "network": {
            "patch": list(plan.patch), "stride": list(plan.stride), "multiple": list(plan.multiple),
            "mirror_axes": list(plan.augmentation.mirror_axes), "outputs": ["heat", "size"],
            "most": plan.most,
        },
        "second_look": None if scoring.look is None else scoring.look.as_json(), "second_opinion": opinion,
        "other_views": None if scoring.others is None else scoring.others.as_json(),
        "threshold": _thresholds(scoring, names),
        "plan": plan.as_json(), "versions": versions(),
        **({"start": shipped_json()} if plan.pretrained else {}),
        "sentences": [
            f"{len(images)} images that were looked over, with {lesions} lesions.", *left_out, *plan.sentences(),
            f"Trained {sum(state.step for state in states)} steps in {minutes:.1f} minutes.", *scoring.said,
            *_operating_points(scoring, names),
        ],
    }  # fmt: skip
    return Fitted(files, card, training_curve(states, "heat + sizes"))


def _thresholds(scoring: Scoring, names: Sequence[str]) -> dict[str, Any]:
    """Scores for the card: by class and false positives per image, and that of triage."""
    rates = [f"{rate:g}" for rate in ALARMS_PER_IMAGE]
    by_class = {name: dict(zip(rates, found, strict=True)) for name, found in zip(names, scoring.alarms, strict=False)}
    triage = {} if scoring.triage is None else {"sensitivity_99": scoring.triage}
    return {"false_positives_per_image": by_class, **triage}


def _operating_points(scoring: Scoring, names: Sequence[str]) -> list[str]:
    rates = ", ".join(f"{rate:g}" for rate in ALARMS_PER_IMAGE)
    return [
        f"Out of fold, scores of {name} above {', '.join(f'{score:.3f}' for score in found)} left {rates} false "
        "positives per image."
        for name, found in zip(names, scoring.alarms, strict=False)
    ]


def _places(case: Case, question: Target, roles: Sequence[str]) -> Places:
    """The case's lesions in its images of these roles, or in all that were looked over where none is named."""
    kept = {image.id for image in case.images if not roles or image.role in roles}
    return {image: lesions for image, lesions in question.places(case).items() if image in kept}


def _plan(
    cases: Sequence[tuple[Case, Places]], settings: FitSettings, work: Path, device: str
) -> tuple[DetectPlan, bool]:
    """The stored plan, that of the interrupted call, or a first one; and whether its steps are known."""
    if settings.plan is not None:
        return replace(DetectPlan.from_json(settings.plan), device=device), True
    kept = work / "plan.json"
    if settings.resume and kept.exists():
        return DetectPlan.from_json(json.loads(kept.read_text(encoding="utf-8"))), True
    threads = settings.threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    plan = first_plan(cases, settings.folds, device, threads)
    if settings.augmentation is not None:
        plan = replace(plan, augmentation=settings.augmentation)
    return plan, False


def _folded(images: Sequence[LookedOver], folds: int, seed: int) -> list[Part]:
    """Who learns from which images: patients with lesions and patients without are dealt out alike."""
    if folds == 1:
        return [(list(images), [])]
    sick = sorted({image.patient for image in images if len(image.classes)})
    well = sorted({image.patient for image in images} - set(sick))
    rng = np.random.default_rng(seed)
    order = [sick[n] for n in rng.permutation(len(sick))] + [well[n] for n in rng.permutation(len(well))]
    groups = [set(order[number::folds]) for number in range(folds)]
    return [
        ([item for item in images if item.patient not in group], [item for item in images if item.patient in group])
        for group in groups
    ]


def _network(depth: int, classes: int, plan: DetectPlan, seed: int, number: int) -> nn.Module:
    torch.manual_seed(seed * 1009 + number)
    network = detector(depth, classes, 2 if plan.planar else 3, plan.widths, pretrained=plan.pretrained)
    form: Any = torch.channels_last if plan.planar else torch.channels_last_3d
    return network.to(memory_format=form)  # type: ignore[call-overload,no-any-return]


def _schedule(plan: DetectPlan, number: int, classes: int, seed: int) -> Schedule:
    return Schedule(
        steps=plan.steps, rate=plan.rate, weight_decay=plan.weight_decay, warm_up=plan.warm_up, size=plan.patch,
        spacing=plan.view.spacing, classes=classes, bfloat16=False, channels_last=False, device=plan.device,
        seed=seed * 1009 + number, augmentation=plan.augmentation,
        turns=plan.turns[number] if number < len(plan.turns) else (),
    )  # fmt: skip


def _chosen(
    plan: DetectPlan, images: Sequence[LookedOver], classes: int, settings: FitSettings, deadline: float
) -> DetectPlan:
    """The measured plan: from weights that have seen photographs, where the time is enough for them."""
    if plan.planar and settings.shipped_weights:
        found = _measured(with_photographs(plan), images, classes, settings, deadline)
        if found.steps >= _LEAST_STEPS:
            return found
    return _measured(plan, images, classes, settings, deadline)


def _measured(
    plan: DetectPlan, images: Sequence[LookedOver], classes: int, settings: FitSettings, deadline: float
) -> DetectPlan:
    """The plan with the way of computing that measured fastest and as many steps as fit."""
    sick = len({image.patient for image in images if len(image.classes)})
    plan = replace(plan, folds=min(plan.folds, sick))
    patches = LesionPatches(images, plan.patch, plan.batch, classes, settings.seed, plan.augmentation)
    numbers = [plan.threads] if settings.threads or plan.device != "cpu" else sorted({1, plan.threads})
    ways = [replace(plan, threads=threads, bfloat16=half) for half in (False, True) for threads in numbers]
    enough = time.monotonic() + _MEASURING_SHARE * (deadline - time.monotonic())
    best = replace(plan, seconds_per_step=math.inf)
    for way in ways:
        if math.isfinite(best.seconds_per_step) and time.monotonic() > enough:
            break
        torch.set_num_threads(way.threads)
        network = _network(images[0].array.shape[0], classes, way, settings.seed, 0).to(way.device).train()
        lesson = DetectionLesson(patches, replace(way, steps=10**9), Path("-"))
        optimiser = torch.optim.AdamW(network.parameters(), 0.0)
        spent = []
        for number in range(1 + _MEASURED_STEPS):
            start = time.perf_counter()
            lesson(network, optimiser, number)
            spent.append(time.perf_counter() - start)
            if spent[0] > _HOPELESS * best.seconds_per_step:
                break  # threads that wait for each other on a busy machine can take a hundred times as long
        seconds = float(np.median(spent[1:] or spent))
        if seconds < 0.97 * best.seconds_per_step:
            best = replace(way, seconds_per_step=seconds)
    # Fewer networks where all of them would hardly learn anything; those that were asked for are trained.
    steps = _share(deadline, settings.minutes, _looking(best, images, classes), 1) / best.seconds_per_step
    folds = best.folds
    while settings.folds == 1 and folds > 2 and steps / folds < _ENOUGH_STEPS:
        folds -= 1
    return replace(best, folds=folds, filters=best.filters and folds > 1, steps=max(20, int(steps / folds)))


def _looking(plan: DetectPlan, images: Sequence[LookedOver], classes: int) -> float:
    """Seconds that the out-of-fold look at every image takes: a third of a step's work per voxel and view."""
    voxels = sum(float(np.prod(image.shape)) for image in images) * (1 + len(plan.augmentation.mirror_axes))
    per_voxel = 0.4 * plan.seconds_per_step / (plan.batch * float(np.prod(plan.patch)))
    return per_voxel * voxels + _JUDGING_SECONDS * classes * len(images)


def _share(deadline: float, minutes: float, looking: float, networks: int) -> float:
    """Seconds left for one of so many networks."""
    reserve = _RESERVE_SECONDS + _RESERVE_SHARE * 60 * minutes
    return (deadline - time.monotonic() - reserve - looking) / networks


def _judged(
    averages: Sequence[nn.Module],
    parts: Sequence[Part],
    plan: DetectPlan,
    question: Target,
    filters: Filters | None,
    settings: FitSettings,
    progress: Progress,
) -> Scoring:
    """How candidates are judged, fitted on those that networks found in patients they never saw."""
    work = [(network, image) for network, (_, inner) in zip(averages, parts, strict=True) for image in inner]
    if not work:
        return Scoring(None, None, None, ("There were too few patients with lesions to look at any out of fold.",))
    geometry = HeatGeometry(plan.stride, plan.multiple, plan.augmentation.mirror_axes)
    judged = []
    for network, image in progress.track(work, "looking at cases out of fold", total=len(work)):
        heat, sizes = heat_map(image.array, runner(network, plan.device), geometry)
        said = filters.marks.get(image.image, []) if filters is not None else []
        for of_class, name in enumerate(question.classes):
            found = candidates(heat[of_class], sizes, plan.stride, plan.most)
            found = with_points(found, image.array, heat[of_class], sizes, plan.stride)
            table = features(image.array, heat[of_class], found, plan.stride)
            marks = None if filters is None else marks_of(said, name, image.seen)
            judged.append(Judged(image, of_class, found, table, marks))
    return fit_scoring(judged, settings.seed, together=len(settings.inputs) != 1)


def _spent(work: Path) -> float:
    """Seconds of the budget that interrupted calls have used."""
    note = work / "spent.json"
    return float(json.loads(note.read_text(encoding="utf-8"))["seconds"]) if note.exists() else 0.0
