"""From heat-maps to candidates: local maxima, their sizes, and of those that overlap the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vesalius.core.grid import Array
from vesalius.imaging.resample import Float32

_MOST = 40  # candidates kept per image and class before they are judged, and twice as many as will be findings
_LEAST = 1e-3  # heat below this is no candidate
_SMOOTH = 0.7  # sigma, heat voxels
_APART = 0.5  # of two candidates nearer than this share of the larger one's half sizes, the better stays
_CLUSTERS = 10  # clusters of points per image that are candidates whatever the heat
_TISSUE = 0.6  # body above this is no muscle
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


def with_points(
    found: Candidates, view: Array, heat: Float32, log_sizes: Float32, stride: tuple[int, ...]
) -> Candidates:
    """The candidates, and the clearest clusters of points that are none yet.

    A network needs many examples to learn what a few points mean; a second look judges them from few.

    Args:
        found: candidates of one class.
        view: (depth, i, j, k) as `imaging.contrast.view` gives it.
        heat, log_sizes, stride: as for `candidates`.
    """
    from scipy import ndimage

    clusters = np.asarray(view[-2], np.float32) * (np.asarray(view[-1], np.float32) > _TISSUE)
    window = [1 if size == 1 else 9 for size in clusters.shape]
    peaks = np.argwhere((clusters >= ndimage.maximum_filter(clusters, window)) & (clusters > 0.0))
    order = np.argsort(-clusters[tuple(peaks.T)], kind="stable")[:_CLUSTERS]
    steps, centres = np.array(stride, float), peaks[order].astype(float)
    taken = np.array([
        bool((np.square((found.centres - place) / (_NEAREST * steps)).sum(1) < 1.0).any()) for place in centres
    ], bool)  # fmt: skip
    centres = centres[~taken]
    if not len(centres):
        return found
    at = np.minimum(np.rint((centres + 0.5) / steps - 0.5), np.array(heat.shape) - 1).astype(int)
    lengths = np.zeros((len(at), 3))
    lengths[:, : len(log_sizes)] = log_sizes[(slice(None), *at.T)].T
    sizes = np.exp(np.clip(lengths, 0.0, 9.0))
    every = Candidates(
        np.concatenate([found.centres, centres]), np.concatenate([found.sizes, sizes]),
        np.concatenate([found.heat, heat[tuple(at.T)]]),
    )  # fmt: skip
    best = np.argsort(-every.heat, kind="stable")
    return Candidates(every.centres[best], every.sizes[best], every.heat[best])


def candidates(heat: Float32, log_sizes: Float32, stride: tuple[int, ...], most: int = 10) -> Candidates:
    """Local maxima of one class's heat, overlapping ones left out.

    Args:
        heat: (i, j, k) probabilities.
        log_sizes: (2 or 3, i, j, k) logarithms of sizes in voxels of the view; the third is 0 on planes.
        stride: voxels of the view per voxel of heat, along each axis.
        most: as many of them will be findings; more are kept to be judged.
    """
    from scipy import ndimage

    kept_at_most = max(_MOST, 2 * most)

    smooth = ndimage.gaussian_filter(heat, [0.0 if size == 1 else _SMOOTH for size in heat.shape])
    window = [1 if size == 1 else 3 for size in heat.shape]
    peaks = np.argwhere((smooth >= ndimage.maximum_filter(smooth, window)) & (smooth > _LEAST))
    values = smooth[tuple(peaks.T)]
    order = np.argsort(-values, kind="stable")[: 20 * kept_at_most]
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
        if len(kept) == kept_at_most:
            break
    centres = peaks[kept] * steps + (steps - 1) / 2
    return Candidates(centres, sizes[kept], values[kept])
