"""Prepared cases on disk, and batches of patches read from them.

Every case is prepared once and written as blosc2 arrays of small compressed blocks, so that a patch is read
by decoding only the blocks it touches. No worker processes: reading a patch takes well under a millisecond,
and what does not exist cannot hang. Cohorts below `HELD_BYTES` are kept decoded in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array
from vesalius.core.progress import Progress
from vesalius.imaging.prepare import Preparation, prepare, prepare_label
from vesalius.store.files import write_bytes
from vesalius.store.sealed import Seal, seal_in, sealed_path

HELD_BYTES = 1 << 30  # prepared cases that take less than this (float16 and uint8) are held in memory
_FORMAT = 1  # counted up when what is written changes
_BLOCK = 16  # edge of a compressed block, voxels
_CHUNK = 64  # edge of a chunk of blocks, voxels
_PLACES = 256  # remembered voxels per class and case


@dataclass(frozen=True)
class PreparedCase:
    """One case in the cache: where it lies and what is in it.

    Args:
        id, patient: pseudonyms.
        folder: the cache folder.
        shape: (i, j, k) on the prepared grid.
        spacing: mm of the prepared grid.
        channels: of the image.
        counts: voxels per label value.
        places: up to 256 voxels (m, 3) of each label value but 0.
        seal: opens the files where the cohort is encrypted.
    """

    id: str
    patient: str
    folder: Path
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: int
    counts: Mapping[int, int]
    places: Mapping[int, npt.NDArray[np.int32]] = field(repr=False)
    seal: Seal | None = None

    @property
    def bytes_held(self) -> int:
        """Size of image and label when decoded."""
        return int(np.prod(self.shape)) * (2 * self.channels + 1)

    def image(self) -> Any:
        """(channels, i, j, k) float16, memory-mapped if not encrypted; slicing decodes the blocks touched."""
        return open_array(self.folder / f"{self.id}.image.b2nd", self.seal)

    def label(self) -> Any:
        """(i, j, k) uint8, memory-mapped."""
        return open_array(self.folder / f"{self.id}.label.b2nd", self.seal)


def cache_folder(cohort: Cohort, preparation: Preparation) -> Path:
    """The folder below the cohort's `cache/` for this preparation of this cohort."""
    key = {
        "format": _FORMAT, "preparation": preparation.as_json(), "digest": cohort.digest,
        "labels": [label.value for label in cohort.labels], "ignore": cohort.ignore,
    }  # fmt: skip
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cohort.folder / "cache" / name


def prepare_cases(
    cohort: Cohort, cases: Sequence[Case], preparation: Preparation, progress: Progress
) -> tuple[list[PreparedCase], list[str]]:
    """Prepare cases into the cache, or take them from it.

    Returns:
        The usable ones in the order given, and a sentence for each that is left out.
    """
    folder = cache_folder(cohort, preparation)
    folder.mkdir(parents=True, exist_ok=True)
    seal = seal_in(cohort.folder, cohort.meta)
    ready: list[PreparedCase] = []
    left_out: list[str] = []
    for case in progress.track(cases, "preparing cases", total=len(cases)):
        try:
            found = _load(folder, case, seal) or _write(folder, case, preparation, seal)
            if ready and found.channels != ready[0].channels:
                raise UnusableInput(f"It has {found.channels} channels where others have {ready[0].channels}.")
            ready.append(found)
        except UnusableInput as error:
            left_out.append(f"Case {case.id} is left out: {error.what}")
    return ready, left_out


def _load(folder: Path, case: Case, seal: Seal | None) -> PreparedCase | None:
    """The case as an earlier run left it; its JSON is written last, so it stands for the whole."""
    note = folder / f"{case.id}.json"
    if not (note if seal is None else sealed_path(note)).exists():
        return None
    data = json.loads(note.read_bytes() if seal is None else seal.read(note))
    return _from_note(folder, case, data, seal)


