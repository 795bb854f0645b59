"""Fit a segmentation model within a budget: look, prepare, measure, plan, train, validate, export."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.grid import Array
from vesalius.core.progress import Progress
from vesalius.core.report import Plot, Series
from vesalius.imaging.augmentation import AugmentationSettings
from vesalius.imaging.prepare import Preparation
from vesalius.learning import plan as planning
from vesalius.learning.data import Patches, PreparedCase, prepare_cases
from vesalius.learning.export import export
from vesalius.learning.fingerprint import Fingerprint, fingerprint, preparation_for
from vesalius.learning.loop import (
    Schedule,
    State,
    load_checkpoint,
    seconds_per_step,
    sizes_with_margin,
    train,
)
from vesalius.learning.plan import Plan
from vesalius.learning.validate import dice_per_class
from vesalius.networks.unet import OfVolumes, ResidualUNet

NetworkMaker = Callable[[int, int, int], nn.Module]

_INNER_SHARE, _INNER_MOST = 0.05, 8  # patients that one network leaves out to be looked at while training
_INNER_FROM = 20  # with fewer patients none is left out
_MEASURED_STEPS = 3
_MEASURING_SHARE = 0.06  # of the budget, at most, goes into measuring candidates
_RESERVE_SECONDS, _RESERVE_SHARE = 4.0, 0.02  # kept for export
_PATCHES_PER_VOLUME = 200  # the median volume is made coarser until it has no more voxels than this many


@dataclass(frozen=True)
class FitSettings:
    """What `fit_segmentation` is asked for.

    Args:
        minutes: budget from the call to its return.
        seed: every random choice follows from it.
        folds: 1 for one network; 2 or more for an ensemble, each without one fold. A stored plan says itself.
        resume: go on from what an interrupted call left in `work`.
        device: "cpu" or "cuda"; CUDA where there is one if left out.
        plan: a stored plan (`Plan.as_json`), run again step for step whatever time it takes.
        inputs: role of each input, in order.
        network: a network of the user's own: `network(channels, classes, dimensions)` gives a module from
            (n, channels, *sizes) to logits (n, classes, *sizes), for sizes that are multiples of 8.
        augmentation: how patches are changed; the plan's own if left out.
        threads: processor threads; measured if left out.
        only: train only these networks of the folds and export nothing, so that several processes can share
            an ensemble; `export_ensemble` then puts their work together.
    """

    minutes: float
    seed: int = 0
    folds: int = 1
    resume: bool = False
    device: str | None = None
    plan: Mapping[str, Any] | None = None
    inputs: tuple[str, ...] = ("image",)
    network: NetworkMaker | None = None
    augmentation: AugmentationSettings | None = None
    threads: int | None = None
    only: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves: the bundle's files, its part of the card, and the curve of the training."""

    files: dict[str, bytes]
    card: dict[str, Any]
    curve: Plot


@dataclass(frozen=True)
class _Study:
    """What every part of one fit needs."""

    cases: Sequence[PreparedCase]
    preparation: Preparation
    classes: Mapping[int, int]
    ignore: int | None
    settings: FitSettings
    spacing: tuple[float, float, float]
    channels: int
    device: str
    work: Path
    progress: Progress

    def checkpoint(self, number: int) -> Path:
        """Where the loop keeps network `number`."""
        return self.work / f"network{number}.safetensors"

    def network(self, plan: Plan, number: int) -> nn.Module:
        """Fresh weights of network `number`, the same for the same seed."""
        torch.manual_seed(self.settings.seed * 1009 + number)
        dims, classes = (2 if plan.planar else 3), len(self.classes) + 1
        shape = plan.shape
        if self.settings.network is not None:
            net = self.settings.network(self.channels, classes, dims)
        elif shape is not None:
            net = ResidualUNet(self.channels, classes, shape, dims)
        else:
            raise UsageError("The stored plan is for a network of one's own.", remedy="Give that network again.")
        return OfVolumes(net) if plan.planar else net

    def schedule(self, plan: Plan, number: int) -> Schedule:
        """What the loop does for network `number`."""
        turns = plan.turns[number] if number < len(plan.turns) else ()
        return Schedule(
            steps=plan.steps, rate=plan.rate, weight_decay=plan.weight_decay, warm_up=plan.warm_up,
            size=plan.patch, spacing=self.spacing, classes=len(self.classes) + 1, bfloat16=plan.bfloat16,
            channels_last=plan.channels_last, device=plan.device, seed=self.settings.seed * 1009 + number,
            augmentation=plan.augmentation, turns=turns,
        )  # fmt: skip

    def patches(self, plan: Plan, number: int, cases: Sequence[PreparedCase]) -> Patches:
        """Where the batches of network `number` come from."""
        return Patches(
            cases, sizes_with_margin(plan.patch, plan.augmentation), plan.batch,
            self.settings.seed * 1009 + number, self.classes, self.ignore, plan.foreground,
        )  # fmt: skip

    def dice(self, plan: Plan, network: nn.Module, cases: Sequence[PreparedCase]) -> Array:
        """Dice (cases, classes) as the bedside would have it."""
        axes = plan.augmentation.mirror_axes
        return dice_per_class(network, cases, self.classes, self.ignore, plan.patch, axes, plan.device)


