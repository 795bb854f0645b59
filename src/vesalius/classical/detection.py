"""The hand-designed rival of detection: blob, convergence and point filters, and boosted trees that judge them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vesalius.classical.cases import chosen_images
from vesalius.classical.detection_model import FilterModel, Proposed, proposed_in
from vesalius.classical.grading import MIX_NAMES, Grader, fit_grader
from vesalius.classical.lesions.field import radii_of, read_field
from vesalius.classical.table import Scale
from vesalius.classical.trees import BoostSettings, Trees, boosted_classes, boosted_number
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.finding import Box
from vesalius.core.grid import Array, FloatArray
from vesalius.core.identity import seen_hash
from vesalius.core.image import Image
from vesalius.core.progress import Progress, Silent
from vesalius.core.protocols import RESEARCH_ONLY
from vesalius.measures.target import Target, most_marks

_TOLD = 10  # most important features that the card names
_LEAST_RADIUS = 2.5  # pixels of the field that the smallest lesions should have
_LEAST_SHARE = 0.01  # of the image's longest edge that a lesion's half axis counts as at least
_ALIKE = 3.0  # factor by which a candidate's radius may differ from its lesion's
_ARGUABLE = 1.3  # half axes from a lesion's centre within which a candidate is not taken for false
_LOOKED_AT = 60  # lesion images from which it is told whether lesions are dark
_LEAST_HITS = 40  # hits from which sizes are learned
_TIMED_AT = (3, 10, 30)  # images after which the time that all will take is estimated
_FIRST = BoostSettings(trees=80, rate=0.1, depth=2, leaf=10)
_FINAL = BoostSettings(trees=200, rate=0.05, depth=3, leaf=10)


@dataclass(frozen=True)
class DetectionSettings:
    """How lesions are looked for.

    Args:
        side: pixels of a plane's longer edge at most; volumes get `volume_side`.
        volume_side: voxels of a volume's longest edge at most.
        radii: how many radii are looked for, spread over those of the training lesions.
        hard: false candidates per image that the judge learns from, the ones most like lesions.
        easy: other false candidates per image that it learns from.
        most: candidates kept per image and class, where no training image has many lesions.
        overlap: share of the radii that two candidates kept may come near.
    """

    side: int = 320
    volume_side: int = 96
    radii: int = 7
    hard: int = 25
    easy: int = 15
    most: int = 10
    overlap: float = 0.8


def detection_rival(cohort: Cohort, target: Target, seed: int = 0) -> FilterRival:
    """The rival of a detection.

    Args:
        cohort: what is asked of; its training part is given to `FilterRival.fit`.
        target: of kind "places".
        seed: of folds, draws and trees.
    """
    return FilterRival(target, seed)


@dataclass(frozen=True, eq=False)
class Examined:
    """One training image: its candidates, and what each is.

    Args:
        patient: whose image it is.
        proposed: its candidates.
        labels: (n,) class number from 1, 0 for none, -1 where that is arguable.
        sizes: (n, d) half widths of the lesion that each candidate hits over the candidate's radius, logarithms.
        lesions: how many there are.
    """

    patient: str
    proposed: Proposed
    labels: Array
    sizes: FloatArray
    lesions: int


@dataclass(frozen=True)
class Examination:
    """The filters' answers on training images, from which several models can be learned.

    Args:
        plan: how images are looked at.
        images: those that could be used.
    """

    plan: Mapping[str, Any]
    images: tuple[Examined, ...]


@dataclass(frozen=True)
class FilterRival:
    """Filters propose, boosted trees and logistic regression judge."""

    target: Target
    seed: int = 0
    settings: DetectionSettings = DetectionSettings()
    name: str = "hand-designed lesion filters"

    def fit(self, cases: Sequence[Case], cohort: Cohort, inputs: Sequence[str]) -> FilterModel:
        """Learn from training cases which answers of the filters are lesions.

        Args:
            cases: the training part.
            cohort: that they belong to.
            inputs: roles of the images; none for every image of a case.

        Raises:
            UnusableInput: no training image was looked over, or no lesion is known in any.
        """
        examination = self.examine(cases, inputs)
        assert examination is not None  # no limit of time was given
        return self.learned(examination, cohort, inputs)

    def examine(
        self, cases: Sequence[Case], inputs: Sequence[str], seconds: float = math.inf, progress: Progress | None = None
    ) -> Examination | None:
        """Look at training images with every filter: what takes the time of a fit.

        Args:
            cases, inputs: as for `fit`.
            seconds: after a few images it is given up if it would take longer.
            progress: shows how far it is.

        Returns:
            None where it was given up.

        Raises:
            UnusableInput: no training image was looked over, or no lesion is known in any.
        """
        images = _looked_over(self.target, cases, inputs)
        plan = _planned(images, self.settings)
        began, found = time.monotonic(), []
        shown = (progress or Silent()).track(images, "asking hand-designed filters", total=len(images))
        for number, (image, patient, places) in enumerate(shown):
            if number in _TIMED_AT and (time.monotonic() - began) / number * len(images) > seconds:
                return None
            try:
                found.append(_examined(image, patient, places, plan))
            except UnusableInput:
                continue  # the store has said so already
        return Examination(plan, tuple(found))

    def learned(
        self, examination: Examination, cohort: Cohort, inputs: Sequence[str], without: Set[str] = frozenset()
    ) -> FilterModel:
        """Learn which of the filters' answers are lesions.

        Args:
            examination: of training images.
            cohort, inputs: as for `fit`.
            without: patients that are not learned from.

        Raises:
            UnusableInput: no candidate hits a lesion, or none misses.
        """
        images = [item for item in examination.images if item.patient not in without]
        if not any((item.labels > 0).any() for item in images):
            raise UnusableInput("No candidate of the filters hits a lesion of the training cases.")
        grader, losses = _judge(images, len(self.target.classes), self.settings, self.seed)
        card = _card(self, cohort, inputs, images, grader, losses, examination.plan)
        return FilterModel(card, grader, _sizers(images, self.seed))


_Looked = tuple[Image, str, list[tuple[int, Box]]]


def _looked_over(target: Target, cases: Sequence[Case], inputs: Sequence[str]) -> list[_Looked]:
    """Every training image that was looked over, whose it is, and the lesions in it.

    Raises:
        UnusableInput: there is none, or there is no lesion.
    """
    found: list[_Looked] = []
    for case in cases:
        places = target.places(case)
        found += [
            (image, case.patient, places[image.id]) for image in chosen_images(case, inputs) if image.id in places
        ]
    if not any(places for _, _, places in found):
        raise UnusableInput("Detection needs training cases in which lesions are marked.")
    return found


def _planned(images: Sequence[_Looked], settings: DetectionSettings) -> dict[str, Any]:
    """What the training lesions ask of the filters: radii as shares of the longest edge, size, brightness."""
    shares, flat = [], True
    for image, _, places in images:
        shape = np.array(image.grid.shape)
        extent = float((shape * np.array(image.grid.spacing)).max())
        flat &= bool((shape == 1).any())
        for _, box in places:
            kept = (np.array(box.size) * np.array(image.grid.spacing))[shape > 1]
            shares.append(float(kept.mean()) / 2 / extent if len(kept) else 0.5)
    low, high = np.percentile(shares, (5, 95))
    side = settings.side if flat else settings.volume_side
    # Small lesions are given a finer field, so that the smallest radius is a few pixels.
    side = int(np.clip(_LEAST_RADIUS / max(low, 1e-6), side, 2 * side))
    radii = radii_of(max(0.8 * low, 1.5 / side), min(max(1.1 * high, 2.5 / side), 0.5), settings.radii)
    most = max(settings.most, most_marks(places for _, _, places in images))
    return {"side": side, "radii": list(radii), "dark": _is_dark(images, side), "most": most}


def _is_dark(images: Sequence[_Looked], side: int) -> bool:
    """Whether most lesions are darker than what is around them."""
    votes = []
    for image, _, places in [item for item in images if item[2]][:_LOOKED_AT]:
        field = read_field(image, side)
        for _, box in places:
            centre = field.from_index(np.array([box.centre]))[0]
            half = np.maximum(np.array(box.size)[list(field.axes)] / field.step / 2, 1.0)
            offset = np.indices(field.values.shape).T - centre
            distance = np.sqrt(((offset / half) ** 2).sum(axis=-1)).T
            core, ring = field.values[distance <= 0.8], field.values[(distance > 1.1) & (distance <= 1.8)]
            if core.size and ring.size:
                votes.append(float(np.median(core) - np.median(ring)))
    return bool(votes) and float(np.mean(np.array(votes) < 0)) > 0.5


def _examined(image: Image, patient: str, places: Sequence[tuple[int, Box]], plan: Mapping[str, Any]) -> Examined:
    """A training image's candidates; one is a hit where it lies in a lesion and is of its order of size."""
    field, proposed = proposed_in(image, plan)
    found = proposed.found
    labels = np.zeros(len(found.radii), np.int64)
    nearest = np.full(len(found.radii), np.inf)
    sizes = np.zeros(found.places.shape)
    least = _LEAST_SHARE * max(field.values.shape)
    for number, box in places:
        centre = field.from_index(np.array([box.centre]))[0]
        half = np.array(box.size)[list(field.axes)] / field.step / 2
        away = np.sqrt((((found.places - centre) / np.maximum(half, least)) ** 2).sum(axis=1))
        alike = np.abs(np.log(found.radii / max(float(half.mean()), least))) < np.log(_ALIKE)
        hit = (away <= 1) & alike & (away < nearest)
        labels[(away <= _ARGUABLE) & (labels == 0)] = -1
        labels[hit], nearest[hit] = number + 1, away[hit]
        sizes[hit] = np.log(np.maximum(half, 0.5) / found.radii[hit, None])
    return Examined(patient, proposed, labels, sizes, len(places))


