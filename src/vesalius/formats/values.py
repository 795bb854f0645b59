"""Stored numbers to real-world values, in the smallest type that holds them exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from vesalius.core.grid import Array

# Types of which float32 can hold every number or a rescaled value may keep its own type.
_INTEGERS = (np.int16, np.uint16, np.int32)


def rescaled(stored: Array, slope: float, intercept: float) -> Array:
    """`stored * slope + intercept`, as integers where both factors are whole numbers, else float32.

    A CT with intercept -1024 thereby stays at two bytes a voxel. Identity returns `stored` itself.
    """
    if slope == 1.0 and intercept == 0.0:
        return stored
    kind = integer_type(stored, slope, intercept)
    if kind is None:
        result = stored.astype(np.float32)
        result *= np.float32(slope)
        result += np.float32(intercept)
        return result
    whole = stored.astype(kind)
    if slope != 1.0:
        whole *= kind.type(int(slope))
    if intercept != 0.0:
        whole += kind.type(int(intercept))
    return whole


def integer_type(stored: Array, slope: float, intercept: float) -> np.dtype[Any] | None:
    """The smallest integer type that holds the stored and the rescaled values, or None."""
    if stored.dtype.kind not in "iu" or not (float(slope).is_integer() and float(intercept).is_integer()):
        return None
    if stored.size == 0:
        return None
    low, high = int(stored.min()), int(stored.max())
    ends = [low, high]
    for value in (low, high):
        ends += [value * int(slope), value * int(slope) + int(intercept)]
    ends += [int(slope), int(intercept)]
    for kind in _INTEGERS:
        limits = np.iinfo(kind)
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return np.dtype(kind)
    return None
