"""A label map from a network that sees one window at a time, in bounded memory.

Windows overlap and are weighted by a Gaussian, so that a voxel is decided by windows in which it stands
near the middle (Isensee et al., Nature Methods 18:203, 2021). The windows of the prepared volume are worked
through along one axis; planes that no later window reaches are finished, are interpolated back to the
source grid as probabilities, and become labels at once. Only the live slab is ever held per class.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.core.errors import BundleError
from vesalius.core.grid import Array, FloatArray
from vesalius.imaging.prepare import Prepared
from vesalius.imaging.resample import Float32
from vesalius.inference.planes import LabelWriter

Run = Callable[[Float32], Float32]
Triple = tuple[int, int, int]

_LITTLE_LARGER = 1.25  # an axis up to this many patches long is taken in one window
_BATCH_VOXELS = 128**3  # voxels of all windows of one run
_NETWORK_BYTES = 1024  # held by a network per voxel of a run: about eight tensors of 32 float32 channels
_BLOCK_BYTES = 64 << 20  # finished probabilities that are handed on at once
_START_MB = 250.0  # interpreter, libraries and weights


@dataclass(frozen=True)
class Sliding:
    """How a network is moved over a volume: the card's `network`.

    Args:
        patch: window (i, j, k) that the network was trained on.
        overlap: share of a window (0..0.9) that the next one repeats.
        mirror_axes: spatial axes (0..2) whose mirrored answers are averaged in; none by default.
        multiple: window sizes must be multiples of this; by default the largest power of two, up to 32,
            that divides the patch.
        fixed: True where the graph takes windows of exactly `patch` only.
    """

    patch: Triple
    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    multiple: Triple | None = None
    fixed: bool = False

    @classmethod
    def from_card(cls, network: Mapping[str, Any], fixed_window: Triple | None = None) -> Sliding:
        """What the card's `network` says; a graph's fixed window overrules its patch.

        Raises:
            BundleError: a key is missing or makes no sense.
        """
        try:
            patch = fixed_window or _triple(network["patch"])
            multiple = network.get("multiple")
            result = cls(
                patch,
                float(network.get("overlap", 0.5)),
                tuple(sorted({int(axis) for axis in network.get("mirror_axes", ())})),
                None if multiple is None else _triple(multiple),
                fixed_window is not None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("The card's network cannot be read.", remedy="Fit again.") from error
        sizes = (*patch, *(result.multiple or (1,)))
        if min(sizes) < 1 or not 0 <= result.overlap <= 0.9 or not set(result.mirror_axes) <= {0, 1, 2}:
            raise BundleError("The card's network makes no sense.", remedy="Fit again.")
        return result

    def window(self, shape: Sequence[int]) -> Triple:
        """The window for a prepared volume: the patch, or the whole axis where that is little longer."""
        if self.fixed:
            return self.patch
        sizes = []
        for axis, (size, patch) in enumerate(zip(shape, self.patch, strict=True)):
            unit = self.multiple[axis] if self.multiple else min(patch & -patch, 32)
            whole = -(-size // unit) * unit
            sizes.append(max(patch, whole) if size <= patch * _LITTLE_LARGER else patch)
        return sizes[0], sizes[1], sizes[2]

    def starts(self, shape: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
        """First voxel of each window along i, j, k; negative where the window is larger than the volume."""
        i, j, k = (_starts(size, window, self.overlap) for size, window in zip(shape, self.window(shape), strict=True))
        return i, j, k


def _triple(values: Sequence[int]) -> Triple:
    i, j, k = (int(value) for value in values)
    return i, j, k


def _starts(size: int, window: int, overlap: float) -> list[int]:
    if size <= window:
        return [-((window - size) // 2)]
    count = int(np.ceil((size - window) / max(window * (1.0 - overlap), 1.0))) + 1
    return [int(start) for start in np.rint(np.linspace(0, size - window, count))]


def predict_labels(
    prepared: Prepared,
    run: Run,
    sliding: Sliding,
    values: Sequence[int],
    *,
    batch: int | None = None,
) -> Array:
    """The strongest class of every voxel of the input's own grid.

    Args:
        prepared: the case, as `imaging.prepare` gives it.
        run: logits (n, classes, i, j, k) of windows (n, channels, i, j, k), float32.
        sliding: how windows are laid.
        values: label value of each class after background.
        batch: how many windows every run must take; as many as fit if left out.

    Returns:
        (i, j, k) uint8, or uint16 where a value is above 255, on `prepared.source` in its index order.

    Raises:
        BundleError: the network gives another number of classes than the card.
    """
    shape = prepared.grid.shape
    window = sliding.window(shape)
    axis = int(np.argmax([size / edge for size, edge in zip(shape, window, strict=True)]))
    writer = LabelWriter(prepared.grid, prepared.source, values, axis)
    for planes in probability_planes(prepared.array, run, sliding, axis, 1 + len(values), batch=batch):
        writer.add(planes)
    return writer.labels()


def probability_planes(
    array: Float32, run: Run, sliding: Sliding, axis: int, classes: int, *, batch: int | None = None
) -> Iterator[Float32]:
    """Class probabilities of a prepared volume, as blocks of finished planes along one axis.

    Args:
        array: (channels, i, j, k) float32.
        run: as in `predict_labels`.
        sliding: how windows are laid.
        axis: the axis (0..2) along which the blocks follow one another; the slab is held along it.
        classes: number of classes, background included.
        batch: how many windows every run must take.

    Yields:
        (classes, planes, ...) float32 with `axis` moved to the front of the spatial axes; all blocks
        together are the volume.
    """
    shape: Triple = (array.shape[1], array.shape[2], array.shape[3])
    window, starts = sliding.window(shape), sliding.starts(shape)
    others = [other for other in range(3) if other != axis]
    weights = [_importance(edge, len(first)) for edge, first in zip(window, starts, strict=True)]
    totals = [_total(size, weight, first) for size, weight, first in zip(shape, weights, starts, strict=True)]
    total = totals[others[0]][:, None] * totals[others[1]]
    rows = min(window[axis], shape[axis])
    slab = np.zeros((classes, rows, *(shape[other] for other in others)), np.float32)
    corners = list(itertools.product(*(starts[other] for other in others)))
    for number, first in enumerate(starts[axis]):
        tiles = [_place(first, corner, axis) for corner in corners]
        base = max(first, 0)
        for start, answer in _answers(array, run, tiles, window, sliding.mirror_axes, classes, batch):
            _add(slab, answer, start, base, weights, axis)
        last = number + 1 == len(starts[axis])
        finished = rows if last else starts[axis][number + 1] - base
        slab[:, :finished] /= totals[axis][base : base + finished, None, None] * total
        step = max(1, _BLOCK_BYTES // slab[:, 0].nbytes)
        for row in range(0, finished, step):
            yield slab[:, row : min(row + step, finished)]
        slab[:, : rows - finished] = slab[:, finished:].copy()
        slab[:, rows - finished :] = 0.0


def _importance(edge: int, windows: int) -> FloatArray:
    """A window's weight along one axis: a Gaussian of an eighth of its length; flat if it is the only one."""
    if windows == 1:
        return np.ones(edge)
    place = (np.arange(edge) - (edge - 1) / 2) / (edge / 8)
    weight: FloatArray = np.maximum(np.exp(-0.5 * place**2), 1e-3)
    return weight


