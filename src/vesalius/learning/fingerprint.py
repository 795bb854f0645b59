"""What a cohort looks like: sizes, spacings, intensities, class volumes. The plan is made from this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.image import Image
from vesalius.imaging.prepare import Normalisation, Preparation, normalise

_LOOKED_AT = 30  # cases whose pixels are read, spread evenly
_SAMPLE = 50_000  # voxels per image that statistics are taken from
_SAME = 0.01  # spacings this near to each other (as a share) are the same

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Fingerprint:
    """A cohort in numbers; shapes and spacings are in canonical axis order (L, P, S).

    Args:
        cases: their number.
        shape_low, shape, shape_high: 5th percentile, median and 95th percentile of sizes, voxels.
        spacing: median, mm (1 where the source states none).
        spacings_differ: whether a case differs from the median by more than 1 % on an axis.
        physical: whether spacings are in mm.
        planar: whether every image has one slice.
        modality: the most common one of each input, "" where unknown.
        channels: of each input.
        percentiles: per input the 0.5, 50 and 99.5 percentiles inside labelled voxels, else everywhere.
        moments: per input mean and standard deviation of the same voxels.
        volumes: per label value the median volume in ml (in thousands of pixels where not physical) of the
            cases that have it, and the share of cases that have it.
    """

    cases: int
    shape_low: tuple[int, int, int]
    shape: tuple[int, int, int]
    shape_high: tuple[int, int, int]
    spacing: Triple
    spacings_differ: bool
    physical: bool
    planar: bool
    modality: tuple[str, ...]
    channels: tuple[int, ...]
    percentiles: tuple[Triple, ...]
    moments: tuple[tuple[float, float], ...]
    volumes: dict[int, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """Plain values for the card."""
        return asdict(self)

    def sentence(self) -> str:
        """The fingerprint in plain words."""
        size = " × ".join(str(n) for n in self.shape if not (self.planar and n == 1))
        step = " × ".join(f"{mm:.3g}" for mm in self.spacing[: 2 if self.planar else 3])
        unit = f"spacing {step} mm" if self.physical else "no stated spacing"
        return f"{self.cases} cases of about {size} voxels, {unit}."


def fingerprint(cohort: Cohort, cases: Sequence[Case], inputs: Sequence[str]) -> Fingerprint:
    """Look at every case's grid and at the pixels of up to thirty.

    Raises:
        UsageError: no case has all inputs and a mask that can be read.
    """
    grids = [image.grid.canonical()[0] for case in cases if (image := case.image(inputs[0])) is not None]
    if not grids:
        raise UsageError("No case has the inputs that the model is to learn from.")
    shapes = np.array([grid.shape for grid in grids])
    spacings = np.array([grid.spacing for grid in grids])
    median = np.median(spacings, 0)
    chosen = [cases[n] for n in np.unique(np.linspace(0, len(cases) - 1, _LOOKED_AT).astype(int))]
    looks = [look for case in chosen if (look := _look(case, inputs)) is not None]
    if not looks:
        raise UsageError("None of the cases that were looked at can be read.")
    values = [np.concatenate([look.values[n] for look in looks]) for n in range(len(inputs))]
    firsts = [image for role in inputs if (image := looks[0].case.image(role)) is not None]
    low, middle, high = (_sizes(np.percentile(shapes, share, axis=0)) for share in (5, 50, 95))
    i, j, k = (float(mm) for mm in median)
    return Fingerprint(
        cases=len(cases), shape_low=low, shape=middle, shape_high=high, spacing=(i, j, k),
        spacings_differ=bool((np.abs(spacings / median - 1) > _SAME).any()),
        physical=all(grid.unit == "mm" for grid in grids), planar=bool((shapes[:, 2] == 1).all()),
        modality=tuple(image.modality for image in firsts), channels=tuple(im.channels for im in firsts),
        percentiles=tuple(_three(np.percentile(v, (0.5, 50, 99.5))) for v in values),
        moments=tuple((float(v.mean()), float(max(v.std(), 1e-6))) for v in values),
        volumes=_volumes(cohort, looks),
    )  # fmt: skip


def preparation_for(found: Fingerprint, inputs: Sequence[str], most_voxels: int) -> Preparation:
    """The preparation that suits a fingerprint.

    CT is clipped to the foreground's range and scaled by its constants; other volumes by their own
    statistics; planes by their own percentiles. Volumes are brought to the median spacing; where the median
    volume would then have more than `most_voxels`, the finest axes are made coarser, because a network that
    sees a small part of every volume once learns less than one that sees all of it many times.
    """
    normalisation = []
    for modality, three, moments in zip(found.modality, found.percentiles, found.moments, strict=True):
        if modality == "CT":
            mean, std = moments
            normalisation.append(Normalisation("clip_zscore", three[0], three[2], mean, std))
        elif found.planar:
            normalisation.append(Normalisation("unit", mean=0.5, std=0.25))
        else:
            normalisation.append(Normalisation("zscore"))
    if not found.physical:
        return Preparation(tuple(inputs), None, tuple(normalisation))
    spacing, size = np.array(found.spacing), np.array(found.shape, dtype=float)
    extent = spacing * size
    while np.prod(np.ceil(extent / spacing)) > most_voxels:
        thin = np.where(size > 1, spacing, np.inf)
        spacing = np.where(thin <= thin.min() * 1.05, spacing * 1.05, spacing)
    return Preparation(tuple(inputs), _three(spacing), tuple(normalisation))


@dataclass(frozen=True)
class _Look:
    """What one case's pixels showed."""

    case: Case
    values: list[npt.NDArray[np.float32]]
    counts: dict[int, int]
    voxel: float


def _look(case: Case, inputs: Sequence[str]) -> _Look | None:
    """Read one case; None where it cannot be used, which its preparation will say."""
    truth = case.label_image
    images: list[Image] = [image for role in inputs if (image := case.image(role)) is not None]
    if truth is None or len(images) < len(inputs):
        return None
    try:
        label = truth.read()
        values = [_values(image, label) for image in images]
    except UnusableInput:
        return None
    numbers, counts = np.unique(label, return_counts=True)
    found = {int(n): int(count) for n, count in zip(numbers, counts, strict=True) if n}
    voxel = truth.grid.voxel_ml if truth.grid.unit == "mm" else 1e-3
    return _Look(case, values, found, voxel)


def _values(image: Image, label: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Up to 50000 intensities, of labelled voxels where image and label share a grid that has some."""
    array = image.read()
    inside = array.reshape(image.channels, -1)
    if label.shape == array.shape[-3:] and (label > 0).any():
        inside = inside[:, (label > 0).reshape(-1)]
    flat = inside.reshape(-1)
    flat = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float32)
    flat = flat[np.isfinite(flat)]
    if flat.size == 0:
        normalise(array, Normalisation("zscore"))  # says what is wrong with it
    return flat


def _volumes(cohort: Cohort, looks: Sequence[_Look]) -> dict[int, tuple[float, float]]:
    volumes = {}
    for label in cohort.labels:
        found = [look.counts[label.value] * look.voxel for look in looks if label.value in look.counts]
        volumes[label.value] = (float(np.median(found)) if found else 0.0, len(found) / len(looks))
    return volumes


def _sizes(values: npt.NDArray[Any]) -> tuple[int, int, int]:
    i, j, k = (int(np.ceil(value)) for value in values)
    return i, j, k


def _three(values: npt.NDArray[Any]) -> Triple:
    i, j, k = (float(value) for value in values)
    return i, j, k
