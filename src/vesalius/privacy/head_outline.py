"""The outline of a head against air, whatever the contrast, and the average head laid onto it."""

from __future__ import annotations

import numpy as np

from vesalius.core.grid import Array, FloatArray
from vesalius.imaging.registration import Candidate, Samples, Search, Volume, agreement, refine, rotation
from vesalius.privacy.head_model import HeadModel

_TURNS = tuple((pitch, size) for pitch in (-30.0, -15.0, 0.0, 15.0, 30.0) for size in (0.88,))
_STARTS = 2
_ABOVE_AIR = 0.2  # of the way from air to tissue
_BLUR_MM = 3.0
_LEAST_SEEN = 0.3  # of the outline, in the field of view


def tissue_of(scan: Volume) -> Array:
    """(i, j, k) bool: the largest thing that is not air, with its holes filled.

    Args:
        scan: intensities about 2 mm apart, MR or CT (clipped at soft tissue).
    """
    import scipy.ndimage
    from skimage.filters import threshold_otsu

    values = scan.smoothed(1.5).values
    if float(np.ptp(values)) <= 0:
        return np.zeros(values.shape, bool)
    parting = float(threshold_otsu(values))  # type: ignore[no-untyped-call]
    below, above = values[values <= parting], values[values > parting]
    air, tissue = float(np.median(below)), float(np.median(above))
    noise = 1.4826 * float(np.median(np.abs(below - air)))
    found = values > min(max(air + _ABOVE_AIR * (tissue - air), air + 4.0 * noise), parting)
    found = _filled(_closed(found, _element(scan)))
    found = scipy.ndimage.binary_opening(found, _element(scan))
    pieces, count = scipy.ndimage.label(found)
    if count > 1:
        found = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.asarray(found)


def _element(scan: Volume) -> Array:
    """A voxel and its neighbours, but not along an axis of thick slices."""
    element = np.zeros((3, 3, 3), bool)
    for axis in np.flatnonzero(np.asarray(scan.grid.spacing) <= 3.5):
        element[tuple(slice(None) if other == axis else 1 for other in range(3))] = True
    element[1, 1, 1] = True
    return element


def _closed(found: Array, element: Array) -> Array:
    """Scalp is thin: gaps in it are closed before anything is opened."""
    import scipy.ndimage

    padded = np.pad(found, 2, mode="edge")
    return np.asarray(scipy.ndimage.binary_closing(padded, element)[2:-2, 2:-2, 2:-2])


def _filled(found: Array) -> Array:
    """Holes filled in space and in axial slices, since a skull is open where the field of view ends."""
    import scipy.ndimage

    within = scipy.ndimage.generate_binary_structure(2, 1)[:, :, None]
    return np.asarray(scipy.ndimage.binary_fill_holes(scipy.ndimage.binary_fill_holes(found, within)))


def lay_head(tissue: Volume, model: HeadModel) -> Candidate:
    """The pose (model to patient mm, affine) at which the average head explains most of an outline, and how much.

    Args:
        tissue: 1 in the head, 0 in air.
        model: the average head.
    """
    search = Search(tissue, model.outline, model.counts, least_overlap=0.4)
    starts = search.over([rotation(pitch, 0.0, 0.0) * size for pitch, size in _TURNS])[:_STARTS]
    soft = tissue.smoothed(_BLUR_MM)
    samples = Samples.of(model.outline.smoothed(_BLUR_MM), model.counts, 8.0, shading=False)
    poses = (refine(_seen(samples, soft, start.pose), soft, start.pose, "similarity", 20) for start in starts)
    best = max(poses, key=lambda found: found.score)
    pose = refine(_seen(samples, soft, best.pose), soft, best.pose, "affine", 30).pose
    seen = _seen(samples, soft, pose)
    enough = len(seen.points) >= _LEAST_SEEN * len(samples.points)
    return Candidate(pose, agreement(seen, soft, pose)[0] if enough else 0.0)


def _seen(samples: Samples, scan: Volume, pose: FloatArray) -> Samples:
    """The samples well inside the field of view, so that no pose is better for holding more of them in it."""
    inside = scan.seen(samples.points @ pose[:3, :3].T + pose[:3, 3])[0] >= 1.0
    return Samples(samples.points[inside], samples.basis[inside], samples.weights[inside]) if inside.any() else samples
