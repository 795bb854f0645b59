"""Pixels on a grid, read only when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vesalius.core.grid import Array, Grid


class Kind(StrEnum):
    """What the numbers mean, which decides how they may be interpolated."""

    INTENSITY = "intensity"
    LABEL = "label"


class Pixels(Protocol):
    """Something that can produce an image's array; reading may touch the disk, holding it does not."""

    def read(self) -> Array:
        """The whole array: (channels, i, j, k) for intensity, (i, j, k) for labels."""
        ...


@dataclass(frozen=True)
class Image:
    """Lazy pixels on a grid.

    Args:
        id: pseudonymous name, unique in its cohort.
        grid: where the voxels stand.
        role: what the image is for the study: "T1", "FLAIR", "MLO-L", or "image" where nothing says.
        kind: intensity or label.
        modality: DICOM modality (MR, CT, MG, US, ...), "" where unknown.
        channels: 1 for grey, 3 for colour.
        pixels: reads the array, in the grid's own index order. Intensities are in the source's real-world
            unit (rescale applied: Hounsfield units for CT).
    """

    id: str
    grid: Grid
    role: str
    kind: Kind
    modality: str
    channels: int
    pixels: Pixels

    def read(self) -> Array:
        """(channels, i, j, k) for intensity, (i, j, k) for labels."""
        return self.pixels.read()
