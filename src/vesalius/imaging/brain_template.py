"""The average brain that is laid onto scans: ICBM 152, T1, brain only, 2 mm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from vesalius.core.errors import BundleError
from vesalius.core.grid import Grid
from vesalius.imaging.registration import Volume

_PAD = 8  # voxels of empty space around the stored template, so that its outer edge counts as one


@dataclass(frozen=True)
class Template:
    """The head that is laid onto scans.

    Args:
        tone: T1 intensities, 0 outside the brain.
        brain: 1 inside the brain.
        near: 1 inside the brain and a rim of 4 mm.
    """

    tone: Volume
    brain: Volume
    near: Volume


@lru_cache(maxsize=2)
def load_template(path: Path) -> Template:
    """Read the template that a bundle ships.

    Raises:
        BundleError: the file is missing or damaged.
    """
    import scipy.ndimage
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        stored = load_file(path)
        tone, affine = stored["template"], stored["affine"]
    except (OSError, KeyError, SafetensorError) as error:
        raise BundleError("The finder's template cannot be read.", remedy="Install again.", file=path) from error
    sizes = [size + _PAD for size in tone.shape]
    grid = Grid(tone.shape, affine).cropped((-_PAD,) * 3, sizes)
    tone = np.pad(tone, _PAD).astype(np.float32) / 255.0
    brain = tone > 0
    near = scipy.ndimage.binary_dilation(brain, iterations=2)
    return Template(Volume(tone, grid), *(Volume(mask.astype(np.float32), grid) for mask in (brain, near)))
