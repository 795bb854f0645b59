"""Small data that the tests make: volumes with two structures in them, as a user would have them on disk."""

from pathlib import Path

import nibabel as nib
import numpy as np


def volume(seed: int, shape=(20, 24, 18)) -> tuple[np.ndarray, np.ndarray]:
    """An image (i, j, k) with two bright ellipsoids on textured ground, and the labels 1 and 2."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    label = np.zeros(shape, np.uint8)
    for value, middle in ((1, 0.3), (2, 0.7)):
        centre = np.array([shape[0] / 2, shape[1] * middle, shape[2] / 2]) + rng.uniform(-1.5, 1.5, 3)
        radii = rng.uniform(3.0, 4.5, 3)
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)) <= 1
        label[inside] = value
    image = rng.normal(100, 8, shape) + 60 * (label == 1) + 110 * (label == 2)
    return image.astype(np.float32), label


def write_nifti(path: Path, array: np.ndarray, affine=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 1.2, 1.0]) if affine is None else affine), path)
    return path


def study(folder: Path, cases: int = 6, shape=(20, 24, 18)) -> tuple[Path, Path]:
    """Folders `images` and `labels` with `cases` volumes called case_00.nii.gz and so on."""
    for number in range(cases):
        image, label = volume(number, shape)
        write_nifti(folder / "images" / f"case_{number:02d}.nii.gz", image)
        write_nifti(folder / "labels" / f"case_{number:02d}.nii.gz", label)
    return folder / "images", folder / "labels"