def fit_segmentation(
    cohort: Cohort, train_cases: Sequence[Case], settings: FitSettings, work: Path, progress: Progress
) -> Fitted:
    """Fit a model to masks within `settings.minutes`.

    Args:
        cohort: for its labels, ignore value, folder and folds.
        train_cases: what may be learned from; every one has the inputs and a mask.
        settings: what is asked for.
        work: folder for checkpoints and the plan; an interrupted call is resumed from it.
        progress: told the plan, the loss and the time left.

    Returns:
        The bundle's files, the card's keys `preparation`, `network`, `plan`, `versions` and `sentences`,
        and the curve.

    Raises:
        UsageError: there is nothing to learn from, or the stored plan does not fit.
        VesaliusError: torch and ONNX Runtime disagree on the result.
    """
    began = time.monotonic()
    if settings.plan is not None:
        settings = replace(settings, folds=Plan.from_json(settings.plan).folds)
    study, found, parts = _study(cohort, train_cases, settings, work, progress)
    spent_before = _spent_before(work, settings)
    deadline = began + 60 * settings.minutes - spent_before
    plan = _plan(study, cohort, found, deadline, parts)

    def note_spent() -> None:
        _write_json(work / "spent.json", {"seconds": spent_before + time.monotonic() - began})

    chosen = range(len(parts)) if settings.only is None else settings.only
    averages, states = [], []
    for place, number in enumerate(chosen):
        if len(chosen) > 1:
            progress.say(f"Network {place + 1} of {len(chosen)}.")
        share = _Share(deadline, len(chosen) - place, _looking(plan, parts), settings)
        average, state = train(
            study.network(plan, number), study.patches(plan, number, parts[number][0]),
            study.schedule(plan, number), study.checkpoint(number), progress,
            deadline=None if settings.plan is not None else share.seconds, resume=settings.resume,
            saved=note_spent,
        )  # fmt: skip
        averages.append(average)
        states.append(state)
    if settings.only is not None:
        return Fitted({}, {"plan": plan.as_json(), "sentences": list(plan.sentences())}, _curve(states))
    return _fitted(study, cohort, found, plan, parts, averages, states)


def export_ensemble(
    cohort: Cohort,
    train_cases: Sequence[Case],
    settings: FitSettings,
    works: Sequence[Path],
    progress: Progress,
) -> Fitted:
    """Put the networks together that processes trained apart (`FitSettings.only`), as far as they have come.

    A network that is in none of the folders is left out of the ensemble, and the card says so.

    Args:
        cohort, train_cases, settings: as they were for training; no time is spent on it.
        works: the work folders; each network is taken from the first that has it, the plan from the first.
        progress: told what happens.

    Raises:
        UsageError: there is no network in any of the folders.
    """
    study, found, parts = _study(cohort, train_cases, settings, works[0], progress)
    kept_plan = works[0] / "plan.json"
    if not kept_plan.exists():
        raise UsageError("There is no plan in the work folder.", remedy="Train first.", file=works[0])
    plan = Plan.from_json(json.loads(kept_plan.read_text(encoding="utf-8")))
    torch.set_num_threads(plan.threads)
    averages, states, present = [], [], []
    for number in range(len(parts)):
        kept = [study_path for work in works if (study_path := replace(study, work=work).checkpoint(number)).exists()]
        if not kept:
            continue
        present.append(parts[number])
        average = study.network(plan, number)
        states.append(load_checkpoint(kept[0], study.network(plan, number), average))
        averages.append(average.eval())
    if not averages:
        raise UsageError("There is no trained network in the work folders.", remedy="Train first.")
    return _fitted(study, cohort, found, plan, present, averages, states)


