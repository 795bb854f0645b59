"""Putting the same cases to every arm, and keeping what each answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Case
from vesalius.core.errors import UnusableInput, UsageError, VesaliusError
from vesalius.core.finding import Finding, Mask
from vesalius.core.grid import Array
from vesalius.core.image import Image
from vesalius.core.progress import Progress
from vesalius.core.protocols import Model, Prediction, Task
from vesalius.core.report import Picture, Score
from vesalius.measures.summary import MODEL
from vesalius.tasks.inputs import inputs_of

WORST_SHOWN = 6
_LABELS, _DETAIL = "label_map", "detail_"


@dataclass(frozen=True)
class _Held:
    """Pixels that were read already, so that all arms and the scoring share one reading."""

    array: Array

    def read(self) -> Array:
        """The array."""
        return self.array


@dataclass
class Measured:
    """What became of each case. Arrays lie on the disk, so that memory does not grow with the cases.

    Args:
        spool: folder for arrays.
        cases: the cases that were measured.
        scores: of every arm, case and class.
        aside: cases that could not be read, with the reason.
        unanswered: arm, case and reason where an arm gave no answer; it counts as an empty one.
    """

    spool: Path
    cases: list[Case] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    aside: list[tuple[str, str]] = field(default_factory=list)
    unanswered: list[tuple[str, str, str]] = field(default_factory=list)
    _answers: dict[str, dict[str, tuple[Prediction, Path]]] = field(default_factory=dict)

    def keep(self, case: Case, answers: Mapping[str, Prediction]) -> None:
        """Put the arrays of a case's answers on the disk, the rest of them into memory."""
        kept = {}
        for arm, answer in answers.items():
            path = self.spool / f"{len(self._answers)}-{arm}.npz"
            arrays = {name: value for name, value in answer.details.items() if isinstance(value, np.ndarray)}
            stored: dict[str, Any] = {f"{_DETAIL}{name}": _small(value) for name, value in arrays.items()}
            if answer.label_map is not None:
                label_map = np.asarray(answer.label_map)
                smallest = np.min_scalar_type(int(label_map.max(initial=0)))
                stored[_LABELS] = label_map.astype(smallest)
            if stored:
                np.savez_compressed(path, **stored)
            rest = {name: value for name, value in answer.details.items() if name not in arrays}
            kept[arm] = replace(answer, label_map=None, details=rest), path
        self._answers[case.id] = kept

    def answers(self, case: Case) -> dict[str, Prediction]:
        """What each arm answered for a case."""
        found = {}
        for arm, (answer, path) in self._answers[case.id].items():
            found[arm] = answer
            if path.exists():
                with np.load(path) as stored:
                    details = {name.removeprefix(_DETAIL): stored[name] for name in stored if name != _LABELS}
                    labels = stored.get(_LABELS)
                found[arm] = replace(answer, label_map=labels, details={**answer.details, **details})
        return found


def _small(array: Array) -> Array:
    """Half as exact where that is enough for a picture, such as a class-activation map."""
    return array.astype(np.float16) if array.dtype.kind == "f" else array


def measure_arms(
    task: Task,
    arms: Mapping[str, Model],
    cases: Sequence[Case],
    inputs: Sequence[str],
    spool: Path,
    progress: Progress,
) -> Measured:
    """Ask every arm about every case and score the answers by the same code.

    One case is in memory at a time: its images, its truth, and each arm's answer. A case that cannot be read
    is set aside for every arm. An arm that gives no answer, of whatever cause, gets the scores of an empty
    one, so that it does not gain by failing on hard cases; both are listed.

    Raises:
        UsageError: no case could be measured, or the model answered none.
    """
    measured = Measured(spool)
    for case in progress.track(cases, "Measuring", len(cases)):
        try:
            held = _read(task, case, inputs)
        except VesaliusError as error:
            measured.aside.append((case.id, error.what))
            progress.set_aside(case.id, error.what, error.remedy)
            continue
        answers = {}
        for arm, model in arms.items():
            answers[arm], scores = _answer(task, arm, model, held, inputs)
            measured.scores += scores
            if answers[arm].status != "ok":
                measured.unanswered.append((case.id, arm, answers[arm].status))
                progress.set_aside(case.id, f"No answer of the {arm}: {answers[arm].status}", "")
        measured.keep(case, answers)
        measured.cases.append(case)
    _check(measured)
    return measured


def pictures_of(task: Task, measured: Measured, inputs: Sequence[str]) -> list[Picture]:
    """The worst cases of the model by the task's own order, worst first, then the middle and the best one."""
    values = task.rank(measured.scores)
    order = sorted((case for case in measured.cases if case.id in values), key=lambda c: (values[c.id], c.id))
    shown = list(range(min(WORST_SHOWN, len(order))))
    if len(order) // 2 >= WORST_SHOWN:
        shown.append(len(order) // 2)
    if len(order) - 1 > max(shown, default=len(order)):
        shown.append(len(order) - 1)
    pictures = task.overview(measured.cases, measured.scores)
    for place in shown:
        held = _read(task, order[place], inputs)
        best = "The best case" if place == len(order) - 1 else "The middle case"
        rank = best if place >= WORST_SHOWN else f"Rank {place + 1} of {len(order)}"
        for picture in task.pictures(held, measured.answers(order[place]), measured.scores):
            pictures.append(replace(picture, caption=f"{rank}. {picture.caption}"))
    return pictures


def _read(task: Task, case: Case, inputs: Sequence[str]) -> Case:
    """The case with its images and masks in memory.

    Raises:
        UnusableInput: it lacks an input or its truth.
    """
    asked = replace(case, images=inputs_of(case, inputs))
    if not task.usable(asked):
        raise UnusableInput("The case has no truth.", remedy="Add it with vesalius label.")
    images = tuple(_hold(image) for image in asked.images)
    label = case.label_image
    held = None if label is None else _hold(label)
    return replace(asked, images=images, findings=tuple(_with_held(finding, held) for finding in case.findings))


def _hold(image: Image) -> Image:
    return replace(image, pixels=_Held(image.read()))


def _with_held(finding: Finding, image: Image | None) -> Finding:
    if image is None or not isinstance(finding.place, Mask):
        return finding
    return replace(finding, place=Mask(image, finding.place.value))


def _answer(task: Task, arm: str, model: Model, case: Case, inputs: Sequence[str]) -> tuple[Prediction, list[Score]]:
    """One arm's answer with its scores; an empty answer with the reason in `status` where it gave none."""
    try:
        prediction = model.predict(inputs_of(case, inputs))
        return prediction, task.score(arm, case, prediction)
    except VesaliusError as error:
        reason = error.what
    except Exception as error:  # a model of a user's own may raise anything; the reason is reported
        reason = f"{type(error).__name__} in its own code."
    empty = Prediction(status=reason)
    return empty, task.score(arm, case, empty)


def _check(measured: Measured) -> None:
    """Refuse to report on nothing."""
    if not measured.cases:
        reason = measured.aside[0][1] if measured.aside else "There are no cases."
        raise UsageError(f"No case could be measured. {reason}", remedy="See the reasons above.")
    silent = [reason for _, arm, reason in measured.unanswered if arm == MODEL]
    if len(silent) == len(measured.cases):
        raise UsageError(f"The model answered none of the cases. {silent[0]}", remedy="See the reasons above.")
