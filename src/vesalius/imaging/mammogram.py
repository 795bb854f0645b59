"""Where the breast lies on a mammogram: labels and tape left out, pectoral muscle found, orientation named.

Everything is decided on a copy of about 256 pixels along its longer side and handed back at the source's own
size, so that a film of 50 megapixels costs no more than a small one. The breast is the largest bright region
that stays connected after opening (tape and labels do not); the muscle is cut off by the straight line with
the strongest step from bright to dark in the upper corner at the chest wall (after Karssemeijer, Physics in
Medicine and Biology 43:365, 1998, who finds the line by a Hough transform).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesalius.core.grid import Array
from vesalius.imaging.resample import Float32

Bools = npt.NDArray[np.bool_]

_EDGE = 256  # pixels of the longer side that everything is decided on
_LEAST_AREA, _MOST_AREA = 0.04, 0.97  # share of the image that a breast may take
_DARK = 0.15  # least share of an image beyond the breast for it to look like a mammogram
_STRAIGHT, _ROUND = 0.7, 0.45  # of a breast's rows, at least and at most this share ends straight at either side
_LEAST_STEP = 0.04  # a muscle's edge is at least this step, in units of what lies between ground and breast


@dataclass(frozen=True)
class Breast:
    """What was found on a mammogram, index order (i, j): i to the right, j down.

    Args:
        mask: the breast, pectoral muscle included.
        muscle: the pectoral muscle; nowhere true where none was found.
        wall_right: True where the chest wall lies at the high end of i.
        straight, across: share of the breast's rows that end within 3 % of the width from the chest wall's
            line, and from a like line at the other side.
    """

    mask: Bools
    muscle: Bools
    wall_right: bool
    straight: float
    across: float


def find_breast(plane: Array) -> Breast | None:
    """The breast on a mammogram.

    Args:
        plane: (i, j) intensities, tissue brighter than air.

    Returns:
        None where nothing on the plane could be a breast (no contrast, far too small, or all of the image).
    """
    from scipy import ndimage

    if min(plane.shape) < 16:
        return None
    small = _shrunk(plane)
    smooth = ndimage.gaussian_filter(small, 1.0)
    body = _largest_region(smooth)
    if body is None:
        return None
    wall_right, straight, across = _chest_wall(body)
    turned, turned_body = (smooth[::-1], body[::-1]) if wall_right else (smooth, body)
    muscle = _muscle(turned, turned_body)
    muscle = muscle[::-1] if wall_right else muscle
    return Breast(_enlarged(body, plane.shape), _enlarged(muscle, plane.shape), wall_right, straight, across)


def looks_like_mammogram(plane: Array) -> bool:
    """Whether a plane shows one breast before a dark ground that ends at a straight chest wall.

    Args:
        plane: (i, j) intensities.
    """
    found = find_breast(plane)
    if found is None:
        return False
    outside = ~found.mask
    if outside.mean() < _DARK or found.straight < _STRAIGHT or found.across > _ROUND:
        return False
    low, high = np.percentile(plane[found.mask], (1, 99))
    ground = float(np.median(plane[outside]))
    tall = found.mask.any(axis=0).mean()
    return bool(ground < low + 0.15 * (high - low) and tall > 0.6)


def cleaned(plane: Array, breast: Breast) -> Float32:
    """The plane with all that is not breast (labels, tape, air) at the breast's lowest value."""
    inside = plane[breast.mask]
    lowest = float(inside.min()) if inside.size else 0.0
    return np.where(breast.mask, plane, lowest).astype(np.float32)


