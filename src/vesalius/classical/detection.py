"""The hand-designed rival of detection: blob, convergence and point filters, and boosted trees that judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vesalius.classical.atlas import pack_arrays, unpack_arrays
from vesalius.classical.cases import chosen_images
from vesalius.classical.grading import MIX_NAMES, Grader, fit_grader
from vesalius.classical.kept import Kept
from vesalius.classical.lesions.candidates import Candidates, find_candidates
from vesalius.classical.lesions.field import Field, radii_of, read_field
from vesalius.classical.table import Scale
from vesalius.classical.trees import BoostSettings, Trees, boosted_classes, boosted_number
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.finding import Box, Finding
from vesalius.core.grid import Array, FloatArray
from vesalius.core.identity import seen_hash
from vesalius.core.image import Image, Kind
from vesalius.core.protocols import RESEARCH_ONLY, Prediction
from vesalius.measures.target import Target

_TOLD = 10  # most important features that the card names
_LEAST_RADIUS = 2.5  # pixels of the field that the smallest lesions should have
_LEAST_SHARE = 0.01  # of the image's longest edge that a lesion's half axis counts as at least
_ALIKE = 3.0  # factor by which a candidate's radius may differ from its lesion's
_ARGUABLE = 1.3  # half axes from a lesion's centre within which a candidate is not taken for false
_LOOKED_AT = 60  # lesion images from which it is told whether lesions are dark
_LEAST_HITS = 40  # hits from which sizes are learned
_LIMIT = float(np.log(3.0))  # of the logarithm of a lesion's size over its candidate's
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
        most: candidates kept per image and class.
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
class _Seen:
    """One training image: its candidates, and what each is.

    Args:
        patient: whose image it is.
        found: candidates.
        labels: (n,) class number from 1, 0 for none, -1 where that is arguable.
        sizes: (n, d) half widths of the lesion that each candidate hits over the candidate's radius, logarithms.
    """

    patient: str
    found: Candidates
    labels: Array
    sizes: FloatArray


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
        images = _looked_over(self.target, cases, inputs)
        plan = _planned(images, self.settings)
        seen = []
        for image, patient, places in images:
            try:
                seen.append(_examined(image, patient, places, plan))
            except UnusableInput:
                continue  # the store has said so already
        if not any((item.labels > 0).any() for item in seen):
            raise UnusableInput("No candidate of the filters hits a lesion of the training cases.")
        grader, losses = _judge(seen, len(self.target.classes), self.settings, self.seed)
        sizers = _sizers(seen, self.seed)
        card = _card(self, cohort, inputs, seen, images, grader, losses, plan)
        return FilterModel(card, grader, sizers)


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
    return {"side": side, "radii": list(radii), "dark": _is_dark(images, side)}


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


def _proposed(image: Image, plan: Mapping[str, Any]) -> tuple[Field, Candidates]:
    field = read_field(image, int(plan["side"]))
    radii = [max(1.0, share * max(field.values.shape)) for share in plan["radii"]]
    return field, find_candidates(field, radii, bool(plan["dark"]))


def _examined(image: Image, patient: str, places: Sequence[tuple[int, Box]], plan: Mapping[str, Any]) -> _Seen:
    """A training image's candidates; one is a hit where it lies in a lesion and is of its order of size."""
    field, found = _proposed(image, plan)
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
    return _Seen(patient, found, labels, sizes)


