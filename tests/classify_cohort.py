"""Small synthetic cohorts whose classes a network tells apart in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from learning_cohort import Held
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind


def shape_image(
    number: int, kind: int, size: tuple[int, int, int] = (24, 20, 1), channels: int = 1, blank: bool = False
) -> Image:
    """A bright ball (kind 1) or a ring (kind 0) somewhere in noise."""
    rng = np.random.default_rng(number)
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
    offset = rng.uniform(-2, 2, 3)
    distance = np.sqrt(sum((a - o * (n > 1)) ** 2 for a, o, n in zip(axes, offset, size, strict=True)))
    inside = distance < 5 if kind else (distance < 6) & (distance > 3.5)
    array: Any = (60 + 90 * inside + rng.normal(0, 15, (channels, *size))).clip(0, 255).astype(np.uint8)
    if blank:
        array[:] = 7
    grid = Grid.from_parts(size, placed=False, unit="pixel")
    return Image(f"image{number:03d}", grid, "image", Kind.INTENSITY, "", channels, Held(array))


def shape_cohort(
    folder: Path,
    number: int = 24,
    *,
    classes: int = 2,
    size: tuple[int, int, int] = (24, 20, 1),
    channels: int = 1,
    blank: bool = False,
    views: int = 1,
) -> Cohort:
    """Cases with the covariate `kind`, as many patients, some views each."""
    cases = []
    for n in range(number):
        images = tuple(shape_image(1000 * view + n, n % classes, size, channels, blank) for view in range(views))
        cases.append(Case(f"case{n:03d}", f"patient{n:03d}", images, covariates={"kind": float(n % classes)}))
    folder.mkdir(parents=True, exist_ok=True)
    return Cohort("shapes", folder, tuple(cases), digest=f"shapes{number}{classes}{size}{channels}{blank}{views}")
