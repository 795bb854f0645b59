"""From a case's images to the array that a network takes, and the label that goes with it.

Training and the bedside call the same functions; every constant stands in the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.grid import Array, Grid, reorient
from vesalius.core.image import Image
from vesalius.imaging.resample import Float32, overlap, resample, resample_label

_SAME_SPACING = 0.01  # a spacing this near (as a share) is kept: resampling would cost more than it mends
_LEAST_OVERLAP = 0.1  # share of the first input that every further input must cover
_ROUNDING = 1e-6  # of the values: differences this small are those of single precision
_SAMPLE = 4_000_000  # voxels that percentiles are taken from; larger volumes are thinned evenly
_EMPTY = 0.05  # share of voxels at exactly the minimum above which they count as background

KINDS = ("zscore", "clip_zscore", "unit")


@dataclass(frozen=True)
class Normalisation:
    """How one input's intensities are brought to the range that a network takes.

    Args:
        kind: "zscore": each volume by its own robust statistics, no constants needed. "clip_zscore": clip
            to [low, high], then (x - mean) / std with the constants given (for CT, whose numbers mean the
            same everywhere). "unit": each volume's own 0.5..99.5 percentiles to 0..1, all channels
            together, then (x - mean) / std with the constants given (projection images and colour).
        low, high: clipping bounds in the image's unit.
        mean, std: constants after clipping or scaling.
    """

    kind: Literal["zscore", "clip_zscore", "unit"]
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Preparation:
    """What happens to a case's images before the network: part of the card.

    Args:
        inputs: role of each input, in order.
        spacing: mm along the canonical axes (L, P, S) of the prepared volume; None keeps each input's own.
        normalisation: one per input.
    """

    inputs: tuple[str, ...]
    spacing: tuple[float, float, float] | None
    normalisation: tuple[Normalisation, ...]

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs to make this again."""
        return {
            "inputs": list(self.inputs),
            "spacing": None if self.spacing is None else list(self.spacing),
            "normalisation": [vars(item).copy() for item in self.normalisation],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Preparation:
        """The preparation that `as_json` described.

        Raises:
            BundleError: a key is missing or a value makes no sense.
        """
        try:
            normalisation = tuple(Normalisation(**item) for item in data["normalisation"])
            spacing = data["spacing"]
            if spacing is not None:
                i, j, k = (float(value) for value in spacing)
                spacing = (i, j, k)
            result = cls(tuple(data["inputs"]), spacing, normalisation)
            sound = (
                len(result.inputs) == len(normalisation) > 0
                and all(item.kind in KINDS and item.std > 0 for item in normalisation)
                and (spacing is None or min(spacing) > 0)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("The card's preparation cannot be read.", remedy=_REWRITE) from error
        if not sound:
            raise BundleError("The card's preparation contradicts itself.", remedy=_REWRITE)
        return result


_REWRITE = "Fit or fetch the model again."


@dataclass(frozen=True)
class Prepared:
    """A case as a network takes it.

    Args:
        array: (channels, i, j, k) float32, axes in canonical order (L, P, S) where the input is placed.
        grid: where `array` stands.
        source: the first input's own grid, on which answers are given.
    """

    array: Float32
    grid: Grid
    source: Grid


def prepare(images: Sequence[Image], preparation: Preparation) -> Prepared:
    """Read, turn, bring to the first input's grid, normalise and resample a case's images.

    Args:
        images: intensity images in the order of `preparation.inputs`.
        preparation: the card's preparation.

    Returns:
        The inputs' channels after one another on one canonical grid.

    Raises:
        UnusableInput: an input is missing, holds no contrast or no finite number, contradicts its grid, or
            does not lie where the first one does.
    """
    if len(images) != len(preparation.inputs):
        needed = ", ".join(preparation.inputs)
        raise UnusableInput(
            f"The model takes {len(preparation.inputs)} inputs ({needed}), not {len(images)}.",
            remedy="Give one image per role.",
        )
    first = images[0].grid.canonical()[0]
    parts = []
    for image, normalisation in zip(images, preparation.normalisation, strict=True):
        grid, order, flips = image.grid.canonical()
        array = image.read()
        if array.shape[-3:] != image.grid.shape or array.ndim not in (3, 4):
            raise UnusableInput("The pixels do not fill the image's grid.", remedy="Export it again.")
        array = reorient(array if array.ndim == 4 else array[None], order, flips)
        array = normalise(array, normalisation)
        parts.append(_on_grid(array, grid, first))
    return _spaced(parts, first, images[0].grid, preparation.spacing)


def prepare_array(array: Array, grid: Grid, preparation: Preparation) -> Prepared:
    """`prepare` for pixels that are already read and lie on one grid.

    Args:
        array: (i, j, k) or (channels, i, j, k) in the grid's index order. With several inputs, one channel
            per input.
        grid: where the array stands.
        preparation: the card's preparation.

    Raises:
        UnusableInput: as `prepare`.
    """
    canonical, order, flips = grid.canonical()
    channels = reorient(array if array.ndim == 4 else array[None], order, flips)
    recipes = preparation.normalisation
    if len(recipes) == 1:
        parts = [normalise(channels, recipes[0])]
    elif len(recipes) == len(channels):
        parts = [normalise(channels[[n]], recipe) for n, recipe in enumerate(recipes)]
    else:
        raise UnusableInput(f"The model takes {len(recipes)} inputs, not {len(channels)}.")
    return _spaced(parts, canonical, grid, preparation.spacing)


def prepare_label(label: Image, source: Grid, grid: Grid) -> npt.NDArray[np.uint8]:
    """A label map on the prepared grid of its case.

    Args:
        label: label image, (i, j, k) integers 0..255.
        source: grid of the case's first input (`Prepared.source`), on which the label must lie.
        grid: `Prepared.grid`.

    Returns:
        uint8 on `grid`: exactly the label's voxels where nothing was resampled, else each class
        interpolated linearly and the strongest taken.

    Raises:
        UnusableInput: the label lies on another grid than its image, or holds values beyond 0..255.
    """
    if not label.grid.matches(source):
        raise UnusableInput("The mask does not lie on its image's grid.", remedy="Export the mask on the image's grid.")
    canonical, order, flips = label.grid.canonical()
    array = reorient(label.read(), order, flips)
    if array.min() < 0 or array.max() > 255:
        raise UnusableInput("The mask holds values beyond 0..255.", remedy="Renumber its classes.")
    return resample_label(np.ascontiguousarray(array, dtype=np.uint8), canonical, grid)


def prepared_grid(source: Grid, spacing: Sequence[float] | None) -> Grid:
    """The canonical grid that `prepare` gives for an input on `source`; axes within 1 % are kept."""
    canonical = source.canonical()[0]
    if spacing is None:
        return canonical
    wanted = [
        own if size == 1 or abs(own / aim - 1.0) <= _SAME_SPACING else float(aim)
        for own, aim, size in zip(canonical.spacing, spacing, canonical.shape, strict=True)
    ]
    return canonical if tuple(wanted) == canonical.spacing else canonical.resampled(wanted)


def normalise(array: Array, normalisation: Normalisation) -> Float32:
    """A float32 copy of the array, (channels, i, j, k), in the network's range; channels are kept together.

    Numbers that are not finite become the lowest finite one.

    Raises:
        UnusableInput: there is no finite number, or only one value.
    """
    values = np.array(array, dtype=np.float32, order="C")
    low, high, least = _finite(values)
    if normalisation.kind == "clip_zscore":
        low, high = normalisation.low, normalisation.high
        mean, std = normalisation.mean, normalisation.std
    else:
        low, high, mean, std = _robust(values, least)
        if normalisation.kind == "unit":
            width = max(high - low, 1e-12)
            mean, std = low + normalisation.mean * width, normalisation.std * width
    np.clip(values, low, high, out=values)
    values -= np.float32(mean)
    values /= np.float32(std)
    return values


def _finite(values: Float32) -> tuple[float, float, float]:
    """Lowest and highest finite value, and the lowest again; other numbers are overwritten by the lowest."""
    least, most = float(values.min()), float(values.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        bad = ~np.isfinite(values)
        if bad.all():
            raise UnusableInput("The image holds no finite number.", remedy="Export it again.")
        least = float(values[~bad].min())
        values[bad] = least
        most = float(values.max())
    if most - least <= _ROUNDING * max(abs(least), abs(most)):  # an empty image may have been interpolated
        raise UnusableInput(
            "The image has the same value everywhere.", remedy="Look at it; it may be empty or damaged."
        )
    return least, most, least


def _robust(values: Float32, least: float) -> tuple[float, float, float, float]:
    """0.5 and 99.5 percentiles, then mean and deviation of what lies between, of a volume's foreground.

    Where more than a twentieth of the voxels have exactly the lowest value (air set to zero, a stripped
    skull), those are background and do not count, so that a crop and a whole head come out alike.
    """
    flat = values.reshape(-1)
    sample = flat[:: max(1, -(-flat.size // _SAMPLE))]
    foreground = sample[sample > least]
    if foreground.size > (1.0 - _EMPTY) * sample.size or foreground.size == 0:
        foreground = sample
    low, high = (float(value) for value in np.percentile(foreground, (0.5, 99.5)))
    if low == high:
        low, high = least, float(values.max())
    clipped = np.clip(foreground, low, high)
    std = float(clipped.std(dtype=np.float64))
    return low, high, float(clipped.mean(dtype=np.float64)), std if std > 0 else max(high - low, 1e-12)


def _on_grid(array: Float32, grid: Grid, first: Grid) -> Float32:
    """One input moved to the first input's canonical grid."""
    if grid.matches(first):
        return array
    if not (grid.placed and first.placed):
        raise UnusableInput(
            "The inputs differ in size and do not say where in the patient they lie.",
            remedy="Give inputs of the same size.",
        )
    frames = {grid.frame_of_reference, first.frame_of_reference} - {None}
    if len(frames) > 1:
        raise UnusableInput(
            "The inputs have different frames of reference, so their positions cannot be compared.",
            remedy="Register them to each other first.",
        )
    if overlap(first, grid) < _LEAST_OVERLAP:
        raise UnusableInput(
            "The inputs do not lie in the same part of the patient.",
            remedy="Give inputs of the same visit that cover the same region, or register them first.",
        )
    return resample(array, grid, first, order=3)


def _spaced(parts: list[Float32], canonical: Grid, source: Grid, spacing: Sequence[float] | None) -> Prepared:
    """The inputs joined and resampled to the network's spacing."""
    grid = prepared_grid(canonical, spacing)
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    parts.clear()  # the parts' memory is not held while resampling
    if not grid.matches(canonical):
        array = resample(array, canonical, grid, order=3)
    return Prepared(array, grid, source)
