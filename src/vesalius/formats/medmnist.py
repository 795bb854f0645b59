"""MedMNIST `.npz`: images, labels and the official split of a data set in one file (Yang et al., Sci Data 2023)."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.formats.scan import MAX_VOXELS, Scan

SUFFIX = ".npz"
OFFICIAL_SPLIT = "official_split"  # the covariate that holds the part, in the words of `split`
_PARTS = ("train", "val", "test")
_MOST_BYTES = 2**32  # of one part's images in memory; the 28-pixel sets need some megabytes
_AGAIN = "Fetch it again from its source."


@dataclass(frozen=True)
class NpzPixels:
    """One image of a part; the part that was read last stays in memory, because images are read in order."""

    path: Path
    part: str
    number: int

    def read(self) -> Array:
        """(1 or 3, i, j, k) as stored: i to the right, j down.

        Raises:
            UnusableInput: damaged or cut off.
        """
        state = self.path.stat()
        images = _images(self.path, self.part, state.st_mtime_ns, state.st_size)
        image = images[self.number]
        channels = image[None] if _is_grey(images.shape) else np.moveaxis(image, -1, 0)
        if channels.ndim == 3:
            channels = channels[:, None]
        return np.ascontiguousarray(channels.transpose(0, 3, 2, 1))


def read_npz(path: Path, name: str, keep: object = None) -> list[Scan]:
    """Every image as a scan of its own: `name#1`, `name#2`, ..., training part first.

    Labels come as `answers`: `label`, or `label_0`, `label_1`, ... where an image has several; the part as
    `official_split`. Where there is no test part, the validation part is measured on instead; where there
    is one, the validation part belongs to the training part.

    Raises:
        UnusableInput: it is no such file, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            parts = [part for part in _PARTS if f"{part}_images" in data.files]
            given = {part: data[f"{part}_labels"] for part in parts if f"{part}_labels" in data.files}
        labels = {part: array if array.ndim > 1 else array.reshape(-1, 1) for part, array in given.items()}
        shapes = {part: _shape(path, part) for part in parts}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise UnusableInput("The .npz file is damaged or holds objects.", remedy=_AGAIN) from error
    if not parts:
        raise UnusableInput(
            "The .npz file holds no train_images, val_images or test_images.",
            remedy="Only the layout of MedMNIST is read; save other arrays as NIfTI.",
        )
    scans: list[Scan] = []
    for part in parts:
        shape = shapes[part]
        own = labels.get(part)
        if own is not None and len(own) != shape[0]:
            raise UnusableInput(f"There are not as many labels as images in the part {part}.", remedy=_AGAIN)
        for number in range(shape[0]):
            answers = _answers(own[number] if own is not None else (), _part(part, parts))
            label = f"{name}#{len(scans) + 1}"
            scans.append(_scan(path, label, part, number, shape, answers, keep))
    return scans


def _scan(
    path: Path, name: str, part: str, number: int, shape: tuple[int, ...], answers: dict[str, str | float], keep: object
) -> Scan:
    grey = _is_grey(shape)
    depth, height, width = (1, *shape[1:3]) if len(shape) - (not grey) == 3 else shape[1:4]
    grid = Grid.from_parts((width, height, depth), placed=False, unit="pixel")
    source = "raster" if depth == 1 else "nifti"
    pixels = NpzPixels(path, part, number)
    return Scan(
        name, (path,), source, patient=name, study=name, series="", modality="", grid=grid,
        channels=1 if grey else 3, pixels=pixels, answers=answers,
    )  # fmt: skip


def _is_grey(shape: tuple[int, ...]) -> bool:
    """Whether (n, [depth,] height, width[, 3]) has no colour axis."""
    return not (len(shape) >= 4 and shape[-1] == 3)


def _part(part: str, parts: list[str]) -> str:
    if part == "val":
        return "train" if "test" in parts else "test"
    return part


def _answers(labels: Array | tuple[()], part: str) -> dict[str, str | float]:
    names = ["label"] if len(labels) == 1 else [f"label_{number}" for number in range(len(labels))]
    found: dict[str, str | float] = {name: float(value) for name, value in zip(names, labels, strict=True)}
    return found | {OFFICIAL_SPLIT: part}


def _shape(path: Path, part: str) -> tuple[int, ...]:
    """Of a part's images, from the header of the array alone.

    Raises:
        UnusableInput: another kind of array, or an absurd one.
    """
    with zipfile.ZipFile(path) as packed, packed.open(f"{part}_images.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
    if kind.hasobject or kind.kind not in "uif" or not 3 <= len(shape) <= 5 or min(shape[1:]) < 1:
        raise UnusableInput("The images are no numbers of shape (n, height, width).", remedy=_AGAIN)
    if int(np.prod(shape, dtype=object)) * kind.itemsize > min(_MOST_BYTES, MAX_VOXELS * 8):
        raise UnusableInput("The images of one part do not fit into 4 GB.", remedy="Take a smaller size of the set.")
    return tuple(int(size) for size in shape)


@lru_cache(maxsize=1)
def _images(path: Path, part: str, changed: int, size: int) -> Array:
    """The images of a part; `changed` and `size` tell a rewritten file from the one that was read."""
    try:
        with np.load(path, allow_pickle=False) as data:
            images: Array = data[f"{part}_images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise UnusableInput("The .npz file is damaged or cut off.", remedy=_AGAIN) from error
    return images
