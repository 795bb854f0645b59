"""Heat-maps of a whole view from a network that sees one tile at a time, in bounded memory.

Tiles overlap by a margin of which nothing is kept, so that every place is answered with what surrounds it.
What is held per run is bounded by the tile, whatever the size of the view.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.core.grid import Array
from vesalius.imaging.resample import Float32

# (n, depth, i, j, k) to heat logits (n, classes, i', j', k') and log sizes (n, 2 or 3, i', j', k')
RunHeat = Callable[[Float32], tuple[Float32, Float32]]

_TILE = {True: (1024, 1024, 1), False: (128, 128, 128)}  # voxels of a tile, its margins left out
_MARGIN = 48  # voxels around a tile


@dataclass(frozen=True)
class HeatGeometry:
    """How a detector's answer relates to its view: part of the card's `network`.

    Args:
        stride: voxels of the view per voxel of heat, along each axis.
        multiple: sizes of what the network takes are multiples of these.
        mirror_axes: spatial axes (0..2) whose mirrored answers are averaged in.
    """

    stride: tuple[int, int, int]
    multiple: tuple[int, int, int]
    mirror_axes: tuple[int, ...] = ()


def heat_map(array: Array, run: RunHeat, geometry: HeatGeometry) -> tuple[Float32, Float32]:
    """Heat and log sizes of a whole view.

    Args:
        array: (depth, i, j, k), any float type; numpy or memory-mapped.
        run: the network.
        geometry: its strides.

    Returns:
        Probabilities (classes, i', j', k') and log sizes (2 or 3, i', j', k'), i' = ceil(i / stride).
    """
    shape = array.shape[1:]
    planar = shape[2] == 1
    edge = [max(m, t // m * m) for t, m in zip(_TILE[planar], geometry.multiple, strict=True)]
    margin = [0 if size == 1 else -(-_MARGIN // m) * m for size, m in zip(shape, geometry.multiple, strict=True)]
    starts = [range(0, size, step) for size, step in zip(shape, edge, strict=True)]
    small = [-(-size // step) for size, step in zip(shape, geometry.stride, strict=True)]
    heat: Float32 | None = None
    sizes: Float32 | None = None
    for start in itertools.product(*starts):
        low = [max(0, first - wide) for first, wide in zip(start, margin, strict=True)]
        high = [
            min(-(-size // m) * m, first + step + wide)
            for first, size, step, wide, m in zip(start, shape, edge, margin, geometry.multiple, strict=True)
        ]
        tile_heat, tile_sizes = _mirrored(_cut(array, low, high), run, geometry)
        if heat is None or sizes is None:
            heat = np.zeros((len(tile_heat), *small), np.float32)
            sizes = np.zeros((len(tile_sizes), *small), np.float32)
        to, source = [slice(None)], [slice(None)]
        for axis, step in enumerate(geometry.stride):
            first = start[axis] // step
            count = min(small[axis] - first, edge[axis] // step)
            skip = (start[axis] - low[axis]) // step
            to.append(slice(first, first + count))
            source.append(slice(skip, skip + count))
        heat[tuple(to)] = tile_heat[tuple(source)]
        sizes[tuple(to)] = tile_sizes[tuple(source)]
    assert heat is not None and sizes is not None
    return heat, sizes


def _cut(array: Array, low: Sequence[int], high: Sequence[int]) -> Float32:
    """Part of a view; beyond it the outermost voxels are repeated."""
    shape = array.shape[1:]
    inner = array[(slice(None), *(slice(max(0, a), min(b, n)) for a, b, n in zip(low, high, shape, strict=True)))]
    pad = [(max(0, -a), max(0, b - n)) for a, b, n in zip(low, high, shape, strict=True)]
    values = np.asarray(inner).astype(np.float32)
    return np.pad(values, [(0, 0), *pad], mode="edge") if any(map(any, pad)) else values


def _mirrored(tile: Float32, run: RunHeat, geometry: HeatGeometry) -> tuple[Float32, Float32]:
    """Mean answer over the tile and its mirror images."""
    views: list[tuple[int, ...]] = [(), *((axis,) for axis in geometry.mirror_axes)]
    heat: Float32 | None = None
    sizes: Float32 | None = None
    for axes in views:
        turned = tuple(1 + axis for axis in axes)
        given = np.flip(tile, turned) if turned else tile
        logits, logs = run(np.ascontiguousarray(given[None]))
        share = 1.0 / (1.0 + np.exp(-np.clip(logits[0], -30, 30)))
        share, log = (np.flip(item, turned) if turned else item for item in (share, logs[0]))
        heat = share if heat is None else heat + share
        sizes = log if sizes is None else sizes + log
    assert heat is not None and sizes is not None
    return (heat / len(views)).astype(np.float32), (sizes / len(views)).astype(np.float32)
