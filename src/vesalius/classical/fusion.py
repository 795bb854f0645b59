"""Votes of registered atlases, voxel by voxel, weighted by how alike atlas and target look around it.

Each atlas votes not only with the voxel that registration put in place but also with that voxel's
neighbours, so that a registration that is off by a voxel still finds its match (non-local label fusion:
Coupé et al., NeuroImage 2011; Rousseau et al., IEEE TMI 2011).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from vesalius.classical.frame import Float32, Frame

_LEAST = 60.0  # exponent beyond which a weight no longer counts; exp(-60) is still a normal float32


class Ballot:
    """Votes for one target; memory is one number per class and voxel, whatever the number of atlases.

    Args:
        target: (channels, i, j, k) intensities of the target, by `local_contrast`.
        frame: where its voxels stand.
        classes: number of classes without background.
        sharpness: how fast a weight falls with the mean squared difference of intensities over 3^d voxels.
        reach: how many voxels away, along each axis, an atlas's votes are looked for.
    """

    def __init__(self, target: Float32, frame: Frame, classes: int, sharpness: float, reach: int) -> None:
        self.target = target.reshape(len(target), *frame.shape)
        self.sharpness = sharpness
        self.reach = reach
        self.votes = np.zeros((classes, *frame.shape), np.float32)
        self.weights = np.zeros(frame.shape, np.float32)

    def cast(self, moved: Float32, shares: Float32, known: Float32) -> None:
        """Add one atlas's votes.

        Args:
            moved: (channels, ...) the atlas's intensities at the target's voxels, by `local_contrast`.
            shares: (classes, ...) its share of each class there.
            known: (...) 0 where the atlas has nothing to say.
        """
        from scipy import ndimage

        shape = self.target.shape[1:]
        moved, shares, known = (array.reshape(-1, *shape) for array in (moved, shares, known))
        for here, there in self._offsets():
            difference = np.zeros(shape, np.float32)
            for still, other in zip(self.target, moved, strict=True):
                difference[here] += (still[here] - other[there]) ** 2
            difference /= len(self.target)
            local = ndimage.uniform_filter(difference, 3)
            weight = np.exp(-np.minimum(self.sharpness * local[here], _LEAST)) * known[0][there]
            self.weights[here] += weight
            for vote, share in zip(self.votes, shares, strict=True):
                vote[here] += weight * share[there]

    def _offsets(self) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Where in the target, and where in the atlas, for every offset within reach; edges are cut off."""
        shape = self.weights.shape
        reach = [min(self.reach, size - 1) for size in shape]
        for offset in product(*(range(-far, far + 1) for far in reach)):
            ends = list(zip(offset, shape, strict=True))
            here = tuple(slice(max(0, -step), size - max(0, step)) for step, size in ends)
            there = tuple(slice(max(0, step), size - max(0, -step)) for step, size in ends)
            yield here, there

    @property
    def shares(self) -> Float32:
        """(classes, ...) share of the votes for each class; 0 where nobody voted."""
        return np.asarray(self.votes / np.maximum(self.weights, 1e-30))
