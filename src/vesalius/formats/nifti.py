"""NIfTI-1, NIfTI-2 and Analyze 7.5 in and out. The only place where RAS becomes LPS and back.

Standard: NIfTI-1 header `nifti1.h` (nifti.nimh.nih.gov), methods 1 to 3 for orientation.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import GeometryError, UnusableInput
from vesalius.core.grid import Array, FloatArray, Grid
from vesalius.formats.scan import Attribute, Scan, check_size
from vesalius.formats.values import rescaled

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz")

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TO_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # by code of the spatial unit; unknown counts as mm
_LARGEST_GZIP_RATIO = 1032  # deflate cannot do better; a header that declares more lies
_DISAGREEMENT = 0.2  # voxels between sform and qform at a corner: above rounding, below what matters
_AGAIN = "Copy or export it again; it may have been cut off on the way."


@dataclass(frozen=True)
class NiftiPixels:
    """The voxels of one volume of a file, read on demand."""

    path: Path
    volume: int | None
    colour: bool
    keep: object = None

    def read(self) -> Array:
        """(channels, i, j, k) in real-world values (scl_slope and scl_inter applied).

        Raises:
            UnusableInput: the data are cut off or corrupt.
        """
        image = _open(self.path)
        try:
            stored = _stored(self.path, image, self.volume)
        except (OSError, EOFError, ValueError, zlib.error, struct.error) as error:
            raise UnusableInput("Its voxel data are cut off or corrupt.", remedy=_AGAIN) from error
        if stored.dtype.names:  # RGB24 or RGBA32: a structured type
            stored = np.stack([stored[name] for name in stored.dtype.names[:3]])
            return stored.reshape(3, *_three(stored.shape[1:]))
        if self.colour:
            stored = np.moveaxis(stored, -1, 0)
            values = rescaled(stored, *_scaling(image))
            return values.reshape(values.shape[0], *_three(values.shape[1:]))
        values = rescaled(stored, *_scaling(image))
        return values.reshape(1, *_three(values.shape))


def read_nifti(path: Path, name: str | None = None, keep: object = None) -> list[Scan]:
    """The volumes of a NIfTI or Analyze file: only its header is read.

    A fourth dimension becomes one scan per volume (`#1`, `#2`, ... in the name; time points, b-values or
    contrasts cannot be told apart by the header; b-values are taken from a `.bval` file beside it). A fifth
    dimension of size 3, and RGB types, become colour channels.

    Raises:
        GeometryError: sform and qform place the voxels differently, or the affine is degenerate.
        UnusableInput: not a NIfTI file, cut off, or of an unsupported type or size.
    """
    name = name if name is not None else path.name
    image = _open(path)
    shape = tuple(int(size) for size in image.shape)
    check_size(shape)
    _check_type(image)
    _check_complete(path, image)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 5 or (len(shape) == 5 and (shape[3] != 1 or shape[4] != 3)):
        raise UnusableInput(
            f"It has {len(shape)} dimensions of sizes {shape}; what they mean is not stated.",
            remedy="Split it into volumes of three dimensions.",
        )
    grid = _grid(image, _three(shape[:3]))
    colour = len(shape) == 5
    rgb = colour or image.get_data_dtype().names is not None
    count = shape[3] if len(shape) == 4 else 1
    scans = []
    for number in range(count):
        attributes: dict[str, Attribute] = _attributes(image)
        if count > 1:
            attributes |= {"Volume": float(number + 1), "Volumes": float(count)}
            attributes |= _b_value(path, number, count)
        pixels = NiftiPixels(path, number if len(shape) == 4 else None, colour, keep)
        label = name if count == 1 else f"{name}#{number + 1}"
        scans.append(Scan(label, _files(path), "nifti", "", "", "", "", grid, 3 if rgb else 1, pixels, attributes))
    return scans


def write_nifti(path: Path, array: Array, grid: Grid) -> None:
    """Write an array on its grid as NIfTI-1, gzip-compressed where the name ends in `.gz`.

    The file appears whole or not at all (written beside, then renamed) and is the same for the same input.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        array: (i, j, k), or (channels, i, j, k) which is stored with channels as fifth dimension.
        grid: unplaced grids are written with sform and qform codes of 0, that is, without orientation.

    Raises:
        ValueError: the array does not have the grid's shape.
    """
    import nibabel

    if array.shape[-3:] != grid.shape or array.ndim not in (3, 4):
        raise ValueError(f"an array of shape {array.shape} does not lie on a grid of shape {grid.shape}")
    if array.ndim == 4:
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)[:, :, :, None, :]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        array = _narrow(array)
    make: Any = nibabel.Nifti1Image
    image = make(array, None)
    header: Any = image.header
    header.set_data_dtype(array.dtype)
    header.set_xyzt_units("mm" if grid.unit == "mm" else "unknown")
    header.set_zooms((*grid.spacing, *(1.0,) * (array.ndim - 3)))
    if array.ndim == 5:
        header.set_intent("vector")
    if grid.placed:
        _set_forms(image, grid)
    else:
        image.set_sform(None, 0)
        image.set_qform(None, 0)
        header.set_zooms((*grid.spacing, *(1.0,) * (array.ndim - 3)))
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _save(image, beside, compressed=path.name.endswith(".gz"))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _save(image: Any, path: Path, *, compressed: bool) -> None:
    with path.open("wb") as file:
        if not compressed:
            image.to_stream(file)
            return
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=4, mtime=0) as packed:
            image.to_stream(packed)


def _set_forms(image: Any, grid: Grid) -> None:
    """Write the affine as sform, and as qform too where a rotation can say it (no shear)."""
    affine = _LPS_FROM_RAS @ grid.affine
    image.set_sform(affine, 1)
    directions = grid.directions
    straight = np.abs(directions.T @ directions - np.eye(3)).max() < 1e-4
    if straight:
        image.set_qform(affine, 1)
    else:
        image.set_qform(None, 0)


def _narrow(array: Array) -> Array:
    """64-bit integers in 16 or 32 bits, which every reader of NIfTI knows."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for kind in (np.uint8, np.int16, np.uint16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return array.astype(kind)
    return array


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    padded = (*(int(size) for size in shape), 1, 1, 1)
    return padded[0], padded[1], padded[2]


