"""Near-duplicates are found, different patients are not."""

import time
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from vesalius.imaging.duplicates import BITS, MAX_BITS, near_duplicates, perceptual_hash

HIPPOCAMPUS = Path(__file__).parents[2] / "shared" / "data" / "hippocampus" / "images"


def volume(seed: int, shape: tuple[int, ...] = (35, 50, 35)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 2.5)
    return 1000 + 200 * smooth / smooth.std()


def bits(first: np.ndarray, second: np.ndarray) -> int:
    pair = [np.unpackbits(np.frombuffer(perceptual_hash(a)[1:], np.uint8)) for a in (first, second)]
    return int((pair[0] != pair[1]).sum())


COPIES = {
    "noise": lambda a: a + np.random.default_rng(9).normal(size=a.shape) * a.std() * 0.1,
    "other unit": lambda a: a * 0.37 - 40,
    "other curve": lambda a: np.sqrt(a - a.min()),
    "8 bits": lambda a: np.round((a - a.min()) / np.ptp(a) * 255).astype(np.uint8),
    "one plane cut": lambda a: a[1:],
    "another plane cut": lambda a: a[:, :-1],
    "resampled": lambda a: ndimage.zoom(a, [0.8 if size > 1 else 1 for size in a.shape], order=1),
    "smoothed": lambda a: ndimage.gaussian_filter(a, 0.7),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("shape", [(35, 50, 35), (120, 90, 1)])
def test_copies_are_near_duplicates(copy: str, shape: tuple[int, ...]) -> None:
    array = volume(0, shape)
    assert bits(array, COPIES[copy](array)) <= MAX_BITS[2 if shape[2] == 1 else 3]


def test_different_images_are_not() -> None:
    hashes = {str(seed): perceptual_hash(volume(seed)) for seed in range(40)}
    assert near_duplicates(hashes) == []
    hashes["again"] = perceptual_hash(COPIES["noise"](volume(7)))
    assert near_duplicates(hashes) == [("7", "again")]


def test_colour_empty_and_odd_images_have_hashes_too() -> None:
    colour = np.stack([volume(0, (60, 70, 1))] * 3)
    assert perceptual_hash(colour) == perceptual_hash(colour[0])
    for array in (np.zeros((5, 5, 5)), np.zeros((1, 1, 1)), np.ones((1, 9, 1)), np.full((4, 4, 4), np.nan)):
        assert len(perceptual_hash(array)) == 1 + BITS // 8
    assert near_duplicates({}) == []


def test_planes_and_volumes_are_never_joined() -> None:
    empty = {"plane": perceptual_hash(np.zeros((9, 9, 1))), "volume": perceptual_hash(np.zeros((9, 9, 9)))}
    assert near_duplicates(empty, max_bits=BITS) == []


def test_many_hashes_are_compared_quickly_and_completely() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, size=(5000, BITS // 8), dtype=np.uint8)
    codes[4321] = codes[17]
    codes[4321, :5] ^= 255  # 40 bits
    hashes = {f"{number:05d}": b"\x03" + code.tobytes() for number, code in enumerate(codes)}
    begun = time.monotonic()
    assert near_duplicates(hashes) == [("00017", "04321")]
    assert near_duplicates(hashes, max_bits=39) == []
    assert time.monotonic() - begun < 20


@pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="the hippocampus data are not at hand")
def test_crops_of_different_patients_are_kept_apart() -> None:
    import nibabel

    paths = sorted(HIPPOCAMPUS.glob("*.nii.gz"))
    hashes = {path.name: perceptual_hash(np.asanyarray(nibabel.load(path).dataobj)) for path in paths}
    assert near_duplicates(hashes) == []


def test_blank_images_are_no_duplicates_of_each_other():
    blank = {name: perceptual_hash(np.full((1, 12, 10, 1), value)) for name, value in (("a", 0), ("b", 7), ("c", 0))}
    assert near_duplicates(blank) == []