def _total(size: int, weight: FloatArray, starts: Sequence[int]) -> Float32:
    """Sum of all windows' weights along one axis: windows lie on a lattice, so the axes' sums multiply."""
    total = np.zeros(size)
    for start in starts:
        low, high = max(start, 0), min(start + len(weight), size)
        total[low:high] += weight[low - start : high - start]
    return total.astype(np.float32)


def _place(first: int, corner: tuple[int, ...], axis: int) -> Triple:
    place = [*corner]
    place.insert(axis, first)
    return place[0], place[1], place[2]


def _answers(
    array: Float32,
    run: Run,
    tiles: Sequence[Triple],
    window: Triple,
    mirror_axes: tuple[int, ...],
    classes: int,
    batch: int | None,
) -> Iterator[tuple[Triple, Float32]]:
    """Each window's first voxel and its probabilities (classes, i, j, k), averaged over mirrored views."""
    views = [
        tuple(axis for axis, turned in zip(mirror_axes, choice, strict=True) if turned)
        for choice in itertools.product((False, True), repeat=len(mirror_axes))
    ]
    together = batch or max(1, _BATCH_VOXELS // int(np.prod(window)))
    work = [(tile, view) for tile in tiles for view in views]
    mean: Float32 | None = None
    for first in range(0, len(work), together):
        part = work[first : first + together]
        given = np.empty((batch or len(part), len(array), *window), np.float32)
        for slot in range(len(given)):
            tile, view = part[min(slot, len(part) - 1)]  # a fixed batch is filled up with repeats
            given[slot] = _mirror(_cut(array, tile, window), view)
        logits = run(given)
        if logits.shape[1] != classes:
            raise BundleError(
                f"The network gives {logits.shape[1]} classes; its card names {classes} with background.",
                remedy="Fit the model again.",
            )
        for (tile, view), answer in zip(part, logits, strict=False):
            share = _mirror(_softmax(answer), view)
            mean = share if mean is None else mean + share
            if view == views[-1]:
                yield tile, mean / np.float32(len(views)) if len(views) > 1 else mean
                mean = None


def _cut(array: Float32, start: Triple, window: Triple) -> Float32:
    """One window (channels, i, j, k); beyond the volume its outermost voxels are repeated."""
    low = [max(first, 0) for first in start]
    high = [min(first + edge, size) for first, edge, size in zip(start, window, array.shape[1:], strict=True)]
    inner = array[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    if inner.shape[1:] == window:
        return inner
    before = [a - first for a, first in zip(low, start, strict=True)]
    after = [first + edge - b for b, first, edge in zip(high, start, window, strict=True)]
    return np.pad(inner, [(0, 0), *zip(before, after, strict=True)], mode="edge")


def _mirror(array: Float32, axes: tuple[int, ...]) -> Float32:
    return np.flip(array, tuple(1 + axis for axis in axes)) if axes else array


def _softmax(logits: Float32) -> Float32:
    """Probabilities over the first axis."""
    share: Float32 = np.subtract(logits, logits.max(axis=0), dtype=np.float32)
    np.exp(share, out=share)
    share /= share.sum(axis=0)
    return share


def _add(slab: Float32, answer: Float32, start: Triple, base: int, weights: Sequence[FloatArray], axis: int) -> None:
    """Add one window's weighted probabilities to the slab that begins at plane `base`."""
    order = [axis, *(other for other in range(3) if other != axis)]
    answer = np.transpose(answer, (0, *(1 + axis for axis in order)))
    inner, outer, scale = [], [], np.ones((), np.float32)
    for place, spatial in enumerate(order):
        origin = base if place == 0 else 0
        low = max(start[spatial], origin)
        high = min(start[spatial] + answer.shape[1 + place], origin + slab.shape[1 + place])
        inner.append(slice(low - start[spatial], high - start[spatial]))
        outer.append(slice(low - origin, high - origin))
        scale = scale[..., None] * weights[spatial][inner[-1]].astype(np.float32)
    slab[:, outer[0], outer[1], outer[2]] += answer[:, inner[0], inner[1], inner[2]] * scale


def peak_memory_mb(
    shape: Sequence[int],
    classes: int,
    *,
    prepared: Sequence[int] | None = None,
    channels: int = 1,
    window: Sequence[int] = (128, 128, 128),
    batch: int | None = None,
) -> float:
    """Upper bound on this process's memory for one prediction (MB of 2**20 bytes).

    Counted are: the source as read and as float32, the prepared volume, one slab of probabilities, the
    blocks on their way back to the source grid, the label map, and 1 kB per voxel of a run for the network
    (a full-resolution width of 32 channels).

    Args:
        shape: voxels of the source.
        classes: number of classes, background included.
        prepared: voxels of the prepared volume; those of the source if left out.
        channels: channels of all inputs.
        window: the network's window.
        batch: windows that every run must take.
    """
    prepared = shape if prepared is None else prepared
    source, volume = _product(shape), _product(prepared)
    held = [min(edge, size) for edge, size in zip(window, prepared, strict=True)]
    axis = int(np.argmax([size / edge for size, edge in zip(prepared, window, strict=True)]))
    plane = volume // prepared[axis]
    reading = 4 * channels * (2 * source + 2 * volume)
    slab = 4 * classes * held[axis] * plane * 2
    blocks = 4 * _BLOCK_BYTES + 4 * 4 * classes * plane
    run = max(_BATCH_VOXELS, _product(window) * (batch or 1))
    working = 4 * channels * volume + slab + blocks + 2 * source + _NETWORK_BYTES * run
    return _START_MB + max(reading, working) / 2**20


def _product(sizes: Sequence[int]) -> int:
    return int(np.prod([int(size) for size in sizes], dtype=np.int64))