def _from_note(folder: Path, case: Case, data: dict[str, Any], seal: Seal | None) -> PreparedCase:
    places = {int(value): np.array(voxels, np.int32).reshape(-1, 3) for value, voxels in data["places"].items()}
    counts = {int(value): int(count) for value, count in data["counts"].items()}
    shape, spacing = tuple(data["shape"]), tuple(data["spacing"])
    return PreparedCase(case.id, case.patient, folder, shape, spacing, data["channels"], counts, places, seal)


def _write(folder: Path, case: Case, preparation: Preparation, seal: Seal | None) -> PreparedCase:
    images = [image for role in preparation.inputs if (image := case.image(role)) is not None]
    truth = case.label_image
    if truth is None:
        raise UnusableInput("There is no mask.", remedy="Label the case, or leave it out.")
    prepared = prepare(images, preparation)
    label = prepare_label(truth, prepared.source, prepared.grid)
    values, numbers = np.unique(label, return_counts=True)
    data = {
        "shape": list(prepared.grid.shape), "spacing": list(prepared.grid.spacing),
        "channels": len(prepared.array),
        "counts": {int(value): int(number) for value, number in zip(values, numbers, strict=True)},
        "places": {int(value): _places(label, int(value)) for value in values if value},
    }  # fmt: skip
    store_array(folder / f"{case.id}.image.b2nd", np.clip(prepared.array, -6e4, 6e4).astype(np.float16), seal)
    store_array(folder / f"{case.id}.label.b2nd", label, seal)
    (write_bytes if seal is None else seal.write)(folder / f"{case.id}.json", json.dumps(data).encode())
    return _from_note(folder, case, data, seal)


def _places(label: npt.NDArray[np.uint8], value: int) -> list[list[int]]:
    """Evenly thinned voxels of one value."""
    flat = np.flatnonzero(label.reshape(-1) == value)
    flat = flat[np.linspace(0, len(flat) - 1, min(_PLACES, len(flat))).astype(int)]
    return [[int(index) for index in row] for row in np.stack(np.unravel_index(flat, label.shape), 1)]


def open_array(path: Path, seal: Seal | None) -> Any:
    """A blosc2 array of the cache: memory-mapped, or, where it is encrypted, its compressed blocks in memory."""
    if seal is None:
        return blosc2.open(str(path), mode="r", mmap_mode="r")
    return blosc2.ndarray_from_cframe(_frame(seal, path, sealed_path(path).stat().st_mtime_ns))


@lru_cache(maxsize=64)
def _frame(seal: Seal, path: Path, _: int) -> bytes:
    """A decrypted file of the cache; the last ones stay, because patches come from the same cases again."""
    return seal.read(path)


def store_array(path: Path, array: Array, seal: Seal | None = None) -> None:
    """Write a blosc2 array beside its place, then rename it; encrypted where there is a seal."""
    lead = array.shape[:-3]
    chunks = (*lead, *(min(_CHUNK, size) for size in array.shape[-3:]))
    blocks = (*lead, *(min(_BLOCK if array.shape[-1] > 1 else 4 * _BLOCK, size) for size in array.shape[-3:]))
    how: dict[str, Any] = {
        "chunks": chunks, "blocks": blocks, "cparams": {"codec": blosc2.Codec.LZ4, "clevel": 5, "nthreads": 1},
    }  # fmt: skip
    array = np.ascontiguousarray(array)
    if seal is not None:
        seal.write(path, blosc2.asarray(array, **how).to_cframe())
        return
    beside = path.with_name(path.name + ".part.b2nd")
    beside.unlink(missing_ok=True)
    blosc2.asarray(array, urlpath=str(beside), mode="w", **how)
    beside.rename(path)