def _judge(
    seen: Sequence[_Seen], classes: int, settings: DetectionSettings, seed: int
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
        liking = first.scores(scale.apply(item.found.features))[:, 1]
        liking[item.labels != 0] = -np.inf
        hard = np.argsort(-liking, kind="stable")[: settings.hard]
        chosen.append(np.unique(np.concatenate([some, hard[np.isfinite(liking[hard])]])))
    features, labels, patients = _gathered(seen, chosen)
    grader, judged = fit_grader(features, labels, patients, classes + 1, seed, _FINAL)
    return grader, judged.losses


def _some(item: _Seen, rng: np.random.Generator, easy: int) -> Array:
    """Every hit, and some other candidates drawn at random."""
    others = rng.permutation(np.flatnonzero(item.labels == 0))[:easy]
    return np.concatenate([np.flatnonzero(item.labels > 0), others])


def _gathered(seen: Sequence[_Seen], chosen: Sequence[Array]) -> tuple[FloatArray, Array, list[str]]:
    features = np.concatenate([item.found.features[index] for item, index in zip(seen, chosen, strict=True)])
    labels = np.concatenate([item.labels[index] for item, index in zip(seen, chosen, strict=True)])
    return features, labels, [item.patient for item, index in zip(seen, chosen, strict=True) for _ in index]


def _sizers(seen: Sequence[_Seen], seed: int) -> list[tuple[Trees | None, float]]:
    """For each axis, what tells a lesion's half width from its candidate's radius; a constant where hits are few."""
    hits = [(item.found.features[item.labels > 0], item.sizes[item.labels > 0]) for item in seen]
    features, sizes = (np.concatenate(part) for part in zip(*hits, strict=True))
    if len(sizes) < _LEAST_HITS:
        return [(None, float(np.median(column))) for column in sizes.T]
    return [boosted_number(features, column, _FIRST, seed) for column in sizes.T]


class FilterModel:
    """A fitted rival of detection."""

    kind = "hand-designed-filters"

    def __init__(self, card: Mapping[str, Any], grader: Grader, sizers: Sequence[tuple[Trees | None, float]]) -> None:
        self.card = card
        self.grader = grader
        self.sizers = tuple(sizers)

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Boxes in each image's own index space, of every class, by falling score.

        Raises:
            UnusableInput: there is no image, or it has another number of dimensions than the training images.
        """
        chosen = [image for image in images if image.kind is Kind.INTENSITY]
        if not chosen:
            raise UnusableInput("The case has no image.", remedy="Ingest its images again.")
        findings = [finding for image in chosen for finding in self._found(image)]
        return Prediction(tuple(sorted(findings, key=lambda finding: -finding.score)))

    def _found(self, image: Image) -> list[Finding]:
        field, found = _proposed(image, self.card["plan"])
        if field.values.ndim != len(self.sizers):
            raise UnusableInput("The rival was fitted on images with another number of dimensions.")
        shares = self.grader.probabilities(found.features)
        ratio = np.stack([_estimated(sizer, found.features) for sizer in self.sizers], axis=1)
        half = np.exp(np.clip(ratio, -_LIMIT, _LIMIT)) * found.radii[:, None]
        centres = field.to_index(found.places)
        widths = np.ones((len(half), 3))
        widths[:, field.axes] = np.maximum(2 * half * field.step, 1.0)
        findings = []
        for number, entry in enumerate(self.card["classes"], start=1):
            for index in _apart(found.places, found.radii, shares[:, number], self.card["parameters"]):
                i, j, k = (float(value) for value in centres[index])
                width, height, depth = (float(value) for value in widths[index])
                box = Box(image.id, (i, j, k), (width, height, depth))
                findings.append(Finding(str(entry["name"]), float(shares[index, number]), box))
        return findings

    def keep(self) -> Kept:
        """Everything that `from_kept` needs."""
        files = {"grader": pack_arrays(self.grader.arrays())}
        for axis, (trees, _) in enumerate(self.sizers):
            if trees is not None:
                files[f"sizer-{axis}"] = pack_arrays(trees.arrays())
        return Kept(self.kind, {"card": self.card, "sizes": [middle for _, middle in self.sizers]}, files)

    @classmethod
    def from_kept(cls, kept: Kept) -> FilterModel:
        """The model that `keep` described; it answers exactly alike."""
        sizers = []
        for axis, middle in enumerate(kept.values["sizes"]):
            name = f"sizer-{axis}"
            trees = Trees.from_arrays(unpack_arrays(kept.files[name])) if name in kept.files else None
            sizers.append((trees, float(middle)))
        return cls(kept.values["card"], Grader.from_arrays(unpack_arrays(kept.files["grader"])), sizers)


def _estimated(sizer: tuple[Trees | None, float], features: FloatArray) -> FloatArray:
    trees, middle = sizer
    return np.full(len(features), middle) if trees is None else trees.scores(features)[:, 0] + middle


def _apart(places: FloatArray, radii: FloatArray, scores: FloatArray, settings: Mapping[str, Any]) -> list[int]:
    """Candidates by falling score, without those that come too near to a better one."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        away = [float(np.linalg.norm(places[index] - places[other])) for other in kept]
        near = [float(settings["overlap"]) * max(radii[index], radii[other]) for other in kept]
        if all(a > n for a, n in zip(away, near, strict=True)):
            kept.append(int(index))
            if len(kept) == settings["most"]:
                break
    return kept


def _card(
    rival: FilterRival,
    cohort: Cohort,
    inputs: Sequence[str],
    seen: Sequence[_Seen],
    images: Sequence[_Looked],
    grader: Grader,
    losses: Mapping[str, float],
    plan: Mapping[str, Any],
) -> dict[str, Any]:
    """What the rival is, what it learned from and what counted most."""
    names = seen[0].found.names
    weight = grader.importance()
    order = [int(number) for number in np.argsort(-weight)[:_TOLD] if weight[number] > 0]
    lesions = sum(len(places) for _, _, places in images)
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
        "parameters": asdict(rival.settings),
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
