"""Outlines that refer to their images: DICOM SEG and RTSTRUCT behind one face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.formats.dicom_seg import SOP_CLASSES as SEG
from vesalius.formats.dicom_seg import masks_on, read_seg
from vesalius.formats.rtstruct import SOP_CLASS as RTSTRUCT
from vesalius.formats.rtstruct import rasterise, read_rtstruct


@dataclass(frozen=True)
class Segments:
    """What a SEG or RTSTRUCT outlines, and in which images.

    Args:
        names: of the segments, in the order of the file.
        instances: identified SOP Instance UIDs of the images that they were drawn on.
        series: identified Series Instance UIDs of them.
        draw: the mask of each segment on a grid, boolean (i, j, k).
    """

    names: list[str]
    instances: list[str]
    series: list[str]
    draw: Callable[[Grid], list[Array]]

    def label_map(self, grid: Grid, values: Mapping[int, str]) -> Array:
        """One number per voxel on the image's grid: (i, j, k); nothing is resampled.

        Args:
            grid: of the image that was outlined.
            values: the value of each segment's name (compared without regard to case); segments that are not
                named here are left out.

        Raises:
            GeometryError: the outlines do not lie on this grid.
            UnusableInput: two segments claim the same voxel, or the file is damaged.
        """
        wanted = {name.lower(): value for value, name in values.items()}
        highest = max(wanted.values(), default=0)
        result = np.zeros(grid.shape, np.uint8 if highest < 256 else np.uint16)
        for name, mask in zip(self.names, self.draw(grid), strict=True):
            value = wanted.get(name.lower())
            if value is None:
                continue
            shared = int(((result > 0) & (result != value) & mask).sum())
            if shared:
                raise UnusableInput(
                    f"Its segments overlap in {shared} voxels; a label map has one class per voxel.",
                    remedy="Leave overlapping segments out, or make them disjoint.",
                )
            result[mask] = value
        return result


def read_segments(path: Path) -> Segments:
    """The segments of a DICOM SEG or the structures of an RTSTRUCT.

    Raises:
        UnusableInput: neither of both, damaged, or without any outline.
    """
    kind = _sop_class(path)
    if kind in SEG:
        seg = read_seg(path)
        found = Segments(
            [segment.name for segment in seg.segments],
            sorted(seg.instances),
            list(seg.series),
            lambda grid: list(masks_on(seg, grid).values()),
        )
    elif kind == RTSTRUCT:
        structures = read_rtstruct(path)
        found = Segments(
            [structure.name for structure in structures.structures],
            sorted(structures.instances),
            list(structures.series),
            lambda grid: [rasterise(structure.contours, grid) for structure in structures.structures],
        )
    else:
        raise UnusableInput(
            "This DICOM file is no segmentation and no structure set.", remedy="Give DICOM SEG or RTSTRUCT."
        )
    if not found.names:
        raise UnusableInput("It outlines nothing.", remedy="Export it again with its outlines.")
    return found


def _sop_class(path: Path) -> str:
    from pydicom import dcmread

    from vesalius.formats.dicom_header import lenient
    from vesalius.formats.dicom_values import text

    with lenient():
        try:
            return text(dcmread(path, force=True, specific_tags=["SOPClassUID"], stop_before_pixels=True),
                        "SOPClassUID")  # fmt: skip
        except Exception as error:  # pydicom raises nearly anything on damaged files
            raise UnusableInput("The file is damaged or cut off.", remedy="Copy or export it again.") from error
