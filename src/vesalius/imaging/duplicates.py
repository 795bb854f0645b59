"""Images that show the same thing: a hash that survives what copying does to them.

The image is averaged down to a small cube or square, its intensities are replaced by their ranks, and the
signs of the lowest 512 coefficients of the discrete cosine transform are kept (a perceptual hash after
Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, with ranks for
robustness to rescaling and in three dimensions). Copies differ in few bits, different patients in many.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vesalius.core.grid import Array, FloatArray

BITS = 512

MAX_BITS = {1: 84, 2: 112, 3: 84}
"""Most bits by which two images may differ and still count as near-duplicates, by number of axes.

Measured in three dimensions: 208 hippocampus crops of different patients differ by 106 bits at least, whole
heads by 115. The same crop with 10 % noise differs by at most 9 bits, resampled to 1.4 mm by 24, with a
plane cut off by 50 (72 with a plane cut off on every side). In two: 1500 chest radiographs differ by 139
bits at least. Of 162 pairs of breast ultrasound images (BUSI) known to be copies or neighbours, 143 differ
by 112 or less; another 24 found so were, by eye, pictures of one lesion too.
"""

_EDGES = {1: 1024, 2: 32, 3: 16}  # voxels along each axis of the reduced image, by number of axes
_BLOCK = 2048  # images compared at once with as many others


def perceptual_hash(array: Array) -> bytes:
    """A hash that near-duplicates share but for a few bits: 65 bytes, the first one the number of axes.

    Memory beyond the array itself is that of one of its planes.

    Args:
        array: (i, j, k) or (channels, i, j, k) in canonical orientation (`Grid.canonical`, `reorient`), any
            numeric type; channels are averaged. Axes with one voxel are ignored: a radiograph has two.
    """
    small = _reduced(array if array.ndim == 4 else array[None])
    ranks = _ranks(small)
    from scipy import fft

    coefficients = fft.dctn(ranks - ranks.mean(), norm="ortho")
    index = np.indices(coefficients.shape).reshape(coefficients.ndim, -1)
    rising = np.lexsort((*index, (index**2).sum(axis=0)))[1 : 1 + BITS]  # lowest frequencies, without the mean
    bits = np.packbits(coefficients.reshape(-1)[rising] > 1e-9)
    return bytes([small.ndim]) + bits.tobytes()


def near_duplicates(hashes: Mapping[str, bytes], max_bits: int | None = None) -> list[tuple[str, str]]:
    """Pairs of names whose images are near-duplicates, each pair and the list sorted.

    All pairs are compared, by matrix products over blocks: some ten seconds for thirty thousand images on
    one core, in 30 MB besides the hashes.

    Args:
        hashes: `perceptual_hash` by name. Images with different numbers of axes are never joined, nor are blank
            ones (of one intensity), which have nothing that could be alike.
        max_bits: most bits that may differ; `MAX_BITS` of their number of axes if left out.
    """
    pairs = []
    told = {name: value for name, value in hashes.items() if any(value[1:])}
    for kind in sorted({value[:1] for value in told.values()}):
        names = sorted(name for name, value in told.items() if value[:1] == kind)
        limit = MAX_BITS[kind[0]] if max_bits is None else max_bits
        packed = np.stack([np.frombuffer(hashes[name][1:], np.uint8) for name in names])
        for first in range(0, len(names), _BLOCK):
            left = _signs(packed[first : first + _BLOCK])
            for second in range(first, len(names), _BLOCK):
                right = _signs(packed[second : second + _BLOCK])
                agreeing = left @ right.T  # bits alike minus bits that differ
                found = np.argwhere(agreeing >= left.shape[1] - 2 * limit)
                pairs += [(names[first + a], names[second + b]) for a, b in found if first + a < second + b]
    return sorted(pairs)


def _signs(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def _reduced(array: Array) -> FloatArray:
    """The mean over channels, averaged down to a small cube, square or line over the whole extent."""
    long = [axis for axis in range(1, 4) if array.shape[axis] > 1]
    volume = np.moveaxis(array, 0, -1).reshape(*(array.shape[axis] for axis in long or [3]), array.shape[0])
    edge = _EDGES[volume.ndim - 1]
    weights = [_boxes(size, edge) for size in volume.shape[:-1]]
    small = np.zeros((edge,) * len(weights))
    for number, plane in enumerate(volume):
        flat = np.nan_to_num(plane.astype(np.float64), posinf=0.0, neginf=0.0).mean(axis=-1)
        for axis, weight in enumerate(weights[1:]):
            flat = np.moveaxis(np.tensordot(weight, flat, axes=(1, axis)), 0, axis)
        for row in np.flatnonzero(weights[0][:, number]):
            small[row] += weights[0][row, number] * flat
    return small


def _boxes(size: int, edge: int) -> FloatArray:
    """(edge, size) weights that average an axis over `edge` equal stretches; voxels are shared out exactly."""
    bounds = np.linspace(0, size, edge + 1)
    voxels = np.arange(size)
    upper = np.minimum(bounds[1:, None], voxels + 1)
    lower = np.maximum(bounds[:-1, None], voxels)
    share: FloatArray = np.maximum(upper - lower, 0.0) * (edge / size)
    return share


def _ranks(small: FloatArray) -> FloatArray:
    """Intensities replaced by their ranks; values equal to six digits of the range share one."""
    from scipy.stats import rankdata

    span = float(np.ptp(small)) or 1.0
    ranks: FloatArray = rankdata(np.round((small - small.min()) / span, 6).reshape(-1)).reshape(small.shape)
    return ranks
