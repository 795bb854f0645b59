"""The average head: its outline, where brains lie in it, and where the face is.

`head.npz` holds means over label maps of 14 heads and their mirror images, laid onto ICBM 152 by their brains, at 4
mm: the share of heads that have tissue at a place, and whether any has brain there. It shows nobody:
`bench/build_head.py` makes it. The maps are of SynthSeg (github.com/BBillot/SynthSeg, data/training_label_maps,
Apache-2.0; Billot et al., Medical Image Analysis 86:102789, 2023); `head.txt` beside it keeps their notice. The face
is drawn on it by hand, as a profile in the mirror plane and two boxes for the ears.

Positions are millimetres of ICBM 152, LPS: x to the left, y to the back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

import numpy as np

from vesalius.core.grid import Array, FloatArray, Grid
from vesalius.imaging.registration import Volume

MARGIN_MM = 9.0  # around every place where any of the heads has brain
# What lies in front of this profile is face: height, and how far to the back it reaches there. Above the first
# height is forehead, which stays.
_PROFILE = ((-12.0, -84.0), (-24.0, -66.0), (-36.0, -50.0), (-50.0, -38.0), (-80.0, -22.0), (-400.0, -15.0))
_EAR = ((68.0, 400.0), (-4.0, 52.0), (-95.0, -18.0))  # |x|, y and z
_BRAIN_SHARE = 0.25
_BAND_MM = 20.0  # around the outline: what counts when it is laid onto a scan
_LOWEST_MM = -115.0  # below, heads differ by how they are held and where the scan ends


@dataclass(frozen=True)
class HeadModel:
    """The average head on a grid of 4 mm.

    Args:
        outline: (i, j, k) share of heads with tissue, 0 to 1.
        brain: (i, j, k) largest share of brain in a voxel, over the heads.
    """

    outline: Volume
    brain: Volume

    @property
    def grid(self) -> Grid:
        """The grid of all fields."""
        return self.outline.grid

    @cached_property
    def _places(self) -> FloatArray:
        index = np.stack(np.meshgrid(*(np.arange(size) for size in self.grid.shape), indexing="ij"), axis=-1)
        return self.grid.to_patient(index)

    @cached_property
    def to_brain(self) -> Array:
        """(i, j, k) distance of each voxel to the nearest with brain, mm; 0 within."""
        import scipy.ndimage

        outside = self.brain.values <= _BRAIN_SHARE
        return np.asarray(scipy.ndimage.distance_transform_edt(outside, sampling=self.grid.spacing), np.float32)

    @cached_property
    def face(self) -> Array:
        """(i, j, k) bool: face and ears, wherever no brain is near; also the air around them."""
        x, y, z = np.moveaxis(self._places, -1, 0)
        heights, depths = (np.array(column) for column in zip(*reversed(_PROFILE), strict=True))
        front = (z < heights[-1]) & (y < np.interp(z, heights, depths))
        ears = _between(np.abs(x), _EAR[0]) & _between(y, _EAR[1]) & _between(z, _EAR[2])
        return np.asarray((front | ears) & (self.to_brain > MARGIN_MM))

    @cached_property
    def counts(self) -> Volume:
        """1 where the outline counts when it is laid onto a scan: around it, and above the neck; else 0."""
        import scipy.ndimage

        inside = self.outline.values > 0.5
        distance = scipy.ndimage.distance_transform_edt(inside, sampling=self.grid.spacing)
        distance += scipy.ndimage.distance_transform_edt(~inside, sampling=self.grid.spacing)
        near = (distance < _BAND_MM) & (self._places[..., 2] > _LOWEST_MM)
        return Volume(near.astype(np.float32), self.grid)


def _between(values: Array, limits: tuple[float, float]) -> Array:
    return (values > limits[0]) & (values < limits[1])


@lru_cache(maxsize=1)
def head_model() -> HeadModel:
    """The average head that is part of this program."""
    source = files("vesalius.privacy").joinpath("head.npz")
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        grid = Grid(stored["outline"].shape, stored["affine"])
        outline, brain = (stored[name].astype(np.float32) / 255.0 for name in ("outline", "brain"))
    return HeadModel(Volume(outline, grid), Volume(brain, grid))
