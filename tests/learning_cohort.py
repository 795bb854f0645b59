"""Small synthetic cohorts that a network learns in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort, Label
from vesalius.core.finding import Finding, Mask
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind

LABELS = (Label(1, "core"), Label(2, "shell"))


@dataclass(frozen=True)
class Held:
    """Pixels in memory."""

    array: Any

    def read(self) -> Any:
        return self.array


def small_case(
    number: int, size: tuple[int, int, int], channels: int = 1, spacing: float = 1.0, ignore: int | None = None
) -> Case:
    """A bright ball in a grey shell in noise; its centre and radius differ from case to case."""
    rng = np.random.default_rng(number)
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij")
    offset = rng.uniform(-1.5, 1.5, 3)
    distance = np.sqrt(sum((axis - o * (n > 1)) ** 2 for axis, o, n in zip(axes, offset, size, strict=True)))
    radius = rng.uniform(2.5, 3.5)
    label = np.where(distance < radius, 1, np.where(distance < radius + 2.5, 2, 0)).astype(np.uint8)
    brightness = np.array([100.0, 300.0, 200.0])[label]
    image = (brightness + rng.normal(0, 10, (channels, *size))).astype(np.float32)
    if ignore is not None:
        label[: size[0] // 4] = ignore
    grid = Grid.from_parts(size, spacing=(spacing,) * 3)
    name = f"case{number:02d}"
    pixels = Image(name, grid, "T1", Kind.INTENSITY, "MR", channels, Held(image))
    truth = Image(f"{name}-label", grid, "T1", Kind.LABEL, "", 1, Held(label))
    return Case(
        name, f"patient{number:02d}", (pixels,), tuple(Finding(x.name, place=Mask(truth, x.value)) for x in LABELS)
    )


def small_cohort(
    folder: Path,
    number: int = 8,
    size: tuple[int, int, int] = (16, 18, 20),
    channels: int = 1,
    ignore: int | None = None,
) -> Cohort:
    """A cohort of such cases."""
    cases = tuple(small_case(n, size, channels, ignore=ignore) for n in range(number))
    return Cohort("small", folder, cases, labels=LABELS, ignore=ignore, digest=f"{number}-{size}-{ignore}")
