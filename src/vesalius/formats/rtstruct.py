"""Radiotherapy structure sets: outlines in patient space, and masks from them (PS3.3 A.19, C.8.8.6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import GeometryError, UnusableInput
from vesalius.core.grid import Array, FloatArray, Grid
from vesalius.formats.dicom_header import lenient
from vesalius.formats.dicom_values import first, text, value, whole

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"

_ON_SLICE = 0.3  # of a slice step: outlines are drawn on slices, rounding aside
_FLAT = 0.1  # of a slice step: how far a closed planar outline may leave its plane


@dataclass(frozen=True)
class Structure:
    """One region of interest.

    Args:
        number: ROI number in the file.
        name: as the file says.
        contours: closed planar outlines, each (points, 3) in mm LPS.
    """

    number: int
    name: str
    contours: tuple[FloatArray, ...]


@dataclass(frozen=True)
class StructureSet:
    """A structure set.

    Args:
        path: the file.
        study: StudyInstanceUID.
        series, instances: UIDs of the images that it was drawn on.
        frame_of_reference: UID, or "".
        structures: those with at least one closed planar outline.
        left_out: names of regions that have none (points, open lines, empty).
    """

    path: Path
    study: str
    series: tuple[str, ...]
    instances: frozenset[str]
    frame_of_reference: str
    structures: tuple[Structure, ...]
    left_out: tuple[str, ...]


def read_rtstruct(path: Path) -> StructureSet:
    """The outlines of a structure set.

    Raises:
        UnusableInput: no structure set, or damaged.
    """
    from pydicom import dcmread

    with lenient():
        try:
            dataset = dcmread(path, force=True)
            if text(dataset, "SOPClassUID") != SOP_CLASS:
                raise UnusableInput("It is no RTSTRUCT.", remedy="Give a radiotherapy structure set.")
            return _structure_set(path, dataset)
        except (UnusableInput, ImportError):
            raise
        except Exception as error:  # pydicom raises nearly anything on damaged files
            raise UnusableInput("The RTSTRUCT is damaged or cut off.", remedy="Copy or export it again.") from error


def _structure_set(path: Path, dataset: Any) -> StructureSet:
    names = {
        whole(item, "ROINumber"): text(item, "ROIName") or f"ROI {whole(item, 'ROINumber')}"
        for item in value(dataset, "StructureSetROISequence") or []
    }
    drawn = {
        whole(item, "ReferencedROINumber"): tuple(_contours(item))
        for item in value(dataset, "ROIContourSequence") or []
    }
    structures = tuple(Structure(number, name, drawn[number]) for number, name in names.items() if drawn.get(number))
    left_out = tuple(name for number, name in names.items() if not drawn.get(number))
    frame = first(dataset, "ReferencedFrameOfReferenceSequence")
    return StructureSet(
        path,
        text(dataset, "StudyInstanceUID"),
        tuple(dict.fromkeys(_series(dataset))),
        frozenset(_instances(dataset)),
        text(frame, "FrameOfReferenceUID") or text(dataset, "FrameOfReferenceUID"),
        structures,
        left_out,
    )


def _contours(item: Any) -> Iterator[FloatArray]:
    for contour in value(item, "ContourSequence") or []:
        if text(contour, "ContourGeometricType") not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
            continue
        points = np.array([float(part) for part in value(contour, "ContourData") or []])
        if points.size % 3 or not np.isfinite(points).all():
            raise UnusableInput("An outline of it has incomplete points.", remedy="Export it again.")
        if len(points) >= 9:
            yield points.reshape(-1, 3)


def _referenced(dataset: Any) -> Iterator[Any]:
    for frame in value(dataset, "ReferencedFrameOfReferenceSequence") or []:
        for study in value(frame, "RTReferencedStudySequence") or []:
            yield from value(study, "RTReferencedSeriesSequence") or []


def _series(dataset: Any) -> Iterator[str]:
    for series in _referenced(dataset):
        if uid := text(series, "SeriesInstanceUID"):
            yield uid


def _instances(dataset: Any) -> Iterator[str]:
    for series in _referenced(dataset):
        for image in value(series, "ContourImageSequence") or []:
            yield text(image, "ReferencedSOPInstanceUID")
    for roi in value(dataset, "ROIContourSequence") or []:
        for contour in value(roi, "ContourSequence") or []:
            for image in value(contour, "ContourImageSequence") or []:
                yield text(image, "ReferencedSOPInstanceUID")


def rasterise(contours: Sequence[FloatArray], grid: Grid) -> Array:
    """The voxels whose centres lie inside the outlines: boolean (i, j, k).

    Outlines of one slice are combined by exclusive or, so an outline inside another one is a hole, also where
    it is joined to it by a keyhole. Slices between outlines are not filled in: nothing was drawn there.

    Args:
        contours: closed, each (points, 3) in mm LPS.
        grid: of the image that they were drawn on.

    Raises:
        GeometryError: an outline does not lie on a slice of the grid, or outside its pixels altogether.
    """
    if not grid.placed:
        raise GeometryError("The image has no place in the patient.", remedy="Give the image that was outlined.")
    mask = np.zeros(grid.shape, dtype=bool)
    for contour in contours:
        index = grid.to_index(contour)
        k = int(np.rint(index[:, 2].mean()))
        if np.ptp(index[:, 2]) > 2 * _FLAT or abs(index[:, 2].mean() - k) > _ON_SLICE or not 0 <= k < grid.shape[2]:
            raise GeometryError(
                "An outline does not lie on a slice of the image.",
                remedy="Give the image that was outlined; outlines across slices are not read.",
            )
        mask[:, :, k] ^= _inside(index[:, :2], (grid.shape[0], grid.shape[1]))
    return mask


def _inside(points: FloatArray, size: tuple[int, int]) -> Array:
    """Even-odd fill of a polygon (points, 2) in index coordinates: boolean (i, j).

    For every row of centres, the crossings of the outline toggle all centres right of them.
    """
    columns, rows = size
    start, end = points, np.roll(points, -1, axis=0)
    toggles = np.zeros((columns + 1, rows), dtype=np.int32)
    for (x0, y0), (x1, y1) in zip(start, end, strict=True):
        low, high = (y0, y1) if y0 <= y1 else (y1, y0)
        j = np.arange(max(int(np.ceil(low)), 0), min(int(np.ceil(high)), rows))  # half open: no corner twice
        if not len(j):
            continue
        x = x0 + (j - y0) * (x1 - x0) / (y1 - y0)
        i = np.clip(np.ceil(x), 0, columns).astype(int)
        np.add.at(toggles, (i, j), 1)
    return np.asarray(np.cumsum(toggles[:columns], axis=0) % 2 == 1)
