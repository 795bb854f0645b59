"""Between arrays in index order [i, j, k] and SimpleITK, which orders its arrays [k, j, i]; both are LPS.

Every filter is told to use one thread: sums then always run in the same order, so that results repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vesalius.classical.frame import Frame

THREADS = 1


def simpleitk() -> Any:
    """The library, imported only where it is used; it has no types."""
    import SimpleITK

    return SimpleITK


def to_itk(array: Any, frame: Frame) -> Any:
    """One channel, (i, j, k) or without its single-voxel axis, as a 2D or 3D image in frame coordinates."""
    values = np.ascontiguousarray(np.asarray(array, dtype=np.float32).reshape(frame.shape).T)
    image = simpleitk().GetImageFromArray(values)
    image.SetSpacing(frame.spacing.tolist())
    image.SetOrigin(frame.affine[:-1, -1].tolist())
    image.SetDirection((frame.affine[:-1, :-1] / frame.spacing).ravel().tolist())
    return image


def from_itk(image: Any) -> Any:
    """The image's array in index order; a vector image's components come last."""
    array = simpleitk().GetArrayFromImage(image)
    space = image.GetDimension()
    return np.transpose(array, (*range(space - 1, -1, -1), *range(space, array.ndim)))