Parts = list[tuple[list[PreparedCase], list[PreparedCase]]]


def _study(
    cohort: Cohort, train_cases: Sequence[Case], settings: FitSettings, work: Path, progress: Progress
) -> tuple[_Study, Fingerprint, Parts]:
    """Look at the cohort, prepare its cases and divide them among the networks."""
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if settings.folds < 1:
        raise UsageError("The number of folds is 1 or more.")
    if not cohort.labels:
        raise UsageError("The cohort has no named classes.", remedy="Run label with --names.")
    found = fingerprint(cohort, train_cases, settings.inputs)
    progress.say(found.sentence())
    voxels = planning.patch_limit(found, device) * _PATCHES_PER_VOLUME
    preparation = preparation_for(found, settings.inputs, voxels)
    cases, left_out = prepare_cases(cohort, train_cases, preparation, progress)
    for sentence in left_out:
        progress.say(sentence)
    if not cases:
        raise UsageError("No training case can be used.", remedy="See the reasons above.")
    classes = {label.value: number for number, label in enumerate(cohort.labels, 1)}
    spacing = preparation.spacing or found.spacing
    study = _Study(
        cases, preparation, classes, cohort.ignore, settings, spacing, cases[0].channels, device, work, progress
    )
    return study, found, _parts(cases, settings)


def _fitted(
    study: _Study,
    cohort: Cohort,
    found: Fingerprint,
    plan: Plan,
    parts: Parts,
    averages: Sequence[nn.Module],
    states: Sequence[State],
) -> Fitted:
    """Look at the left-out cases, export, and write the card."""
    outside = [study.dice(plan, average, inner) for average, (_, inner) in zip(averages, parts, strict=True) if inner]
    plan = replace(plan, turns=tuple(tuple(state.turns) for state in states))
    files = export(averages, study.channels, _check_size(plan))
    sentences = [found.sentence(), *plan.sentences(), *_judgement(cohort, plan, states, outside)]
    card = {
        "preparation": study.preparation.as_json(), "network": _network_card(plan), "plan": plan.as_json(),
        "versions": versions(), "fingerprint": found.as_json(), "sentences": sentences,
    }  # fmt: skip
    return Fitted(files, card, _curve(states))


def _parts(cases: Sequence[PreparedCase], settings: FitSettings) -> Parts:
    """For each network the cases it learns from and those it is looked at on; patients are never shared."""
    patients = sorted({case.patient for case in cases})
    order = [patients[n] for n in np.random.default_rng(settings.seed).permutation(len(patients))]
    if settings.folds == 1:
        few = 0 if len(order) < _INNER_FROM else max(1, min(_INNER_MOST, int(_INNER_SHARE * len(order))))
        groups = [set(order[:few])]
    else:
        if len(order) < settings.folds:
            raise UsageError(
                f"{settings.folds} folds need as many patients; there are {len(order)}.", remedy="Ask for fewer."
            )
        groups = [set(order[number :: settings.folds]) for number in range(settings.folds)]
    return [
        ([c for c in cases if c.patient not in group], [c for c in cases if c.patient in group]) for group in groups
    ]


def _spent_before(work: Path, settings: FitSettings) -> float:
    """Seconds of the budget that interrupted calls have used; starts afresh unless resuming."""
    note = work / "spent.json"
    if not settings.resume:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    return float(json.loads(note.read_text(encoding="utf-8"))["seconds"]) if note.exists() else 0.0


def _plan(study: _Study, cohort: Cohort, found: Fingerprint, deadline: float, parts: Parts) -> Plan:
    """The stored plan, the plan of the interrupted call, or a new one from measured candidates."""
    settings, kept = study.settings, study.work / "plan.json"
    if settings.plan is not None:
        plan = replace(Plan.from_json(settings.plan), device=study.device)
    elif settings.resume and kept.exists():
        plan = Plan.from_json(json.loads(kept.read_text(encoding="utf-8")))
    else:
        plan = _measured_plan(study, cohort, found, deadline, parts)
    if plan.folds != settings.folds:
        raise UsageError(f"The interrupted fit has {plan.folds} folds.", remedy="Ask for the same number.")
    _write_json(kept, plan.as_json())
    for sentence in (*plan.measured, *plan.sentences()):
        study.progress.say(sentence)
    torch.set_num_threads(plan.threads)
    return plan


