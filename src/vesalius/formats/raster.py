"""PNG, JPEG, TIFF, PNM and BMP: plane images without a place or a physical size."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.formats.scan import Attribute, Scan

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".bmp")
MAX_PIXELS = 2**28  # a 16384 x 16384 image; more is a decompression bomb or needs to be tiled first

_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"P5", b"P6", b"P2", b"P3", b"BM")
_FORMATS = ("PNG", "JPEG", "TIFF", "PPM", "BMP")
_GREY = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112  # EXIF; 5 to 8 swap width and height
_AGAIN = "Copy or export it again from its source."


@dataclass(frozen=True)
class RasterPixels:
    """One page of an image file."""

    path: Path
    page: int
    colour: bool
    keep: object = None
    indices: bool = False

    def read(self) -> Array:
        """(1 or 3, i, j, 1) as stored: uint8, uint16, int32 or float32; palettes as RGB, without alpha.

        Raises:
            UnusableInput: damaged or cut off.
        """
        from PIL import ImageOps

        with _opened(self.path) as image:
            image.seek(self.page)
            upright = ImageOps.exif_transpose(image)
            pixels = _pixels(upright, colour=self.colour)
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0).transpose(0, 2, 1)[..., None])


def looks_like_raster(start: bytes) -> bool:
    """Whether the first bytes are those of an image file read here."""
    return start.startswith(_STARTS)


def read_raster(path: Path, name: str | None = None, keep: object = None, *, indices: bool = False) -> list[Scan]:
    """The image, or each page of a TIFF as `#1`, `#2`, ...: only the header is read.

    Args:
        path: the file.
        name: of the scan, the file's name if left out.
        keep: what must live as long as the pixels may be read.
        indices: give a palette image's indices instead of its colours, as masks need them.

    Raises:
        UnusableInput: damaged, of an unknown kind, or larger than `MAX_PIXELS`.
    """
    name = name if name is not None else path.name
    scans = []
    with _opened(path) as image:
        pages = int(getattr(image, "n_frames", 1))
        for page in range(pages):
            image.seek(page)
            _check_pixels(image)
            width, height = image.size
            if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
                width, height = height, width
            colour = image.mode not in _GREY and not (indices and image.mode == "P")
            grid = Grid.from_parts((width, height, 1), placed=False, unit="pixel")
            attributes: dict[str, Attribute] = {"Format": str(image.format)}
            if pages > 1:
                attributes |= {"Volume": float(page + 1), "Volumes": float(pages)}
            label = name if pages == 1 else f"{name}#{page + 1}"
            pixels = RasterPixels(path, page, colour, keep, indices)
            scans.append(Scan(label, (path,), "raster", "", "", "", "", grid, 3 if colour else 1, pixels, attributes))
    return scans


def write_png(path: Path, array: Array) -> None:
    """Write (i, j), (1, i, j, 1) or (3, i, j, 1) as PNG: uint16 grey, uint8 grey or uint8 RGB.

    The file appears whole or not at all (written beside, then renamed). It holds no metadata.

    Raises:
        ValueError: another shape or type.
    """
    from PIL import Image

    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    grey = array.ndim == 3 and array.shape[0] == 1 and array.dtype in (np.uint8, np.uint16)
    if not grey and not (array.ndim == 3 and array.shape[0] == 3 and array.dtype == np.uint8):
        raise ValueError(f"an array of shape {array.shape} and type {array.dtype} does not go into a PNG")
    turned = np.ascontiguousarray(array.transpose(2, 1, 0))
    image = Image.fromarray(turned[..., 0] if grey else turned)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        image.save(beside, format="PNG")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise UnusableInput("It declares an absurd number of pixels.", remedy="Check it, or split it.") from error
    except PermissionError as error:
        raise UnusableInput("It may not be read.", remedy="Give yourself permission to read it.") from error
    except UnidentifiedImageError as error:
        raise UnusableInput("It is not a readable image.", remedy=_AGAIN) from error
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
            AttributeError, MemoryError, zlib.error, struct.error) as error:  # fmt: skip
        raise UnusableInput("It is damaged or cut off.", remedy=_AGAIN) from error


def _check_pixels(image: Any) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UnusableInput("The header declares an empty image.", remedy=_AGAIN)
    if width * height > MAX_PIXELS:
        raise UnusableInput("It declares an absurd number of pixels.", remedy="Check it, or split it.")


def _pixels(image: Any, *, colour: bool) -> Array:
    """(rows, columns, 1 or 3)."""
    if colour:
        return np.asarray(image.convert("RGB"))
    if image.mode == "1":
        image = image.convert("L")
    pixels = np.asarray(image)
    if image.mode == "LA":
        pixels = pixels[..., 0]
    if image.mode == "I" and pixels.size and pixels.min() >= 0 and pixels.max() <= 65535:
        pixels = pixels.astype(np.uint16)  # Pillow opens some 16-bit files as 32-bit
    return pixels.astype(pixels.dtype.newbyteorder("="))[..., None]
