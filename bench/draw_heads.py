"""Draw whole heads of T1-like contrast from label maps, to measure the finder and the shipped model.

    python bench/draw_heads.py FOLDER OUT [--seed 0] [--variants plain,turned]

FOLDER holds FreeSurfer label maps of whole heads (`*.nii.gz`: aseg numbers, tissue outside the brain from
500 on), such as those of SynthSeg (Billot et al., Medical Image Analysis 86:102789, 2023). For every map and
variant OUT receives `<map>_<variant>.nii.gz` and `<map>_<variant>_labels.nii.gz`. The same seed draws the
same heads.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import scipy.ndimage

from vesalius.core.grid import Array, FloatArray, Grid, reorient

LEFT_HIPPOCAMPUS, RIGHT_HIPPOCAMPUS = 17, 53
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

# What a T1-weighted gradient echo shows, white matter at 160 (means as in SynthSeg's T1 priors where they
# are unambiguous, else of our own choice), with the deviation inside a structure.
_T1 = {
    0: 7, 14: 45, 15: 45, 16: 142, 24: 45, 72: 45, 85: 100, 2: 160, 3: 97, 4: 42, 5: 50, 7: 145, 8: 92,
    10: 130, 11: 107, 12: 118, 13: 145, 17: 98, 18: 98, 25: 110, 26: 102, 28: 135, 30: 60, 62: 60, 77: 140,
    136: 42, 137: 50, 163: 42, 164: 50,
}  # fmt: skip
# Outside the brain: mean and deviation between heads (SynthSeg's T1 priors). Vessels, eyes, soft tissue, mucosa,
# nose, scalp, cord, sinuses and dura, bone, marrow, optic nerve.
_T1_OUTSIDE = {
    502: (126, 42), 506: (18, 8), 507: (94, 25), 508: (117, 32), 509: (70, 13), 511: (114, 37), 512: (120, 18),
    514: (48, 10), 515: (30, 11), 516: (94, 22), 530: (144, 20),
}  # fmt: skip
_RIGHT_OF = {41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18,
             57: 25, 58: 26, 60: 28}  # fmt: skip
_BRAIN_TOP = 499
_FLUID_OUTSIDE = (24,)


@dataclass(frozen=True)
class Variant:
    """How a head is drawn.

    Args:
        contrast: deviation of each structure's mean from T1, in grey values (white matter is 160).
        bias: strength of the coil shading, as the deviation of its logarithm.
        noise: deviation of the noise, in grey values.
        blur_mm: deviation of the blur before sampling.
        spacing: voxel size along the stored axes (mm).
        orientation: stored axes, e.g. "LPS" or "PIR": where each index axis runs to.
        turn: pitch, roll and yaw of the head (degrees).
        origin: shift of the whole head in the scanner (mm).
        stripped: nothing outside the brain.
        height_mm: keep so much from the top of the head down; 0 keeps everything.
        mirrored: the head as in a looking-glass, at the same place.
        tissue: "t1", or "random" for means drawn anew between 20 and 200.
    """

    contrast: float = 6.0
    bias: float = 0.12
    noise: float = 5.0
    blur_mm: float = 0.5
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    orientation: str = "LPS"
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    stripped: bool = False
    height_mm: float = 0.0
    mirrored: bool = False
    tissue: str = "t1"


VARIANTS = {
    "plain": Variant(),
    "turned": Variant(turn=(18.0, -8.0, 10.0), orientation="PIR", noise=8.0),
    "nodding": Variant(turn=(-25.0, 6.0, -15.0), orientation="RAS", origin=(900.0, -1500.0, 2200.0)),
    "stripped": Variant(stripped=True, contrast=10.0),
    "mirrored": Variant(mirrored=True, orientation="RAS", turn=(5.0, 5.0, 5.0)),
    "thick": Variant(spacing=(0.9, 0.9, 4.0), blur_mm=1.0, orientation="RPS"),
    "sagittal": Variant(spacing=(0.9, 0.9, 1.4), orientation="PSR", bias=0.3, noise=12.0),
    "shaded": Variant(bias=0.45, contrast=12.0, noise=10.0),
    "harsh": Variant(contrast=20.0, bias=0.25, noise=14.0, turn=(10.0, 10.0, -10.0)),
    "cropped": Variant(height_mm=150.0, orientation="LAS"),
}


@dataclass(frozen=True)
class Head:
    """A drawn head and the labels it was drawn from, both (i, j, k) on `grid`."""

    image: Array
    labels: Array
    grid: Grid


def read_maps(folder: Path) -> Iterator[tuple[str, Array, Grid]]:
    """Name, labels (i, j, k; int16, canonical LPS axes) and grid of every map in a folder."""
    for path in sorted(folder.glob("*.nii.gz")):
        stored = nib.load(path)
        labels = np.rint(np.asarray(stored.dataobj)).astype(np.int16)
        grid, order, flips = Grid(labels.shape, _RAS_TO_LPS @ stored.affine).canonical()
        yield path.name.removesuffix(".nii.gz"), reorient(labels, order, flips), grid


def _means(rng: np.random.Generator, values: Array, variant: Variant) -> FloatArray:
    """One mean grey value for each label up to the largest; both sides of a structure are alike."""
    table = np.zeros(int(values.max()) + 1)
    drawn: dict[int, float] = {}
    for value in range(table.size):
        left = _RIGHT_OF.get(value, value)
        if left not in drawn:
            if variant.tissue == "random":
                usual = rng.uniform(10.0, 190.0)
            elif value in _T1_OUTSIDE:
                usual = rng.normal(*_T1_OUTSIDE[value])
            else:
                usual = _T1.get(left, 100) + rng.normal(0.0, variant.contrast)
            drawn[left] = 4.0 if value == 0 else usual
        table[value] = max(0.0, drawn[left])
    return table


def _smooth_field(rng: np.random.Generator, shape: tuple[int, ...], knots: int = 5) -> Array:
    """A smooth random field of zero mean and deviation 1."""
    coarse = rng.normal(size=(knots, knots, knots))
    zoom = [size / knots for size in shape]
    field = scipy.ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True)
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _paint(labels: Array, rng: np.random.Generator, variant: Variant) -> Array:
    """Grey values on the map's own grid, before sampling, shading and noise."""
    table = _means(rng, labels, variant).astype(np.float32)
    image = table[labels]
    image += rng.normal(size=labels.shape).astype(np.float32) * np.where(labels > 0, 7.0, 2.0)
    if variant.stripped:
        image[(labels > _BRAIN_TOP) | (labels == 0) | np.isin(labels, _FLUID_OUTSIDE)] = 0.0
    return scipy.ndimage.gaussian_filter(image, variant.blur_mm)


