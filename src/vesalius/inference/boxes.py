"""Outlining inside boxes that a finder laid into a larger scan, turned or mirrored as they may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.core.grid import Array, Grid
from vesalius.imaging.prepare import Preparation, normalise
from vesalius.imaging.resample import Float32, resample
from vesalius.inference.sliding import Run, Sliding, probability_planes

_MARGIN = 6  # source voxels around a box that its interpolation may look at

Block = tuple[slice, slice, slice]


def predict_box(
    array: Array,
    grid: Grid,
    box: Grid,
    preparation: Preparation,
    run: Run,
    sliding: Sliding,
    values: Sequence[int],
    *,
    batch: int | None = None,
) -> tuple[Block, Array]:
    """Outline one box of a scan, on the scan's own grid.

    The scan is interpolated onto the box (cubic), the network sees the box in its own index order, mirrored
    if the box is, and every class's probability is interpolated back (linear) before the strongest wins.

    Args:
        array: (i, j, k) intensities on `grid`, in its index order.
        grid: the scan's own grid.
        box: where the network shall look: its spacing is what the network was trained on, its axes may be
            turned, and a negative determinant mirrors.
        preparation: the card's preparation, with one input; its spacing is not applied again.
        run, sliding, values, batch: as in `predict_labels`.

    Returns:
        The block of `grid` that holds the box, and its labels (i, j, k), uint8 or uint16.
    """
    wide = _block(grid, box, _MARGIN)
    seen = resample(array[wide], _part(grid, wide), box, order=3)
    prepared = normalise(seen[None], preparation.normalisation[0])
    planes = probability_planes(prepared, run, sliding, 0, 1 + len(values), batch=batch)
    shares: Float32 = np.concatenate([block.copy() for block in planes], axis=1)
    block = _block(grid, box, 1)
    on_scan = resample(shares[1:], box, _part(grid, block), order=1, fill=0.0)
    background = 1.0 - on_scan.sum(axis=0)
    winner = np.argmax(np.concatenate((background[None], on_scan)), axis=0)
    kind = np.uint8 if max(values) <= 255 else np.uint16
    return block, np.array([0, *values], kind)[winner]


def _block(grid: Grid, box: Grid, margin: int) -> Block:
    """The part of `grid` around all corners of `box`; never empty."""
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]) * np.asarray(box.shape) - 0.5
    index = grid.to_index(box.to_patient(corners))
    sizes = np.asarray(grid.shape)
    low = np.clip(np.floor(index.min(axis=0)).astype(int) - margin, 0, sizes - 1)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + margin + 1, low + 1, sizes)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k


def _part(grid: Grid, block: Block) -> Grid:
    return grid.cropped([side.start for side in block], [side.stop for side in block])
