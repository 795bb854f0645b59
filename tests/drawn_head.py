"""The average head and brain with a nose, eyes, ears and a chin drawn on by hand; truth of all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from vesalius.core.grid import Array, Grid
from vesalius.imaging.registration import rotation
from vesalius.privacy.brain_witness import _template
from vesalius.privacy.head_model import head_model

# Centres and radii, mm of ICBM 152 (LPS).
_NOSE = ((0, -92, -58), (13, 22, 18))
_EYES = (((32, -62, -46), (13, 13, 13)), ((-32, -62, -46), (13, 13, 13)))
_EARS = (((86, 18, -58), (8, 20, 28)), ((-86, 18, -58), (8, 20, 28)))
_AWAY = np.array([40.0, -70.0, 900.0])  # from the scanner's centre
_CHIN = ((0, -78, -118), (18, 14, 12))
TONES = {  # air, skin, skull, eyes; how a grey value of the template (0 to 1, white matter bright) is shown
    "t1": (4, 120, 20, 40, lambda tone: 200 * tone),
    "t2": (4, 110, 15, 220, lambda tone: 260 - 220 * tone),
    "ct": (-1000, 40, 900, 15, lambda tone: 20 + 20 * tone),
}


@dataclass(frozen=True)
class Drawn:
    """A drawn head on a grid, with (i, j, k) bool masks of its parts."""

    array: Array
    grid: Grid
    brain: Array
    nose: Array
    eyes: Array
    ears: Array
    chin: Array


def _inside(places: Array, ball: tuple) -> Array:
    centre, radii = ball
    return (((places - centre) / radii) ** 2).sum(axis=-1) < 1


def draw_head(
    contrast: str = "t1",
    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0),
    directions: Array | None = None,
    pitch: float = 0.0,
    stripped: bool = False,
    lowest: float = -150.0,
    seed: int = 0,
) -> Drawn:
    """Draw it; `directions` are the patient directions of the index axes, `pitch` nods the head (degrees)."""
    directions = np.eye(3) if directions is None else np.asarray(directions, float)
    low, high = np.array([-105.0, -130.0, lowest]), np.array([105.0, 130.0, 115.0])
    extent = np.abs(directions.T @ (high - low))
    start = np.where(directions.sum(axis=1) > 0, low, high)
    shape = np.ceil(extent / spacing).astype(int)
    grid = Grid.from_parts(shape, spacing=spacing, origin=start + _AWAY, directions=directions)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    turn = rotation(pitch, 0.0, 0.0) * 0.95
    places = (grid.to_patient(index) - _AWAY) @ np.linalg.inv(turn).T
    template = _template()
    at = template.tone.grid.to_index(places).transpose(3, 0, 1, 2)
    tone = scipy.ndimage.map_coordinates(template.tone.values, at, order=1)
    brain = scipy.ndimage.map_coordinates(template.brain.values, at, order=1) > 0.5
    nose, chin = _inside(places, _NOSE), _inside(places, _CHIN)
    eyes, ears = (np.logical_or(*(_inside(places, ball) for ball in pair)) for pair in (_EYES, _EARS))
    outline = head_model().outline
    at = outline.grid.to_index(places).transpose(3, 0, 1, 2)
    skin = scipy.ndimage.map_coordinates(outline.values, at, order=1, mode="nearest") > 0.5
    skin |= nose | chin | ears
    off = scipy.ndimage.distance_transform_edt(~brain, sampling=spacing)
    air, soft, bone, eye, shown = TONES[contrast]
    array = np.where(skin, soft, air).astype(float)
    array[eyes] = eye
    array[(off > 0) & (off < 9)] = bone
    array[brain] = shown(tone[brain])
    if stripped:
        array[~brain] = 0
    else:
        array += np.random.default_rng(seed).normal(0, 3, array.shape)
    array = np.rint(array if contrast == "ct" else np.abs(array)).astype(np.int16)
    return Drawn(array, grid, brain, nose, eyes, ears, chin)