def _turned(turn: tuple[float, float, float]) -> FloatArray:
    """The rotation matrix of pitch, roll and yaw (degrees), applied in this order."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(turn)):
        a, b = (other for other in range(3) if other != axis)
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        result = step @ result
    return result


def _scanner_grid(head: FloatArray, variant: Variant) -> Grid:
    """A grid of the variant's orientation and spacing around head positions (n, 3)."""
    directions = np.zeros((3, 3))
    for index_axis, letter in enumerate(variant.orientation):
        patient_axis = next(axis for axis, pair in enumerate(("RL", "AP", "IS")) if letter in pair)
        directions[patient_axis, index_axis] = 1.0 if letter in "LPS" else -1.0
    low, high = head.min(axis=0) - 8.0, head.max(axis=0) + 8.0
    if variant.height_mm:
        low[2] = high[2] - variant.height_mm
    extent = np.abs(directions.T @ (high - low))
    shape = np.ceil(extent / variant.spacing).astype(int)
    start = np.where(directions.sum(axis=1) > 0, low, high)
    return Grid.from_parts(shape, spacing=variant.spacing, origin=start, directions=directions)


def draw_head(labels: Array, grid: Grid, seed: int, variant: Variant) -> Head:
    """Draw one head.

    Args:
        labels: (i, j, k) FreeSurfer numbers on `grid` (canonical axes).
        grid: about 1 mm.
        seed: the same seed and variant draw the same head.
        variant: how it is drawn.
    """
    rng = np.random.default_rng(seed)
    painted = _paint(labels, rng, variant)
    filled = np.argwhere(labels[::4, ::4, ::4] > 0) * 4
    places = grid.to_patient(filled)
    centre = places.mean(axis=0)
    turn = _turned(variant.turn) @ np.diag([-1.0 if variant.mirrored else 1.0, 1.0, 1.0])
    shift = centre + np.asarray(variant.origin)
    target = _scanner_grid((places - centre) @ turn.T + shift, variant)
    to_map = np.linalg.inv(grid.affine) @ _rigid(np.linalg.inv(turn), shift, centre) @ target.affine

    def sample(array: Array, order: int) -> Array:
        return np.asarray(
            scipy.ndimage.affine_transform(array, to_map[:3, :3], to_map[:3, 3], output_shape=target.shape, order=order)
        )

    image = sample(painted, 1)
    image *= np.exp(variant.bias * _smooth_field(rng, image.shape))
    image += rng.normal(size=image.shape).astype(np.float32) * variant.noise * (image > 0)
    mask = sample(labels, 0)
    if variant.mirrored:  # what looks like the right hippocampus now stands on the left
        mask = _swapped(mask)
    return Head(np.maximum(image, 0.0).astype(np.float32), mask, target)


def _rigid(turn: FloatArray, source: FloatArray, target: FloatArray) -> FloatArray:
    """(4, 4): turn about `source`, which comes to stand at `target`."""
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = target - turn @ source
    return matrix


def _swapped(labels: Array) -> Array:
    """The labels with left and right exchanged."""
    table = np.arange(int(labels.max()) + 1)
    for right, left in _RIGHT_OF.items():
        table[left], table[right] = right, left
    return table[labels].astype(labels.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", default="plain,turned,stripped")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for number, (name, labels, grid) in enumerate(read_maps(given.folder)):
        for variant in given.variants.split(","):
            head = draw_head(labels, grid, given.seed + number, VARIANTS[variant])
            affine = _RAS_TO_LPS @ head.grid.affine
            nib.save(nib.Nifti1Image(head.image, affine), given.out / f"{name}_{variant}.nii.gz")
            nib.save(nib.Nifti1Image(head.labels, affine), given.out / f"{name}_{variant}_labels.nii.gz")
            print(f"{name}_{variant}")


if __name__ == "__main__":
    main()