def _judge(
    seen: Sequence[Examined], classes: int, settings: DetectionSettings, seed: int
) -> tuple[Grader, Mapping[str, float]]:
    """Learn first from false candidates drawn at random, then from those that the first judge falls for."""
    rng = np.random.default_rng(seed)
    drawn = [_some(item, rng, settings.easy) for item in seen]
    features, labels, patients = _gathered(seen, drawn)
    if len(set(np.minimum(labels, 1).tolist())) < 2:
        raise UnusableInput("The filters propose no false candidates, or none that is true, to learn from.")
    scale = Scale.of(features)
    first = boosted_classes(scale.apply(features), np.minimum(labels, 1), _FIRST, seed)
    chosen = []
    for item, some in zip(seen, drawn, strict=True):
        liking = first.scores(scale.apply(item.proposed.found.features))[:, 1]
        liking[item.labels != 0] = -np.inf
        hard = np.argsort(-liking, kind="stable")[: settings.hard]
        chosen.append(np.unique(np.concatenate([some, hard[np.isfinite(liking[hard])]])))
    features, labels, patients = _gathered(seen, chosen)
    grader, judged = fit_grader(features, labels, patients, classes + 1, seed, _FINAL)
    return grader, judged.losses


def _some(item: Examined, rng: np.random.Generator, easy: int) -> Array:
    """Every hit, and some other candidates drawn at random."""
    others = rng.permutation(np.flatnonzero(item.labels == 0))[:easy]
    return np.concatenate([np.flatnonzero(item.labels > 0), others])


