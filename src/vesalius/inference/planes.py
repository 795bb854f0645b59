"""Finished planes of probabilities, taken back to the source grid and turned into labels at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vesalius.core.errors import GeometryError
from vesalius.core.grid import Array, Grid, reorient
from vesalius.imaging.resample import Float32, Taps, apply_taps, grid_taps

_CHUNK_BYTES = 64 << 20  # one class's probabilities on the source grid that are held at once
_SURE = 0.5 + 1e-4  # background above this cannot be overtaken by any other class


class LabelWriter:
    """Labels on the source's own grid from probability planes of the prepared grid, in order.

    The inverse of the preparation: linear interpolation of every class's probability at each source voxel's
    centre, in the source's index order, then the strongest class (the lower one where two are equal).
    Interpolated probabilities are averages of their neighbours, so where background is above a half all
    around, it wins; only the box that holds everything else is interpolated, with the same result.

    Args:
        grid: prepared grid (canonical).
        source: the grid on which labels are wanted.
        values: label value of each class after background.
        axis: canonical axis (0..2) along which planes arrive.

    Raises:
        GeometryError: the two grids are turned against each other.
    """

    def __init__(self, grid: Grid, source: Grid, values: Sequence[int], axis: int) -> None:
        canonical, order, flips = source.canonical()
        taps = grid_taps(grid, canonical)
        if taps is None:
            raise GeometryError("The prepared grid does not run along the source's axes.")
        others = [other for other in range(3) if other != axis]
        self._along = taps[axis]
        self._across = (taps[others[0]], taps[others[1]])
        kind = np.uint8 if max(values, default=0) <= 255 else np.uint16
        self._values = np.array([0, *values], kind)
        self._labels = np.zeros(source.shape, kind)
        self._out = np.moveaxis(reorient(self._labels, order, flips), axis, 0)
        self._live: Float32 | None = None
        self._first = 0  # prepared plane at which `_live` begins
        self._done = 0  # source planes written
        self._reach = np.maximum.accumulate(self._along.index.max(axis=1))

    def add(self, planes: Float32) -> None:
        """Take the next planes, (classes, planes, ...) with the axis in front; they are not kept."""
        live = planes if self._live is None else np.concatenate((self._live, planes), axis=1)
        have = self._first + live.shape[1]
        ready = int(np.searchsorted(self._reach, have, side="left"))
        step = max(1, _CHUNK_BYTES // (4 * int(np.prod(self._out.shape[1:]))))
        for start in range(self._done, ready, step):
            self._write(live, start, min(start + step, ready))
        self._done = ready
        left = len(self._along.index) - ready
        keep = have if left == 0 else min(have, int(self._along.index[ready:].min()))
        self._live = live[:, keep - self._first :].copy()
        self._first = keep

    def labels(self) -> Array:
        """The finished label map, (i, j, k) in the source's index order."""
        if self._done != len(self._along.index):
            raise RuntimeError("labels were asked for before the last plane arrived")
        return self._labels

    def _write(self, live: Float32, start: int, stop: int) -> None:
        """Labels of the source planes from `start` up to `stop`."""
        taps = self._along.rows(start, stop)
        low, high = int(taps.index.min()), int(taps.index.max()) + 1
        part = live[:, low - self._first : high - self._first]
        unsure = (part[0] < _SURE).any(axis=0)
        if not unsure.any():
            return
        boxes = [_touched(tap, unsure.any(axis=1 - side)) for side, tap in enumerate(self._across)]
        if any(first == last for first, last in boxes):
            return
        out = self._out[start:stop, slice(*boxes[0]), slice(*boxes[1])]
        rows = [tap.rows(*box) for tap, box in zip(self._across, boxes, strict=True)]
        lows = [int(tap.index.min()) for tap in rows]
        part = part[:, :, lows[0] : rows[0].index.max() + 1, lows[1] : rows[1].index.max() + 1]
        steps = (taps.shifted(low), rows[0].shifted(lows[0]), rows[1].shifted(lows[1]))
        best = _interpolate(part[0], steps)
        winner = np.zeros(best.shape, np.uint16)
        for number in range(1, len(part)):
            share = _interpolate(part[number], steps)
            winner[share > best] = number
            best = np.maximum(best, share)
        out[...] = self._values[winner]


def _touched(taps: Taps, wanted: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """First and one past the last target voxel that is made from any wanted source voxel."""
    hit = np.flatnonzero(wanted[taps.index].any(axis=1))
    return (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, 0)


def _interpolate(planes: Float32, steps: tuple[Taps, ...]) -> Float32:
    """One class on the source grid; axes that shrink go first."""
    order = sorted(range(3), key=lambda axis: len(steps[axis].index) / planes.shape[axis])
    for axis in order:
        if not (steps[axis].identity and planes.shape[axis] == len(steps[axis].index)):
            planes = apply_taps(planes, axis, steps[axis])
    return planes