def _open(path: Path) -> Any:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with nibabel.imageglobals.LoggingOutputSuppressor():
            image = nibabel.load(path)
    except FileNotFoundError as error:
        raise UnusableInput(
            "The header or the data file of the pair is missing.", remedy="Put both files side by side."
        ) from error
    except PermissionError as error:
        raise UnusableInput("It may not be read.", remedy="Give yourself permission to read it.") from error
    except (ImageFileError, HeaderDataError, WrapStructError) as error:
        raise UnusableInput("It is not a readable NIfTI file.", remedy=_AGAIN) from error
    except (OSError, EOFError, ValueError, KeyError, OverflowError, zlib.error, struct.error) as error:
        raise UnusableInput("Its NIfTI header is cut off or corrupt.", remedy=_AGAIN) from error
    if not isinstance(image, nibabel.analyze.AnalyzeImage):
        raise UnusableInput("It is not a NIfTI file.", remedy="Convert it to NIfTI.")
    return image


def _files(path: Path) -> tuple[Path, ...]:
    """The file, or the header and data files of a pair."""
    if ".hdr" not in path.suffixes[-2:]:
        return (path,)
    data = path.with_name(path.name.replace(".hdr", ".img"))
    if not data.exists():
        raise UnusableInput("The data file of the pair is missing.", remedy="Put both files side by side.")
    return (path, data)


def _check_type(image: Any) -> None:
    dtype = image.get_data_dtype()
    if dtype.kind == "c" or (dtype.names is None and dtype.kind not in "iuf") or dtype.itemsize > 8:
        raise UnusableInput(
            f"Its voxels are of the type {dtype}, which is not an intensity.",
            remedy="Export magnitudes as integers or 32-bit floating point.",
        )


def _check_complete(path: Path, image: Any) -> None:
    """Refuse a file that cannot hold the voxels that its header declares, without reading them."""
    proxy = image.dataobj
    needed = int(proxy.offset) + int(np.prod(image.shape, dtype=object)) * image.get_data_dtype().itemsize
    data = _files(path)[-1]
    try:
        size = data.stat().st_size
        if data.suffix == ".gz":
            complete = needed <= size * _LARGEST_GZIP_RATIO and _unpacked_size(data, needed) >= needed
        else:
            complete = size >= needed
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableInput("Its compressed data are cut off or corrupt.", remedy=_AGAIN) from error
    if not complete:
        raise UnusableInput("It holds fewer voxels than its header declares.", remedy=_AGAIN)


def _unpacked_size(path: Path, needed: int) -> int:
    """Bytes that a gzip file unpacks to, from its trailer; counted where the trailer says too few.

    The trailer holds the size modulo 2**32 of the last member only (RFC 1952), so it can be believed only
    when it agrees with what is needed.
    """
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        stated = int.from_bytes(file.read(4), "little")
    if stated == needed % 2**32:
        return needed
    count = 0
    with gzip.open(path) as packed:
        while count < needed and (block := packed.read(1 << 20)):
            count += len(block)
    return count


