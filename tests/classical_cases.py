"""Synthetic patients for the rivals' tests: deformed ellipsoids, and tissue with noise and shading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort, Label
from vesalius.core.finding import Finding, Mask
from vesalius.core.grid import Grid, reorient
from vesalius.core.image import Image, Kind

NAMES = ("one", "two", "three")


@dataclass(frozen=True)
class Held:
    array: np.ndarray

    def read(self) -> np.ndarray:
        return self.array


def case(number: int, image: np.ndarray, label: np.ndarray, grid: Grid) -> Case:
    """A case from an intensity array (i, j, k) and its label map."""
    truth = Image(f"l{number}", grid, "label", Kind.LABEL, "", 1, Held(label.astype(np.int32)))
    picture = Image(f"i{number}", grid, "image", Kind.INTENSITY, "MR", 1, Held(image.astype(np.float32)[None]))
    values = [int(value) for value in np.unique(label) if value > 0]
    findings = tuple(Finding(NAMES[(value - 1) % 3], place=Mask(truth, value)) for value in values)
    return Case(f"c{number:02d}", f"p{number:02d}", (picture,), findings)


def cohort(cases: list[Case], classes: int, folder: Path = Path("nowhere"), ignore: int | None = None) -> Cohort:
    labels = tuple(Label(value, NAMES[value - 1]) for value in range(1, classes + 1))
    return Cohort("made", folder, tuple(cases), labels=labels, ignore=ignore)


def anatomy(number: int, shape=(22, 26, 18), spacing=(1.0, 1.0, 1.2)) -> Case:
    """A body with two touching structures that are told apart by place, not by brightness; each patient's differs."""
    rng = np.random.default_rng(100 + number)
    axes = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    flat = [size == 1 for size in shape]
    bends = [ndimage.gaussian_filter(rng.standard_normal(shape), 6.0) for _ in range(3)]
    x, y, z = (axis + 0.08 * bend / bend.std() for axis, bend in zip(axes, bends, strict=True))
    x, y = x + rng.uniform(-0.08, 0.08), y + rng.uniform(-0.08, 0.08)
    z = np.zeros_like(z) if shape[2] == 1 else z
    label = np.zeros(shape, np.uint8)
    inside = (x / 0.45) ** 2 + (y / 0.7) ** 2 + (z / 0.5) ** 2 < 1
    label[inside & (y < 0)], label[inside & (y >= 0)] = 1, 2
    other = ((x - 0.6) / 0.3) ** 2 + (y / 0.5) ** 2 + (z / 0.8) ** 2 < 1
    image = 100.0 + 80 * inside + 140 * (other & ~inside) - 30 * ((x + 0.7) ** 2 + y**2 < 0.08)
    image = ndimage.gaussian_filter(image, [0 if still else 0.7 for still in flat]) + rng.normal(0, 6, shape)
    return case(number, image, label, Grid.from_parts(shape, spacing=spacing))


def tissue(number: int, noise: float = 0.25, shading: float = 0.0, shape=(24, 26, 20)) -> Case:
    """Two tissues in a dark surround: a bright core of random outline in a grey ball."""
    rng = np.random.default_rng(200 + number)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    if shape[2] == 1:
        z = np.zeros_like(x)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), [3, 3, 0 if shape[2] == 1 else 3])
    texture /= texture.std()
    radius = np.sqrt(x**2 + y**2 + z**2) + 0.04 * texture
    label = np.where(radius < 0.5, 2, np.where(radius < 0.85, 1, 0)).astype(np.uint8)
    image = np.choose(label, [0.1, 1.0, 1.8])
    image = image * np.exp(shading * (x + 0.5 * y)) + rng.normal(0, noise, shape)
    return case(number, 100 * image, label, Grid.from_parts(shape))


def turned(source: Case, order=(2, 0, 1), flips=(True, False, True), tilt: float = 0.2) -> Case:
    """The same patient with the array's axes reordered and flipped and the table tilted, truth along."""
    grid = source.images[0].grid
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    columns, origin = [], grid.affine[:3, 3].copy()
    for axis, flip in zip(order, flips, strict=True):
        column = grid.affine[:3, axis]
        if flip:
            origin = origin + column * (grid.shape[axis] - 1)
            column = -column
        columns.append(column)
    affine[:3, :3] = turn @ np.stack(columns, axis=1)
    affine[:3, 3] = turn @ origin + (5.0, -3.0, 2.0)
    image = reorient(source.images[0].read()[0], order, flips)
    label = reorient(source.label_image.read(), order, flips)
    shape = tuple(grid.shape[axis] for axis in order)
    return case(90, image, label, Grid(shape, affine))


def dice(found: np.ndarray, source: Case, classes: int) -> np.ndarray:
    truth = source.label_image.read()
    assert found.shape == truth.shape
    pairs = [(found == value, truth == value) for value in range(1, classes + 1)]
    return np.array([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])