def _measured_plan(study: _Study, cohort: Cohort, found: Fingerprint, deadline: float, parts: Parts) -> Plan:
    settings = study.settings
    threads = settings.threads or usable_threads()
    plan = planning.first_plan(found, cohort.labels, study.spacing, study.device, settings.folds, threads)
    if settings.network is not None:
        plan = replace(plan, channels=(), strides=())
    if settings.augmentation is not None:
        plan = replace(plan, augmentation=settings.augmentation)
    patches = study.patches(plan, 0, parts[0][0])
    enough = time.monotonic() + _MEASURING_SHARE * (deadline - time.monotonic())

    def measure(candidate: Plan, hopeless: float) -> list[float] | None:
        if time.monotonic() > enough:
            return None
        torch.set_num_threads(candidate.threads)
        network = study.network(candidate, 0)
        return seconds_per_step(network, patches, study.schedule(candidate, 0), _MEASURED_STEPS, hopeless)

    plan = planning.fastest(plan, measure, threads_too=settings.threads is None)
    chosen = len(parts) if settings.only is None else len(settings.only)
    share = _Share(deadline, chosen, _looking(plan, parts), settings)
    return planning.fitted_to(plan, study.spacing, share.seconds, measure)


@dataclass(frozen=True)
class _Share:
    """The part of the budget that one network gets.

    Args:
        deadline: when the whole fit has to be over (`time.monotonic`).
        networks: how many have still to be trained, this one included.
        looking: seconds that validation takes.
        settings: for what export takes.
    """

    deadline: float
    networks: int
    looking: float
    settings: FitSettings

    def seconds(self) -> float:
        """What is left of it now."""
        reserve = _RESERVE_SECONDS + self.settings.folds + _RESERVE_SHARE * 60 * self.settings.minutes
        return (self.deadline - time.monotonic() - reserve - self.looking) / self.networks


def _looking(plan: Plan, parts: Parts) -> float:
    """Seconds that looking at the left-out cases of these parts takes."""
    return planning.validation_seconds(plan, [inner for _, inner in parts])


def _check_size(plan: Plan) -> list[int]:
    """A window of about 16 voxels an axis that the network takes."""
    units = plan.shape.multiple if plan.shape is not None else (8, 8, 8)
    return [1 if n == 1 else min(n, unit * max(2, -(-16 // unit))) for n, unit in zip(plan.patch, units, strict=True)]


def _network_card(plan: Plan) -> dict[str, Any]:
    units = plan.shape.multiple if plan.shape is not None else tuple(min(n & -n, 8) for n in plan.patch)
    return {
        "patch": list(plan.patch), "overlap": 0.5, "mirror_axes": list(plan.augmentation.mirror_axes),
        "multiple": list(units), "outputs": "logits",
    }  # fmt: skip


def _judgement(cohort: Cohort, plan: Plan, states: Sequence[State], outside: Sequence[Array]) -> list[str]:
    """What the training came to, in plain words."""
    minutes = sum(state.seconds for state in states) / 60
    said = [f"Trained {sum(state.step for state in states)} steps in {minutes:.1f} minutes."]
    rows = np.concatenate(outside) if outside else np.empty((0, len(cohort.labels)))
    if len(rows):
        means = [float(np.nanmean(column)) if np.isfinite(column).any() else np.nan for column in rows.T]
        each = ", ".join(f"{label.name} {value:.3f}" for label, value in zip(cohort.labels, means, strict=True))
        how = "each answered by the one network that never saw it" if plan.folds > 1 else "left out of training"
        said.append(f"Mean Dice of {len(rows)} cases, {how}: {each}.")
    if len(states) < plan.folds:
        said.append(f"The ensemble holds {len(states)} of {plan.folds} planned networks.")
    return said


def _curve(states: Sequence[State]) -> Plot:
    """Loss by step of each network."""
    series = tuple(
        Series(f"network {number + 1}", tuple(float(at) for at, _ in state.curve),
               tuple(loss for _, loss in state.curve), line=True)
        for number, state in enumerate(states)
    )  # fmt: skip
    return Plot("Training", "step", "loss (Dice + cross-entropy)", series)


def versions() -> dict[str, str]:
    """Versions of what the training side runs on."""
    import monai
    import onnx

    return {
        "python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__,
        "onnx": onnx.__version__, "numpy": np.__version__,
    }  # fmt: skip


def usable_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(data, indent=1), encoding="utf-8")
    beside.rename(path)
