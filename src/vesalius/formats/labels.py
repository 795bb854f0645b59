"""Masks that users bring as image files: whole numbers on a grid, or the reason why they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.formats import nifti, raster, volumes
from vesalius.formats.dicom_header import looks_like_dicom
from vesalius.formats.scan import Scan

_SHOWN = 5


def read_label(path: Path) -> tuple[Array, Grid]:
    """A mask as whole numbers (i, j, k) in the smallest type that holds them, and its grid.

    NIfTI, NRRD and MetaImage, and PNG, TIFF, BMP or PNM of one channel; a palette image gives its indices.

    Raises:
        UnusableInput: not a mask file, several volumes or channels, values that are not whole numbers (named),
            or damaged.
        GeometryError: its geometry contradicts itself.
    """
    lower = path.name.lower()
    if lower.endswith(nifti.SUFFIXES):
        scans: list[Scan] = nifti.read_nifti(path)
    elif lower.endswith(volumes.SUFFIXES):
        scans = volumes.read_volume(path)
    elif lower.endswith(raster.SUFFIXES):
        scans = raster.read_raster(path, indices=True)
    else:
        raise UnusableInput(
            "It is not a mask of a kind that is known here.",
            remedy="Give masks as NIfTI, NRRD, MHA, PNG, DICOM SEG or RTSTRUCT.",
        )
    if len(scans) != 1 or scans[0].channels != 1:
        raise UnusableInput(
            f"It holds {len(scans)} volumes of {scans[0].channels} channels; a mask has one of one.",
            remedy="Give one number per voxel; overlapping classes need a file each.",
        )
    return whole_numbers(scans[0].pixels.read()[0]), scans[0].grid


def is_dicom(path: Path) -> bool:
    """Whether a mask file is a DICOM object (SEG or RTSTRUCT), which `segments.read_segments` reads."""
    lower = path.name.lower()
    if lower.endswith((*nifti.SUFFIXES, *volumes.SUFFIXES, *raster.SUFFIXES)):
        return False
    return lower.endswith((".dcm", ".dicom")) or looks_like_dicom(path)


def whole_numbers(values: Array) -> Array:
    """The values in the smallest integer type that holds them.

    Raises:
        UnusableInput: some are not whole numbers, or beyond 32 bits; the message names some of them.
    """
    if values.dtype.kind == "f":
        strange = _strange(values)
        if strange:
            raise UnusableInput(
                f"Its values are not whole numbers (among them {', '.join(strange)}).",
                remedy="Export the mask without interpolation or probabilities.",
            )
    elif values.dtype.kind not in "iub":
        raise UnusableInput("Its values are not numbers.", remedy="Export the mask as integers.")
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    kinds: tuple[type[np.integer[Any]], ...] = (np.uint8, np.int16, np.uint16, np.int32)
    for kind in kinds:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind, copy=False)
    raise UnusableInput(
        f"Its values go from {low:g} to {high:g}, which are no class numbers.", remedy="Renumber the classes."
    )


def _strange(values: Array) -> list[str]:
    """Some of the values that are not whole, looked for slice by slice so that little memory is needed."""
    found: dict[str, None] = {}
    for k in range(values.shape[-1]):
        part = values[..., k]
        odd = part[~(np.isfinite(part) & (part == np.rint(part)))]
        found |= dict.fromkeys(f"{value:g}" for value in np.unique(odd)[:_SHOWN])
        if len(found) >= _SHOWN:
            break
    return list(found)[:_SHOWN]