def _gathered(seen: Sequence[Examined], chosen: Sequence[Array]) -> tuple[FloatArray, Array, list[str]]:
    features = np.concatenate([item.proposed.found.features[index] for item, index in zip(seen, chosen, strict=True)])
    labels = np.concatenate([item.labels[index] for item, index in zip(seen, chosen, strict=True)])
    return features, labels, [item.patient for item, index in zip(seen, chosen, strict=True) for _ in index]


def _sizers(seen: Sequence[Examined], seed: int) -> list[tuple[Trees | None, float]]:
    """For each axis, what tells a lesion's half width from its candidate's radius; a constant where hits are few."""
    hits = [(item.proposed.found.features[item.labels > 0], item.sizes[item.labels > 0]) for item in seen]
    features, sizes = (np.concatenate(part) for part in zip(*hits, strict=True))
    if len(sizes) < _LEAST_HITS:
        return [(None, float(np.median(column))) for column in sizes.T]
    return [boosted_number(features, column, _FIRST, seed) for column in sizes.T]


def _card(
    rival: FilterRival,
    cohort: Cohort,
    inputs: Sequence[str],
    seen: Sequence[Examined],
    grader: Grader,
    losses: Mapping[str, float],
    plan: Mapping[str, Any],
) -> dict[str, Any]:
    """What the rival is, what it learned from and what counted most."""
    names = seen[0].proposed.found.names
    weight = grader.importance()
    order = [int(number) for number in np.argsort(-weight)[:_TOLD] if weight[number] > 0]
    lesions = sum(item.lesions for item in seen)
    how = (
        f"{rival.name[0].upper()}{rival.name[1:]}: blob, top-hat, gradient convergence and point filters at "
        f"{len(plan['radii'])} radii propose candidates, {MIX_NAMES[grader.mix]} judges them; learned from {lesions} "
        f"lesions in {len(seen)} images of {len({item.patient for item in seen})} training patients."
    )
    return {
        "name": rival.name,
        "task": "detection",
        "how": how,
        "target": rival.target.name,
        "classes": [{"value": n, "name": item, "code": None} for n, item in enumerate(rival.target.classes, start=1)],
        "parameters": {**asdict(rival.settings), "most": plan["most"]},
        "plan": dict(plan),
        "seed": rival.seed,
        "inputs": list(inputs),
        "choice": {"log_loss": {name: round(loss, 4) for name, loss in losses.items()}},
        "importance": {names[number]: round(float(weight[number]), 4) for number in order},
        "cohort": {"digest": cohort.digest},
        "patients_seen": sorted({seen_hash(item.patient) for item in seen}),
        "research_only": RESEARCH_ONLY,
        "sentences": [how],
    }
