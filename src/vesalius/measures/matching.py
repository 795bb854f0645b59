"""Which candidates hit which lesions, under which criterion.

The rule, for each image and class on its own. Candidates are taken by falling score. Each lesion is found
once, by the first candidate that meets the criterion for it; where one candidate meets it for several
lesions, it finds the best met of those not found yet. What a later candidate on a lesion that was found
already counts as depends on the measure: nothing in the free-response curve (a reader who marks a lesion twice
has not raised a false alarm: Setio et al., Med Image Anal 2017), a false alarm in average precision
(Everingham et al., Int J Comput Vis 2010; Lin et al., ECCV 2014). Every other candidate is a false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vesalius.core.finding import Box
from vesalius.core.grid import Grid

FloatArray = npt.NDArray[np.float64]

LEAST_SHARE = 0.01  # half the width of the smallest target for a centre, as a share of the image's longest side
FALSE_ALARM = 0


def match(agreement: FloatArray, least: float) -> list[int]:
    """What each candidate hits.

    Args:
        agreement: (candidates by falling score, lesions) how well each candidate meets the criterion.
        least: agreement that counts as met.

    Returns:
        For each candidate the number of the lesion that it finds (from 1), minus that number where an
        earlier candidate had found it, or `FALSE_ALARM`.
    """
    found: set[int] = set()
    hits = []
    for row in agreement:
        met = [int(lesion) for lesion in np.argsort(-row, kind="stable") if row[lesion] >= least]
        new = next((lesion for lesion in met if lesion not in found), None)
        if new is not None:
            found.add(new)
            hits.append(new + 1)
        else:
            hits.append(-(met[0] + 1) if met else FALSE_ALARM)
    return hits


def centre_agreement(candidates: Sequence[Box], lesions: Sequence[Box], grid: Grid) -> FloatArray:
    """(candidates, lesions) 1 at a lesion's centre, 0 at its rim, below 0 outside.

    A candidate hits where its centre lies in the ellipse (ellipsoid) that fits into the lesion's box; for a
    lesion given as a circle, that is the circle. Half axes are at least `LEAST_SHARE` of the image's longest
    side, because a smaller mark cannot be met by a reader's pointer either.
    """
    if not candidates or not lesions:
        return np.zeros((len(candidates), len(lesions)))
    axes = _axes(grid)
    spacing = np.array(grid.spacing)[axes]
    smallest = LEAST_SHARE * float(np.max(np.array(grid.shape)[axes] * spacing)) / spacing
    half = np.maximum(np.array([lesion.size for lesion in lesions])[:, axes] / 2.0, smallest)
    off = _centres(candidates, axes)[:, np.newaxis] - _centres(lesions, axes)[np.newaxis]
    result: FloatArray = 1.0 - np.linalg.norm(off / half, axis=-1)
    return result


def box_agreement(candidates: Sequence[Box], lesions: Sequence[Box], grid: Grid) -> FloatArray:
    """(candidates, lesions) intersection over union of the boxes; of areas in a plane, else of volumes."""
    if not candidates or not lesions:
        return np.zeros((len(candidates), len(lesions)))
    axes = _axes(grid)
    first, second = _centres(candidates, axes)[:, np.newaxis], _centres(lesions, axes)[np.newaxis]
    wide = np.array([box.size for box in candidates])[:, axes][:, np.newaxis]
    true = np.array([box.size for box in lesions])[:, axes][np.newaxis]
    low = np.maximum(first - wide / 2, second - true / 2)
    high = np.minimum(first + wide / 2, second + true / 2)
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    union = np.prod(wide, axis=-1) + np.prod(true, axis=-1) - shared
    result: FloatArray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def _axes(grid: Grid) -> list[int]:
    """Axes along which the image has more than one voxel; the first two where it has none."""
    return [axis for axis in range(3) if grid.shape[axis] > 1] or [0, 1]


def _centres(boxes: Sequence[Box], axes: Sequence[int]) -> FloatArray:
    return np.array([box.centre for box in boxes], dtype=np.float64)[:, list(axes)]