def _shrunk(plane: Array) -> Float32:
    """Block means, about `_EDGE` pixels along the longer side."""
    factor = max(1, max(plane.shape) // _EDGE)
    i, j = (max(1, size // factor) for size in plane.shape)
    part = plane[: i * factor, : j * factor]
    step = part.reshape(i, factor, j, factor)
    small: Float32 = step.mean((1, 3), dtype=np.float32)
    return small


def _enlarged(small: Bools, shape: tuple[int, ...]) -> Bools:
    """Nearest neighbours at the source's size."""
    index = [
        np.minimum((np.arange(size) + 0.5) * few / size, few - 1).astype(int)
        for size, few in zip(shape, small.shape, strict=True)
    ]
    return small[np.ix_(*index)]


def _largest_region(smooth: Float32) -> Bools | None:
    """The largest region above the ground's noise, opened so that labels and tape fall off, holes filled."""
    from scipy import ndimage

    low, high = (float(value) for value in np.percentile(smooth, (1, 99)))
    if not high > low:
        return None
    bright = smooth > low + _threshold((smooth - low) / (high - low)) * (high - low)
    opened = ndimage.binary_opening(bright, iterations=4)
    regions, count = ndimage.label(opened)
    if count == 0:
        return None
    sizes = np.bincount(regions.ravel())[1:]
    region = regions == 1 + int(sizes.argmax())
    share = region.mean()
    if not _LEAST_AREA <= share <= _MOST_AREA:
        return None
    back = ndimage.binary_dilation(region, iterations=3) & bright
    filled: Bools = ndimage.binary_fill_holes(back)
    return filled


def _threshold(share: Float32) -> float:
    """Between ground and tissue, 0..1: a third of Otsu's threshold of what is no brighter than the tissue.

    The skin line is far darker than the glands; Otsu's threshold alone would cut the fat away.
    """
    from skimage.filters import threshold_otsu

    values = np.clip(share, 0.0, 1.0)
    otsu: float = threshold_otsu(values)  # type: ignore[no-untyped-call]
    return float(np.clip(otsu / 3, 0.03, 0.25))


def _chest_wall(body: Bools) -> tuple[bool, float, float]:
    """Whether the chest wall is at the high end of i; shares of rows that end straight there and opposite."""
    rows = body.any(axis=0)
    first = body.argmax(axis=0)[rows]
    last = body.shape[0] - 1 - body[::-1].argmax(axis=0)[rows]
    near = max(2.0, 0.03 * body.shape[0])
    left = float((first <= np.percentile(first, 5) + near).mean())
    right = float((last >= np.percentile(last, 95) - near).mean())
    return right > left, max(left, right), min(left, right)


def _muscle(smooth: Float32, body: Bools) -> Bools:
    """The muscle above the best line; the chest wall lies at the low end of i."""
    columns = np.flatnonzero(body.any(axis=1))
    rows = np.flatnonzero(body.any(axis=0))
    nowhere = np.zeros_like(body)
    if len(columns) < 16 or len(rows) < 16:
        return nowhere
    left, width = int(columns[0]), len(columns)
    top, height = int(rows[0]), len(rows)
    low, high = float(np.percentile(smooth, 1)), float(np.percentile(smooth[body], 95))
    best, chosen = _LEAST_STEP * max(high - low, 1e-6), None
    i, j = np.meshgrid(np.arange(body.shape[0]), np.arange(body.shape[1]), indexing="ij")
    for across in np.linspace(0.15, 0.95, 17) * width:
        for down in np.linspace(0.2, 0.95, 16) * height:
            step = _step(smooth, body, left, top, across, down)
            if step > best:
                best, chosen = step, (across, down)
    if chosen is None:
        return nowhere
    across, down = chosen
    above = (i - left) / across + (j - top) / down < 1.0
    muscle: Bools = above & body
    return muscle


def _step(smooth: Float32, body: Bools, left: int, top: int, across: float, down: float) -> float:
    """Mean step from above to below the line from (left + across, top) to (left, top + down)."""
    length = float(np.hypot(across, down))
    normal = np.array([down, across]) / length
    places = np.linspace(0.08, 0.92, 24)
    line = np.stack([left + across * (1 - places), top + down * places], 1)
    limit = np.array(body.shape) - 1
    above = np.clip(np.rint(line - 4 * normal), 0, limit).astype(int)
    below = np.clip(np.rint(line + 4 * normal), 0, limit).astype(int)
    inside = body[above[:, 0], above[:, 1]] & body[below[:, 0], below[:, 1]]
    if inside.mean() < 0.7:
        return 0.0
    steps = smooth[above[:, 0], above[:, 1]] - smooth[below[:, 0], below[:, 1]]
    # The median asks for a step all along the line, the share of it that is bright for more than one vessel.
    return float(np.median(steps[inside])) * float((steps[inside] > 0).mean())
