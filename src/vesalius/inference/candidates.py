"""From heat-maps to candidates: local maxima, their sizes, and of those that overlap the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vesalius.core.grid import Array
from vesalius.imaging.resample import Float32

MOST = 40  # candidates kept per image and class before they are judged
_LEAST = 1e-3  # heat below this is no candidate
_SMOOTH = 0.7  # sigma, heat voxels
_APART = 0.5  # of two candidates nearer than this share of the larger one's half sizes, the better stays
_NEAREST = 2.0  # heat voxels within which there is only one candidate


@dataclass(frozen=True)
class Candidates:
    """Candidates of one class on one view, the best first.

    Args:
        centres, sizes: (n, 3) voxels of the view.
        heat: (n,) probability at the peak, 0..1.
    """

    centres: Array
    sizes: Array
    heat: Array

    def __len__(self) -> int:
        return len(self.heat)

    def first(self, count: int) -> Candidates:
        """The best of them."""
        return Candidates(self.centres[:count], self.sizes[:count], self.heat[:count])


def candidates(heat: Float32, log_sizes: Float32, stride: tuple[int, ...]) -> Candidates:
    """Local maxima of one class's heat, overlapping ones left out.

    Args:
        heat: (i, j, k) probabilities.
        log_sizes: (2 or 3, i, j, k) logarithms of sizes in voxels of the view; the third is 0 on planes.
        stride: voxels of the view per voxel of heat, along each axis.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(heat, [0.0 if size == 1 else _SMOOTH for size in heat.shape])
    window = [1 if size == 1 else 3 for size in heat.shape]
    peaks = np.argwhere((smooth >= ndimage.maximum_filter(smooth, window)) & (smooth > _LEAST))
    values = smooth[tuple(peaks.T)]
    order = np.argsort(-values, kind="stable")[: 20 * MOST]
    peaks, values = peaks[order], values[order]
    lengths = np.zeros((len(peaks), 3))
    lengths[:, : len(log_sizes)] = log_sizes[(slice(None), *peaks.T)].T
    sizes = np.exp(np.clip(lengths, 0.0, 9.0))
    steps = np.array(stride, float)
    kept: list[int] = []
    for number in range(len(peaks)):
        away = np.abs(peaks[kept] - peaks[number]) * steps
        reach = np.maximum(_APART * 0.5 * np.maximum(sizes[kept], sizes[number]), _NEAREST * steps)
        if not kept or (np.square(away / reach).sum(1) >= 1.0).all():
            kept.append(number)
        if len(kept) == MOST:
            break
    centres = peaks[kept] * steps + (steps - 1) / 2
    return Candidates(centres, sizes[kept], values[kept])
