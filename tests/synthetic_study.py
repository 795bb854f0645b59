"""A cohort of invented heads with two structures in each, and models that outline them more or less well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort, Label, Split
from vesalius.core.finding import Finding, Mask
from vesalius.core.grid import Array, Grid
from vesalius.core.identity import seen_hash
from vesalius.core.image import Image, Kind
from vesalius.core.protocols import Prediction

LABELS = (Label(1, "front"), Label(2, "back"))
GRID = Grid.from_parts((36, 44, 30), spacing=(1.0, 1.0, 1.2))


@dataclass(frozen=True)
class Held:
    array: Array

    def read(self) -> Array:
        return self.array


def truth_of(number: int, grid: Grid = GRID) -> Array:
    """Two touching ellipsoids, a bit different in every patient."""
    random = np.random.default_rng(number)
    at = np.stack(np.meshgrid(*(np.arange(size) for size in grid.shape), indexing="ij"), axis=-1) * grid.spacing
    middle = np.multiply(grid.shape, grid.spacing) / 2 + random.uniform(-2, 2, 3)
    size = random.uniform(0.8, 1.2)
    found = np.zeros(grid.shape, np.uint8)
    for value, shift, radii in ((1, -7.0, (7, 9, 6)), (2, 7.0, (5, 10, 5))):
        off = (at - middle - (0, shift * size, 0)) / np.multiply(radii, size)
        found[((off**2).sum(axis=-1) <= 1) & (found == 0)] = value
    return found


def image_of(truth: Array, number: int) -> Array:
    random = np.random.default_rng(1000 + number)
    signal = 300.0 + 180.0 * (truth == 1) + 240.0 * (truth == 2) + random.normal(0, 25, truth.shape)
    return ndimage.gaussian_filter(signal, 0.8)[np.newaxis].astype(np.float32)


def make_case(number: int, truth: Array | None = None, grid: Grid = GRID, patient: str = "") -> Case:
    truth = truth_of(number, grid) if truth is None else truth
    image = Image(f"img{number}", grid, "T1", Kind.INTENSITY, "MR", 1, Held(image_of(truth, number)))
    label = Image(f"lab{number}", grid, "T1", Kind.LABEL, "MR", 1, Held(truth))
    findings = tuple(Finding(entry.name, place=Mask(label, entry.value)) for entry in LABELS)
    return Case(f"case{number:03d}", patient or f"patient{number:03d}", (image,), findings)


def make_cohort(folder: Path, cases: Sequence[Case], test: int = 0, **more: Any) -> Cohort:
    """The last `test` cases are the test part; no split at all where it is 0."""
    parts = {case.patient: "train" for case in cases} | {case.patient: "test" for case in cases[len(cases) - test :]}
    split = (
        Split(parts, {}, more.pop("given", False), "Drawn for a test.", more.pop("duplicates", ())) if test else None
    )
    return Cohort("spheres", folder, tuple(cases), split, LABELS, digest="d1", **more)


@dataclass
class Outliner:
    """Outlines by moving the truth, which it knows: `shift` voxels along j, `grown` voxels outwards."""

    truths: Mapping[str, Array]
    shift: float = 0.0
    grown: int = 0
    name: str = "outliner"
    fails: frozenset[str] = frozenset()
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes = [{"value": label.value, "name": label.name, "code": None} for label in LABELS]
        self.card = {"name": self.name, "classes": classes, "inputs": ["T1"]} | self.card

    def predict(self, images: Sequence[Image]) -> Prediction:
        if images[0].id in self.fails:
            raise RuntimeError("a secret path")
        truth = self.truths[images[0].id]
        random = np.random.default_rng(len(self.name) + int(images[0].id[3:]))
        moved = ndimage.shift(truth, (random.normal(0, 0.4), self.shift * random.uniform(0, 2), 0), order=0)
        if self.grown:
            moved = np.where(moved > 0, moved, ndimage.grey_dilation(moved, size=2 * self.grown + 1))
        return Prediction(label_map=moved.astype(np.uint8))


def outliner(cases: Sequence[Case], **settings: Any) -> Outliner:
    return Outliner({case.images[0].id: case.label_image.read() for case in cases if case.label_image}, **settings)


def seen(cases: Sequence[Case]) -> list[str]:
    return sorted(seen_hash(case.patient) for case in cases)
