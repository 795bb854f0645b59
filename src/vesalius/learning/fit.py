"""Fit a segmentation model within a budget: look, prepare, measure, plan, train, validate, export."""

from __future__ import annotations

import json
import os
import platform
import shutil
import threading
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
from vesalius.core.protocols import Fitted
from vesalius.core.report import Plot, Series
from vesalius.learning import plan as planning
from vesalius.learning.export import export
from vesalius.learning.fingerprint import Fingerprint
from vesalius.learning.loop import (
    State,
    seconds_per_step,
    train,
)
from vesalius.learning.plan import Plan
from vesalius.learning.study import FitSettings, Parts, Study, study_of

__all__ = ["FitSettings", "finished", "fit_segmentation"]

_LOSS = "Dice + cross-entropy"
_MEASURED_STEPS = 3
_MEASURING_SHARE = 0.06  # of the budget, at most, goes into measuring candidates
_RESERVE_SECONDS, _RESERVE_SHARE = 4.0, 0.02  # kept for export


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
    study, found, parts = study_of(cohort, train_cases, settings, work, progress)
    spent_before = spent_before_in(work, settings)
    deadline = began + 60 * settings.minutes - spent_before
    plan = _plan(study, cohort, found, deadline, parts)

    def note_spent() -> None:
        write_note(work / "spent.json", {"seconds": spent_before + time.monotonic() - began})

    chosen = range(len(parts)) if settings.only is None else settings.only
    averages, states = [], []
    for place, number in enumerate(chosen):
        if len(chosen) > 1:
            progress.say(f"Network {place + 1} of {len(chosen)}.")
        share = _Share(deadline, len(chosen) - place, _looking(plan, parts), settings)
        average, state = train(
            study.network(plan, number), study.patches(plan, number, parts[number][0]),
            study.schedule(plan, number), study.checkpoint(number), progress,
            deadline=None if settings.plan is not None else share.started(), resume=settings.resume,
            saved=note_spent,
        )  # fmt: skip
        averages.append(average)
        states.append(state)
    if settings.only is not None:
        return Fitted({}, {"plan": plan.as_json(), "sentences": list(plan.sentences())}, training_curve(states, _LOSS))
    return finished(study, cohort, found, plan, parts, averages, states)


def finished(
    study: Study,
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
    return Fitted(files, card, training_curve(states, _LOSS))


def spent_before_in(work: Path, settings: FitSettings) -> float:
    """Seconds of the budget that interrupted calls have used; starts afresh unless resuming."""
    note = work / "spent.json"
    if not settings.resume:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    return float(json.loads(note.read_text(encoding="utf-8"))["seconds"]) if note.exists() else 0.0


def _plan(study: Study, cohort: Cohort, found: Fingerprint, deadline: float, parts: Parts) -> Plan:
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
    write_note(kept, plan.as_json())
    for sentence in (*plan.measured, *plan.sentences()):
        study.progress.say(sentence)
    torch.set_num_threads(plan.threads)
    return plan


def _measured_plan(study: Study, cohort: Cohort, found: Fingerprint, deadline: float, parts: Parts) -> Plan:
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
        """What there is of it now; a network that starts takes `started`, so that its end stays where it is."""
        reserve = _RESERVE_SECONDS + self.settings.folds + _RESERVE_SHARE * 60 * self.settings.minutes
        return (self.deadline - time.monotonic() - reserve - self.looking) / self.networks

    def started(self) -> Callable[[], float]:
        """Seconds left, whenever it is asked, of the share as it is now."""
        end = time.monotonic() + self.seconds()
        return lambda: end - time.monotonic()


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


def training_curve(states: Sequence[State], loss: str) -> Plot:
    """Loss by step of each network; `loss` says what it is made of."""
    series = tuple(
        Series(f"network {number + 1}", tuple(float(at) for at, _ in state.curve),
               tuple(loss for _, loss in state.curve), line=True)
        for number, state in enumerate(states)
    )  # fmt: skip
    return Plot("Training", "step", f"loss ({loss})", series)


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


def write_note(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON beside and rename it; networks that train side by side may write at once."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    beside.write_text(json.dumps(data, indent=1), encoding="utf-8")
    beside.rename(path)
