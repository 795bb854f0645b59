"""How far two masks agree in their voxels.

Empty masks follow the reference implementation of Metrics Reloaded (Maier-Hein, Reinke et al., Nature
Methods 2024): where truth and prediction are both empty the agreement is perfect (1), where one is empty it
is 0. Every case then has a value for every arm, so that arms can be compared in pairs and no arm gains by
staying silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of two masks, from which the overlap measures follow.

    Args:
        truth: voxels of the true mask.
        predicted: voxels of the predicted mask.
        shared: voxels in both.
    """

    truth: int
    predicted: int
    shared: int

    @property
    def dice(self) -> float:
        """Dice similarity coefficient (Dice, Ecology 1945), 0 to 1; 1 where both masks are empty."""
        total = self.truth + self.predicted
        return 2.0 * self.shared / total if total else 1.0

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard 1912), 0 to 1; 1 where both masks are empty."""
        union = self.truth + self.predicted - self.shared
        return self.shared / union if union else 1.0

    def size(self, voxel: float) -> float:
        """Size of the predicted mask, in the unit of one voxel's size."""
        return self.predicted * voxel

    def size_error(self, voxel: float) -> float:
        """Predicted minus true size, in the unit of one voxel's size: above 0 where too much is outlined."""
        return (self.predicted - self.truth) * voxel


def overlap(truth: BoolArray, predicted: BoolArray) -> Overlap:
    """Count the voxels of two masks of one shape.

    Voxels to be left out are cleared in both masks by the caller.

    Raises:
        ValueError: the masks have different shapes.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"masks of shapes {truth.shape} and {predicted.shape} cannot be compared")
    shared = np.count_nonzero(truth & predicted)
    return Overlap(int(np.count_nonzero(truth)), int(np.count_nonzero(predicted)), int(shared))
