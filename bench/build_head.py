"""Build the average head that finds faces: share of tissue and of brain over label maps of whole heads.

    python bench/build_head.py MAPS OUT [--each FILE]

MAPS holds FreeSurfer label maps of whole heads, such as those of SynthSeg (see draw_heads.py). Each is laid onto
ICBM 152 by its brain, through a T1 scan of 2 mm that is drawn from it with noise of seed 0, and the means over all
heads and their mirror images are written to OUT (`src/vesalius/privacy/head.npz`): the same bytes for the same maps.
FILE receives every head for itself, for `deface_heads.py`; what it holds is not shipped.

The shipped file came from an earlier state of this script and the maps 01, 02, 04, 05, 06, 08, 10, 11, 12, 14, 15, 17,
18 and 20 of github.com/BBillot/SynthSeg (commit 66342c1, data/training_label_maps), under Apache-2.0.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import scipy.ndimage

from draw_heads import _BRAIN_TOP, _FLUID_OUTSIDE, _RAS_TO_LPS, _RIGHT_OF, _T1, _T1_OUTSIDE
from vesalius.core.grid import Array, FloatArray, Grid, reorient
from vesalius.imaging.registration import Volume
from vesalius.privacy.brain_witness import lay_brain
from vesalius.privacy.head_model import HeadModel

BOX = Grid.from_parts((52, 66, 70), spacing=(4.0, 4.0, 4.0), origin=(-102.0, -145.0, -165.0))
_STEP = 2  # voxels of 1 mm
_BLUR = 0.8


@dataclass(frozen=True)
class Laid:
    """One head in the box, each (i, j, k) float32: tissue, brain, and whether the map reaches there."""

    tissue: Array
    brain: Array
    seen: Array


def read_small(path: Path) -> tuple[Array, Grid]:
    """Labels at 2 mm, every second voxel, on canonical axes."""
    stored = nib.load(path)
    labels = np.asarray(stored.dataobj).astype(np.int16)
    grid, order, flips = Grid(labels.shape, _RAS_TO_LPS @ stored.affine).canonical()
    labels = np.ascontiguousarray(reorient(labels, order, flips)[::_STEP, ::_STEP, ::_STEP])
    affine = np.array(grid.affine)
    affine[:3, :3] *= _STEP
    return labels, Grid(labels.shape, affine)


def brain_of(labels: Array) -> Array:
    """Brain tissue and ventricles, without the fluid around."""
    return (labels > 0) & (labels <= _BRAIN_TOP) & ~np.isin(labels, _FLUID_OUTSIDE)


def lay(labels: Array, grid: Grid) -> Laid:
    """Lay one head onto ICBM 152 by a T1 scan drawn from it."""
    table = np.zeros(int(labels.max()) + 1, np.float32)
    for value in range(table.size):
        table[value] = (
            _T1_OUTSIDE.get(value, (100, 0))[0] if value > _BRAIN_TOP else _T1.get(_RIGHT_OF.get(value, value), 100)
        )
    table[0] = 4.0
    noise = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    pose = lay_brain(Volume.of_scan(table[labels] + 5.0 * noise, grid)).pose
    tissue = scipy.ndimage.binary_fill_holes(scipy.ndimage.binary_opening(labels > 0))
    index = np.stack(np.meshgrid(*(np.arange(size) for size in BOX.shape), indexing="ij"), axis=-1)
    height = grid.to_index(BOX.to_patient(index) @ pose[:3, :3].T + pose[:3, 3])[..., 2]
    seen = height > np.argwhere(labels > 0)[:, 2].min() + 1
    return Laid(_in_box(tissue, grid, pose), _in_box(brain_of(labels), grid, pose), seen.astype(np.float32))


def _in_box(mask: Array, grid: Grid, pose: FloatArray) -> Array:
    smooth = scipy.ndimage.gaussian_filter(mask.astype(np.float32), _BLUR)
    change = np.linalg.inv(grid.affine) @ pose @ BOX.affine
    return np.asarray(
        scipy.ndimage.affine_transform(smooth, change[:3, :3], change[:3, 3], output_shape=BOX.shape, order=1)
    )


def average(heads: Sequence[Laid]) -> dict[str, Array]:
    """Tensors of the asset: means over heads and mirror images as uint8, and the affine (LPS)."""
    both = [*heads, *(Laid(head.tissue[::-1], head.brain[::-1], head.seen[::-1]) for head in heads)]
    seen = np.sum([head.seen for head in both], axis=0)
    outline = np.sum([head.tissue * head.seen for head in both], axis=0) / np.maximum(seen, 1e-3)
    brain = np.max([head.brain for head in both], axis=0)
    as_bytes = {"outline": outline, "brain": brain}
    fields = {name: np.rint(np.clip(field, 0, 1) * 255).astype(np.uint8) for name, field in as_bytes.items()}
    return fields | {"affine": np.array(BOX.affine)}


def read_each(path: Path) -> list[Laid]:
    """The heads of a FILE, in the order of the names of their maps."""
    with np.load(path, allow_pickle=False) as stored:
        columns = [stored[name] for name in ("tissue", "brain", "seen")]
    return [Laid(*head) for head in zip(*columns, strict=True)]


def as_model(tensors: Mapping[str, Array]) -> HeadModel:
    """The model that these tensors describe, as it will be read."""
    return HeadModel(*(Volume(tensors[name].astype(np.float32) / 255.0, BOX) for name in ("outline", "brain")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=Path)
    given = parser.parse_args()
    heads = []
    for path in sorted(given.maps.glob("*.nii.gz")):
        heads.append(lay(*read_small(path)))
        print(path.name, flush=True)
    np.savez_compressed(given.out, **average(heads))
    if given.each is not None:
        fields = {name: np.stack([getattr(head, name) for head in heads]) for name in ("tissue", "brain", "seen")}
        np.savez_compressed(given.each, **fields)


if __name__ == "__main__":
    main()
