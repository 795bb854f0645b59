"""The rival that a learned model is held against: the best of the hand-designed ones on this cohort.

Each candidate is fitted without a few training patients and judged on them; the best is fitted again on all
of them. Test patients play no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vesalius.classical.cases import case_images
from vesalius.classical.kept import FittedRival, Kept
from vesalius.classical.multi_atlas import MultiAtlas
from vesalius.classical.storage import load_rival, rival_folder, save_rival
from vesalius.classical.tissue import ANYWHERE, TissueMixture
from vesalius.classical.voxelwise import VoxelRegression
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction
from vesalius.measures.overlap import overlap

__all__ = ["BestRival", "RivalModel", "best_rival", "load_rival", "rival_folder", "save_rival"]

_LARGE = 200_000  # voxels of an image from which fewer patients are held back, to spare time


class Candidate(Protocol):
    """A hand-designed algorithm before fitting."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def fit(self, cases: Sequence[Case], cohort: Cohort, inputs: Sequence[str]) -> FittedRival:
        """Prepare on training cases.

        Raises:
            UnusableInput: the algorithm does not apply to these cases.
        """
        ...


def candidates(seed: int, flat: bool) -> tuple[Candidate, ...]:
    """What is tried, the most trusted first.

    Args:
        seed: given to each.
        flat: the images are planes.
    """
    tissue = [TissueMixture(seed, spatial=True)]
    if flat:
        tissue.append(TissueMixture(seed, spatial=False, settings=ANYWHERE))
    return (MultiAtlas(seed), *tissue, VoxelRegression(seed))


@dataclass(frozen=True)
class BestRival:
    """The hand-designed rival of segmentation.

    Args:
        seed: draws the patients held back, and is given to the candidates.
    """

    seed: int = 0
    name: str = "hand-designed rival"

    def fit(self, cases: Sequence[Case], cohort: Cohort, inputs: Sequence[str]) -> RivalModel:
        """Judge the candidates on a few training patients held back, then fit the best on all.

        Args:
            cases: the training part.
            cohort: says what the labels mean and which value is to be ignored.
            inputs: roles of the images, in order.

        Raises:
            UnusableInput: no candidate applies.
        """
        known = [case for case in cases if case.label_image is not None]
        flat = bool(known) and 1 in known[0].images[0].grid.shape
        tried = candidates(self.seed, flat)
        held, rest = _held_back(known, self.seed)
        trials = [_trial(candidate, rest, held, cohort, inputs) for candidate in tried]
        order = sorted(range(len(tried)), key=lambda number: -trials[number].dice)
        for number in order:
            try:
                model = tried[number].fit(known, cohort, inputs)
            except UnusableInput as error:
                trials[number] = Trial(tried[number].name, -1.0, error.what)
                continue
            return RivalModel(model, trials, len(held), tried[number].name)
        reasons = " ".join(f"{trial.name}: {trial.reason}" for trial in trials)
        raise UnusableInput(f"No hand-designed rival applies. {reasons}")


@dataclass(frozen=True)
class Trial:
    """How a candidate did on the patients held back: mean Dice over classes and cases; -1 if it does not apply."""

    name: str
    dice: float
    reason: str = ""


def _held_back(cases: Sequence[Case], seed: int) -> tuple[list[Case], list[Case]]:
    """Cases of a few patients to judge on, and the others; none held back where there are too few."""
    patients = sorted({case.patient for case in cases})
    large = bool(cases) and np.prod(cases[0].images[0].grid.shape) > _LARGE
    count = min(3 if large else 6, len(patients) // 3)
    drawn = np.random.default_rng(seed).permutation(len(patients))[:count]
    chosen = {patients[int(number)] for number in drawn}
    held: dict[str, Case] = {}
    for case in sorted(cases, key=lambda case: case.id):
        if case.patient in chosen:
            held.setdefault(case.patient, case)
    return list(held.values()), [case for case in cases if case.patient not in chosen]


def _trial(
    candidate: Candidate, rest: Sequence[Case], held: Sequence[Case], cohort: Cohort, inputs: Sequence[str]
) -> Trial:
    if not held:
        return Trial(candidate.name, 0.0, "too few patients to hold any back")
    try:
        model = candidate.fit(rest, cohort, inputs)
    except UnusableInput as error:
        return Trial(candidate.name, -1.0, error.what)
    scores = [score for case in held for score in _dice(model, case, cohort, inputs)]
    return Trial(candidate.name, float(np.mean(scores)))


def _dice(model: FittedRival, case: Case, cohort: Cohort, inputs: Sequence[str]) -> list[float]:
    """Dice of every class; a case that cannot be answered counts as left empty."""
    label = case.label_image
    assert label is not None
    truth = label.read()
    try:
        found = model.predict(case_images(case, inputs)).label_map
    except UnusableInput:
        found = None
    if found is None:
        found = np.zeros(truth.shape, np.uint8)
    counted = np.ones(truth.shape, bool) if cohort.ignore is None else truth != cohort.ignore
    return [overlap(counted & (truth == item.value), counted & (found == item.value)).dice for item in cohort.labels]


class RivalModel:
    """The candidate that was kept, with how the choice was made in its card."""

    def __init__(self, model: FittedRival, trials: Sequence[Trial], held: int, chosen: str) -> None:
        self.model = model
        self.card: Mapping[str, Any] = {
            **model.card,
            "choice": {
                "held_back": held,
                "dice": {trial.name: round(trial.dice, 4) for trial in trials if trial.dice >= 0 and held},
                "left_out": {trial.name: trial.reason for trial in trials if trial.dice < 0},
            },
            "sentences": [*model.card["sentences"], _why(trials, held, chosen)],
        }

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Answer for one case.

        Raises:
            UnusableInput: as the candidate that was kept.
        """
        return self.model.predict(images)

    def keep(self) -> Kept:
        """Everything that `kept.save_rival` writes."""
        kept = self.model.keep()
        return Kept(kept.kind, {**kept.values, "card": self.card}, kept.files)


def _why(trials: Sequence[Trial], held: int, chosen: str) -> str:
    """The choice in a sentence."""
    if not held:
        return f"{_capital(chosen)} was taken untried: there were too few training patients to hold any back."
    figures = ", ".join(f"{trial.name} {trial.dice:.3f}" for trial in trials if trial.dice >= 0)
    return (
        f"{_capital(chosen)} was chosen by mean Dice on {held} training patients held back ({figures}), "
        "then fitted on all training patients."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def best_rival(cohort: Cohort, seed: int = 0) -> BestRival:
    """The rival of segmentation; which algorithm it is on this cohort is settled by `BestRival.fit`."""
    return BestRival(seed)
