"""NRRD and MetaImage (MHA, MHD) through SimpleITK, whose space is LPS already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import GeometryError, UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.formats.scan import Attribute, Scan, check_size

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

_AGAIN = "Copy or export it again from its source."
_MOST_HEADER = 1 << 16
_LARGEST_RATIO = 1032  # deflate cannot do better
_PACKED = re.compile(rb"(?im)^\s*(encoding\s*:\s*(gzip|gz|bzip2|bz2)|CompressedData\s*=\s*True)")
_DETACHED = re.compile(rb"(?im)^\s*(?:ElementDataFile\s*=|data ?file\s*:)\s*(.+?)\s*$")


@dataclass(frozen=True)
class VolumePixels:
    """One volume of a file: all of it, a number along a fourth axis, or a component of its vectors."""

    path: Path
    dimensions: int
    volume: int | None
    component: int | None
    keep: object = None

    def read(self) -> Array:
        """(channels, i, j, k) as stored.

        Raises:
            UnusableInput: damaged or cut off.
        """
        reader = _reader(self.path)
        if self.volume is not None:
            size = list(reader.GetSize())
            reader.SetExtractIndex([0, 0, 0, self.volume])
            reader.SetExtractSize([*size[:3], 0])
        import SimpleITK as sitk

        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise UnusableInput("Its voxel data are cut off or corrupt.", remedy=_AGAIN) from error
        array = sitk.GetArrayFromImage(image)  # k, j, i and then components
        channels = image.GetNumberOfComponentsPerPixel()
        array = array if channels > 1 else array[..., None]
        if array.ndim == 3:
            array = array[None]
        turned = array.transpose(3, 2, 1, 0)
        return turned if self.component is None else turned[self.component : self.component + 1]


def read_volume(path: Path, name: str | None = None, keep: object = None) -> list[Scan]:
    """The volumes of an NRRD or MetaImage file: only the header is read.

    A fourth dimension, or vectors that are not RGB, become one scan each (`#1`, `#2`, ... in the name).

    Raises:
        GeometryError: its directions or spacing are degenerate.
        UnusableInput: damaged, cut off, of an unsupported type, or its data lie in another folder.
    """
    name = name if name is not None else path.name
    files = (path, *_check_data(path))
    reader = _reader(path)
    size = tuple(int(length) for length in reader.GetSize())
    components = int(reader.GetNumberOfComponents())
    check_size((*size, max(components, 1)))
    if len(size) not in (2, 3, 4):
        raise UnusableInput(f"It has {len(size)} dimensions.", remedy="Split it into volumes of three.")
    if "complex" in _kind(reader):
        raise UnusableInput("Its voxels are complex numbers.", remedy="Export magnitudes.")
    _check_complete(path, files, reader, size)
    grid = _grid(path, reader, size)
    colour = components == 3 and len(size) < 4
    steps = size[3] if len(size) == 4 else 1
    count = steps if components == 1 else (1 if colour else components)
    if len(size) == 4 and components > 1:
        raise UnusableInput("It has vectors in four dimensions.", remedy="Split it into volumes of three.")
    scans = []
    for number in range(count):
        attributes: dict[str, Attribute] = {}
        if count > 1:
            attributes = {"Volume": float(number + 1), "Volumes": float(count)}
        pixels = VolumePixels(
            path, len(size), number if len(size) == 4 else None,
            number if components > 1 and not colour else None, keep,
        )  # fmt: skip
        label = name if count == 1 else f"{name}#{number + 1}"
        scans.append(Scan(label, files, "nrrd", "", "", "", "", grid, 3 if colour else 1, pixels, attributes))
    return scans


def _reader(path: Path) -> Any:
    import SimpleITK

    sitk: Any = SimpleITK
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UnusableInput("Its header is damaged, or it is of another kind.", remedy=_AGAIN) from error
    return reader


def _kind(reader: Any) -> str:
    """The type of the voxels in words, such as "16-bit signed integer"."""
    import SimpleITK

    sitk: Any = SimpleITK
    return str(sitk.GetPixelIDValueAsString(reader.GetPixelID()))


def _header(path: Path) -> bytes:
    """The text at the start of the file."""
    with path.open("rb") as file:
        return file.read(_MOST_HEADER)


def _text_size(start: bytes) -> int:
    """Bytes of the header's text: up to the empty line of NRRD or the data line of MetaImage."""
    if start.startswith(b"NRRD"):
        ends = [place for mark in (b"\n\n", b"\r\n\r\n") if (place := start.find(mark)) >= 0]
        return min(ends) + 2 if ends else len(start)
    place = start.find(b"ElementDataFile")
    end = start.find(b"\n", place) if place >= 0 else -1
    return end + 1 if end >= 0 else len(start)


def _check_data(path: Path) -> tuple[Path, ...]:
    """The file that holds the voxels where that is another one; it must lie beside the header."""
    start = _header(path)
    match = _DETACHED.search(start[: _text_size(start)])
    if match is None or match.group(1).upper() == b"LOCAL":
        return ()
    stated = match.group(1).decode("utf-8", "replace")
    data = path.parent / stated
    if "/" in stated or "\\" in stated or "%" in stated or stated.upper().startswith("LIST"):
        raise UnusableInput(
            "Its voxels lie in another folder or in several files.", remedy="Put all into one file beside it."
        )
    if not data.is_file():
        raise UnusableInput("The file with its voxels is missing.", remedy="Put both files side by side.")
    return (data,)


def _check_complete(path: Path, files: tuple[Path, ...], reader: Any, size: tuple[int, ...]) -> None:
    """Refuse a file that cannot hold the voxels that its header declares."""
    kind = _kind(reader)
    width = 8 if "64" in kind else 4 if "32" in kind else 2 if "16" in kind else 1
    needed = int(np.prod(size, dtype=object)) * reader.GetNumberOfComponents() * width
    start = _header(path)
    text = _text_size(start)
    there = files[-1].stat().st_size - (text if len(files) == 1 else 0)
    if _PACKED.search(start[:text]):
        there *= _LARGEST_RATIO
    if "nknown" in kind or needed > there:
        raise UnusableInput("It holds fewer voxels than its header declares.", remedy=_AGAIN)


def _grid(path: Path, reader: Any, size: tuple[int, ...]) -> Grid:
    dimensions = len(size)
    directions = np.array(reader.GetDirection(), dtype=float).reshape(dimensions, dimensions)
    spacing, origin = reader.GetSpacing(), reader.GetOrigin()
    if dimensions == 2:
        return Grid.from_parts((*size, 1), spacing=(*spacing, 1.0), placed=False)
    placed = path.suffix.lower() in (".mha", ".mhd") or reader.HasMetaDataKey("NRRD_space")
    try:
        return Grid.from_parts(
            size[:3], spacing=spacing[:3], origin=origin[:3], directions=directions[:3, :3], placed=placed
        )
    except ValueError as error:
        raise GeometryError(
            "Its directions or spacing fold the volume flat.", remedy="Correct the directions in its header."
        ) from error