def _scaling(image: Any) -> tuple[float, float]:
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise UnusableInput("Its intensity scaling is not a number.", remedy="Correct scl_slope in its header.")
    return slope, intercept


def _stored(path: Path, image: Any, volume: int | None) -> Array:
    """The stored numbers (i, j, k[, ...]) of the whole file, or of one volume along the fourth axis.

    A gzip file is read to its end where that is near, because its checksum stands there (RFC 1952).
    """
    proxy = image.dataobj
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    start, last = int(proxy.offset), True
    if volume is not None:
        last = volume == shape[3] - 1
        start += volume * int(np.prod(shape[:3], dtype=object)) * proxy.dtype.itemsize
        shape = shape[:3]
    stored = np.empty(shape, proxy.dtype, order="F")
    flat: Any = stored.reshape(-1, order="F").view(np.uint8)
    room = memoryview(flat)
    data = _files(path)[-1]
    with gzip.open(data) if data.suffix == ".gz" else data.open("rb") as file:
        file.seek(start)
        filled = 0
        while filled < len(room):
            count = file.readinto(room[filled : filled + (1 << 24)])
            if not count:
                raise EOFError("fewer voxels than declared")
            filled += count
        while last and data.suffix == ".gz" and file.read(1 << 20):
            pass
    return stored[:, :, :, 0, :] if stored.ndim == 5 else stored


def _grid(image: Any, shape: tuple[int, int, int]) -> Grid:
    header = image.header
    scale = _TO_MM.get(int(header["xyzt_units"]) & 7, 1.0) if "xyzt_units" in header else 1.0
    ras = _ras_affine(header, shape)
    try:
        if ras is None:
            spacing = np.abs(np.asarray(header["pixdim"][1:4], dtype=float)) * scale
            known = [float(size) if np.isfinite(size) and size > 0 else 1.0 for size in spacing]
            return Grid.from_parts(shape, spacing=known, placed=False)
        ras = ras.copy()
        ras[:3] *= scale
        return Grid(shape, _LPS_FROM_RAS @ ras)
    except ValueError as error:
        raise GeometryError(
            "Its orientation matrix is not finite or folds the volume flat.",
            remedy="Correct sform or qform in its header.",
        ) from error


def _ras_affine(header: Any, shape: tuple[int, int, int]) -> FloatArray | None:
    """Index to RAS in the file's unit; None where the header states no orientation (both codes 0)."""
    from nibabel.spatialimages import HeaderDataError

    if not hasattr(header, "get_sform"):
        return None  # Analyze 7.5 has no reliable orientation
    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError, np.linalg.LinAlgError) as error:
        raise GeometryError(
            "Its orientation (qform) is not a rotation.", remedy="Correct qform in its header."
        ) from error
    if sform is not None and qform is not None:
        _check_forms_agree(np.asarray(sform, dtype=float), np.asarray(qform, dtype=float), shape)
    chosen = sform if sform is not None else qform
    return None if chosen is None else np.asarray(chosen, dtype=np.float64)


def _check_forms_agree(sform: FloatArray, qform: FloatArray, shape: tuple[int, int, int]) -> None:
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=float)
    corners *= np.asarray(shape) - 1
    apart = np.linalg.norm(corners @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3], axis=1).max()
    smallest = np.linalg.norm(qform[:3, :3], axis=0).min()
    if not apart <= max(_DISAGREEMENT * smallest, 1e-3):
        raise GeometryError(
            f"Its sform and qform place the same voxel up to {apart:.1f} mm apart, so one of both is wrong.",
            remedy="Find out which is right, then set the other to it or its code to 0.",
        )


def _attributes(image: Any) -> dict[str, Attribute]:
    """What the header says in words; descriptions are free text and may identify."""
    header = image.header
    found: dict[str, Attribute] = {}
    for key, field in (("Description", "descrip"), ("IntentName", "intent_name")):
        try:
            text = bytes(header[field]).split(b"\0")[0].decode("latin-1").strip()
        except (KeyError, ValueError):
            continue
        if text:
            found[key] = text
    return found


def _b_value(path: Path, number: int, count: int) -> dict[str, Attribute]:
    sidecar = path.with_name(path.name.split(".nii")[0] + ".bval")
    try:
        values = [float(word) for word in sidecar.read_text().split()]
    except (OSError, ValueError):
        return {}
    return {"DiffusionBValue": values[number]} if len(values) == count else {}
