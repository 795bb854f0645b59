"""A whole image brought to a network's fixed size, and what is found there taken back to the image's grid.

The image keeps its proportions: it is scaled until it fits into the frame and stands in its middle, on zeros
(the mean of the normalised range). Training and the bedside call the same functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.grid import Array, Grid, reorient, restore
from vesalius.core.image import Image
from vesalius.imaging.marks import hide_marks
from vesalius.imaging.prepare import KINDS, Normalisation, normalise
from vesalius.imaging.resample import Float32, apply_taps, axis_taps, resample

Triple = tuple[int, int, int]

MAP_VALUES = 1 << 26  # a map on the image's grid with more values than this is not made (128 MB in float16)


@dataclass(frozen=True)
class WholePreparation:
    """What happens to each image before the network: part of the card.

    Args:
        inputs: roles of the images that are pooled; empty: every image of a case.
        size: (i, j, k) of the frame in voxels, canonical axes; k = 1 for planes.
        voxel: proportions of the frame's voxels, such as (1, 1, 2) for thick slices.
        channels: 1 for grey (colours are averaged), 3 for colour (grey is repeated).
        normalisation: of each image, after it was scaled.
        hide_marks: whether what a device burned into planes is hidden first (`imaging.marks`).
    """

    inputs: tuple[str, ...]
    size: Triple
    voxel: tuple[float, float, float]
    channels: int
    normalisation: Normalisation
    hide_marks: bool = False

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs to make this again."""
        return {
            "inputs": list(self.inputs), "size": list(self.size), "voxel": list(self.voxel),
            "channels": self.channels, "normalisation": [vars(self.normalisation).copy()],
            **({"hide_marks": True} if self.hide_marks else {}),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WholePreparation:
        """The preparation that `as_json` described.

        Raises:
            BundleError: a key is missing or a value makes no sense.
        """
        remedy = "Fit or fetch the model again."
        try:
            i, j, k = (int(value) for value in data["size"])
            a, b, c = (float(value) for value in data["voxel"])
            recipe = Normalisation(**data["normalisation"][0])
            result = cls(tuple(data["inputs"]), (i, j, k), (a, b, c), int(data["channels"]), recipe,
                         data.get("hide_marks", False) is True)  # fmt: skip
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BundleError("The card's preparation cannot be read.", remedy=remedy) from error
        sound = min(result.size) >= 1 and min(result.voxel) > 0 and recipe.kind in KINDS and recipe.std > 0
        if not (sound and result.channels in (1, 3)):
            raise BundleError("The card's preparation contradicts itself.", remedy=remedy)
        return result


def content_size(source: Grid, preparation: WholePreparation) -> Triple:
    """Voxels (i, j, k) that an image on `source` takes of the frame.

    Raises:
        UnusableInput: a volume where the model takes planes, or the reverse.
    """
    canonical = source.canonical()[0]
    if (canonical.shape[2] == 1) != (preparation.size[2] == 1):
        takes, got = ("planes", "volume") if preparation.size[2] == 1 else ("volumes", "plane")
        raise UnusableInput(f"The model takes {takes}, and this is a {got}.", remedy="Give images like those of fit.")
    used = range(3) if preparation.size[2] > 1 else range(2)
    extent = np.array(canonical.shape) * np.array(canonical.spacing)
    room = np.array(preparation.size) * np.array(preparation.voxel)
    scale = max(extent[axis] / room[axis] for axis in used)
    wanted = np.rint(extent / (scale * np.array(preparation.voxel)))
    i, j, k = (int(np.clip(n, 1, most)) for n, most in zip(wanted, preparation.size, strict=True))
    return i, j, k


def prepare_whole(image: Image, preparation: WholePreparation) -> Float32:
    """Read, turn, scale and normalise one image: (channels, i, j, k) float32 of the frame's size.

    Memory beyond the image's own pixels is a few MB where it shrinks.

    Raises:
        UnusableInput: it holds no contrast or no finite number, or is a volume where planes are asked for.
    """
    canonical, order, flips = image.grid.canonical()
    content = content_size(image.grid, preparation)
    array = image.read()
    if array.shape[-3:] != image.grid.shape or array.ndim not in (3, 4):
        raise UnusableInput("The pixels do not fill the image's grid.", remedy="Export it again.")
    array = reorient(array if array.ndim == 4 else array[None], order, flips)
    array = hide_marks(array) if preparation.hide_marks else array
    return framed(normalise(scaled(_of_channels(array, preparation.channels), canonical, content),
                            preparation.normalisation), preparation.size)  # fmt: skip


def scaled(array: Array, grid: Grid, content: Triple) -> Float32:
    """The array (channels, i, j, k) averaged or interpolated to so many voxels over the same extent."""
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        finite = array[np.isfinite(array)]
        array = np.where(np.isfinite(array), array, finite.min() if finite.size else 0.0)
    extent = np.array(grid.shape, dtype=float)
    source = Grid.from_parts(grid.shape, placed=False)
    target = Grid.from_parts(content, spacing=extent / np.array(content), placed=False)
    return resample(array, source, target, order=1)


def framed(array: Float32, size: Triple) -> Float32:
    """The array (channels, i, j, k) in the middle of a frame of zeros."""
    if array.shape[1:] == size:
        return array
    frame = np.zeros((len(array), *size), np.float32)
    places = tuple(
        slice(start, start + n) for start, n in zip(_starts(array.shape[1:], size), array.shape[1:], strict=True)
    )
    frame[(slice(None), *places)] = array
    return frame


def map_on_image(found: Float32, source: Grid, preparation: WholePreparation) -> Array | None:
    """A map of the frame (classes, a, b, c), of any resolution, on the image's own grid.

    Returns:
        (classes, i, j, k) float16 in the image's index order, interpolated linearly; None where that would
        have more than `MAP_VALUES` values.
    """
    canonical, order, flips = source.canonical()
    if len(found) * int(np.prod(source.shape)) > MAP_VALUES:
        return None
    content = content_size(source, preparation)
    starts = _starts(content, preparation.size)
    answer = found
    for axis in range(3):
        places = (np.arange(canonical.shape[axis]) + 0.5) * content[axis] / canonical.shape[axis] + starts[axis]
        positions = places * found.shape[1 + axis] / preparation.size[axis] - 0.5
        answer = apply_taps(answer, 1 + axis, axis_taps(found.shape[1 + axis], positions))
    return np.ascontiguousarray(restore(answer, order, flips)).astype(np.float16)


def _starts(content: tuple[int, ...], size: Triple) -> list[int]:
    return [(whole - part) // 2 for whole, part in zip(size, content, strict=True)]


def _of_channels(array: Array, channels: int) -> Array:
    """Grey repeated, or colours averaged, to the channels that the model takes."""
    if len(array) == channels:
        return array
    grey: Array = array if len(array) == 1 else array.mean(axis=0, dtype=np.float32, keepdims=True)
    return np.repeat(grey, channels, 0)