def read_patch(array: Any, start: Sequence[int], size: Sequence[int]) -> Array:
    """A patch of (…, i, j, k) that may reach over the border, where the outermost voxels are repeated.

    Args:
        array: numpy or blosc2 array; only the part inside is decoded.
        start: first voxel, may be negative.
        size: (i, j, k).
    """
    shape = array.shape[-3:]
    low = [min(max(0, begin), length - 1) for begin, length in zip(start, shape, strict=True)]
    high = [
        max(min(length, begin + extent), first + 1)
        for begin, extent, length, first in zip(start, size, shape, low, strict=True)
    ]
    lead = (slice(None),) * (len(array.shape) - 3)
    inner = array[(*lead, *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    if inner.shape[-3:] == tuple(size):
        return np.asarray(inner)
    index = [
        np.clip(np.arange(begin, begin + extent), first, last - 1) - first
        for begin, extent, first, last in zip(start, size, low, high, strict=True)
    ]
    return np.asarray(inner)[(*lead, *np.ix_(*index))]


def class_table(classes: Mapping[int, int], ignore: int | None) -> npt.NDArray[np.uint8]:
    """The network's class of each label value 0..255; the ignore value becomes the class after the last."""
    table = np.zeros(256, np.uint8)
    for value, number in classes.items():
        table[value] = number
    if ignore is not None:
        table[ignore] = len(classes) + 1
    return table


class Patches:
    """Draws batches of patches; a batch depends on nothing but the seed and its number.

    Args:
        cases: prepared cases to draw from.
        size: of the patches, (i, j, k), margins for augmentation included.
        batch: patches per batch.
        seed: of every draw.
        classes: label value to the network's class (from 1); other values become 0.
        ignore: label value that becomes the class after the last, which the loss leaves out.
        foreground: probability that a patch is centred on a labelled voxel, its class drawn first.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        size: Sequence[int],
        batch: int,
        seed: int,
        classes: Mapping[int, int],
        ignore: int | None = None,
        foreground: float = 0.5,
    ) -> None:
        self.cases, self.size, self.batch, self.seed = tuple(cases), tuple(size), batch, seed
        self.values, self.foreground = tuple(classes), foreground
        self._class_of = class_table(classes, ignore)
        hold = sum(case.bytes_held for case in self.cases) <= HELD_BYTES
        self._held = [(case.image()[:], case.label()[:]) for case in self.cases] if hold else []

    def draw(self, number: int) -> tuple[Array, Array]:
        """Batch `number`: image (batch, channels, i, j, k) float32 and classes (batch, i, j, k) uint8."""
        rng = np.random.default_rng([self.seed, number])
        images, labels = [], []
        for place in range(number * self.batch, (number + 1) * self.batch):
            chosen = self._order(place // len(self.cases))[place % len(self.cases)]
            start = self._start(self.cases[chosen], rng)
            image, label = self._held[chosen] if self._held else self._opened(chosen)
            images.append(read_patch(image, start, self.size))
            labels.append(self._class_of[read_patch(label, start, self.size)])
        return np.stack(images).astype(np.float32), np.stack(labels)

    def _opened(self, chosen: int) -> tuple[Any, Any]:
        """A case's files, opened for one patch: thousands of cases must not hold thousands of files open."""
        return self.cases[chosen].image(), self.cases[chosen].label()

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Every case once per epoch, in an order of its own."""
        return np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.cases))

    def _start(self, case: PreparedCase, rng: np.random.Generator) -> list[int]:
        """First voxel of a patch; an axis that fits into the patch is centred."""
        centre: Sequence[float] | None = None
        present = [value for value in self.values if value in case.places]
        if present and rng.random() < self.foreground:
            voxels = case.places[present[int(rng.integers(len(present)))]]
            centre = voxels[int(rng.integers(len(voxels)))]
        start = []
        for axis, (length, extent) in enumerate(zip(case.shape, self.size, strict=True)):
            if length <= extent:
                start.append(-((extent - length) // 2))
            elif centre is None:
                start.append(int(rng.integers(length - extent + 1)))
            else:
                start.append(int(np.clip(centre[axis] - extent // 2, 0, length - extent)))
        return start
