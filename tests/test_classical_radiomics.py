"""Hand-designed features: against the IBSI's digital phantom, against scikit-image, and on images of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.classical.radiomics import features_of
from vesalius.classical.radiomics.first_order import discretised, first_order, histogram
from vesalius.classical.radiomics.glcm import cooccurrence, glcm_features
from vesalius.classical.radiomics.glrlm import glrlm_features, run_lengths
from vesalius.classical.radiomics.pattern import wavelet_energies
from vesalius.classical.radiomics.region import Region, region
from vesalius.classical.radiomics.shape import shape_features
from vesalius.core.errors import UnusableInput

# The digital phantom of the IBSI (reference manual, chapter 5): 2 mm voxels, 0 stands for voxels left out.
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)

# Benchmark values of the IBSI reference manual (version 11, chapter 3), "dig. phantom", "3D, merged" for matrices.
FIRST_ORDER = {
    "mean": 2.15, "variance": 3.05, "skewness": 1.08, "excess_kurtosis": -0.355, "median": 1, "minimum": 1,
    "percentile_10": 1, "percentile_90": 4, "maximum": 6, "interquartile_range": 3, "range": 5,
    "mean_absolute_deviation": 1.55, "robust_mean_absolute_deviation": 1.11, "median_absolute_deviation": 1.15,
    "coefficient_of_variation": 0.812, "quartile_coefficient_of_dispersion": 0.6, "root_mean_square": 2.77,
}  # fmt: skip
GLCM = {
    "joint_maximum": 0.509, "joint_average": 2.15, "joint_variance": 3.13, "joint_entropy": 2.57,
    "difference_average": 1.38, "difference_variance": 3.21, "difference_entropy": 1.64, "sum_average": 4.3,
    "sum_variance": 7.41, "sum_entropy": 2.11, "angular_second_moment": 0.291, "contrast": 5.12,
    "inverse_difference": 0.688, "inverse_difference_moment": 0.631, "inverse_variance": 0.0574,
    "correlation": 0.183, "autocorrelation": 5.19, "cluster_shade": 17.4, "cluster_prominence": 147,
    "information_correlation_1": -0.0288, "information_correlation_2": 0.269,
}  # fmt: skip
GLRLM = {
    "short_runs_emphasis": 0.729, "long_runs_emphasis": 2.76, "low_grey_level_run_emphasis": 0.607,
    "high_grey_level_run_emphasis": 9.64, "short_run_low_grey_level_emphasis": 0.372,
    "short_run_high_grey_level_emphasis": 8.67, "long_run_low_grey_level_emphasis": 2.16,
    "long_run_high_grey_level_emphasis": 15.6, "grey_level_non_uniformity_normalised": 0.43,
    "run_length_non_uniformity_normalised": 0.501, "run_percentage": 0.68, "grey_level_variance": 3.48,
    "run_length_variance": 0.598, "run_entropy": 2.62,
}  # fmt: skip
SHAPE = {
    "volume": 556, "voxel_volume": 592, "surface": 388, "surface_to_volume": 0.698, "sphericity": 0.843,
    "major_axis": 11.4, "minor_axis": 9.31, "least_axis": 8.54, "elongation": 0.816, "flatness": 0.749,
}  # fmt: skip


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def test_first_order_agrees_with_the_phantom() -> None:
    values = PHANTOM[PHANTOM > 0]
    found = first_order(values.astype(float))
    assert {name: _three_digits(value) for name, value in found.items()} == pytest.approx(FIRST_ORDER)
    assert histogram(values, 6) == pytest.approx({"entropy": 1.27, "uniformity": 0.512}, rel=5e-3)


def test_cooccurrence_agrees_with_the_phantom() -> None:
    found = glcm_features(cooccurrence(PHANTOM, 6))
    assert {name: _three_digits(value) for name, value in found.items()} == pytest.approx(GLCM)


def test_run_lengths_agree_with_the_phantom() -> None:
    found = glrlm_features(*run_lengths(PHANTOM, 6))
    assert {name: _three_digits(value) for name, value in found.items()} == pytest.approx(GLRLM)


def test_shape_agrees_with_the_phantom() -> None:
    found = shape_features(Region(PHANTOM[None].astype(float), PHANTOM > 0, np.full(3, 2.0), True))
    assert {name: found[name] for name in SHAPE} == pytest.approx(SHAPE, rel=5e-3)


@pytest.mark.parametrize("distance", [1, 3])
def test_cooccurrence_agrees_with_scikit_image(distance: int) -> None:
    feature = pytest.importorskip("skimage.feature")
    levels = np.random.default_rng(0).integers(1, 9, (23, 31))
    turns = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    # scikit-image rounds the distance along diagonals to sin and cos of it; the IBSI counts them in whole voxels.
    straight = feature.graycomatrix((levels - 1).astype(np.uint8), [distance], [0, np.pi / 2], 8, symmetric=True)
    steps = feature.graycomatrix((levels - 1).astype(np.uint8), [distance * 2**0.5], turns[1::2], 8, symmetric=True)
    pairs = straight.sum(axis=(2, 3)).astype(float) + steps.sum(axis=(2, 3))
    assert cooccurrence(levels, 8, distance) == pytest.approx(pairs / pairs.sum())


def test_every_run_is_counted_once() -> None:
    levels = np.random.default_rng(1).integers(0, 4, (7, 6, 5))
    matrix, voxels = run_lengths(levels, 3)
    lengths = np.arange(1, matrix.shape[1] + 1)
    assert (matrix * lengths).sum() == voxels == 13 * (levels > 0).sum()


KINDS = {
    "grey": (1, 60, 40, 1), "colour": (3, 60, 40, 1), "volume": (1, 20, 18, 12), "one pixel": (1, 1, 1, 1),
    "one row": (1, 30, 1, 1), "two pixels": (1, 2, 1, 1), "thin volume": (1, 9, 8, 2), "side plane": (1, 1, 20, 30),
    "four sequences": (4, 12, 10, 8),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", KINDS.values(), ids=KINDS.keys())
def test_every_image_has_finite_features_of_stable_names(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    images = [
        rng.integers(0, 65536, shape).astype(np.uint16), np.zeros(shape, np.uint8), np.full(shape, np.nan, np.float32),
        rng.normal(0, 1e-9, shape), rng.normal(-1000, 1e4, shape).astype(np.float32), np.full(shape, 7.0),
    ]  # fmt: skip
    found = [features_of(image, (1.0, 1.0, 2.0)) for image in images]
    assert len({tuple(each) for each in found}) == 1
    assert all(np.isfinite(list(each.values())).all() for each in found)


def test_large_images_cost_little_memory_of_features() -> None:
    image = np.random.default_rng(3).integers(0, 4096, (1, 4000, 3000, 1)).astype(np.uint16)
    assert max(region(image, (1, 1, 1)).inside.shape) == 256


def test_features_do_not_tell_size_or_bit_depth() -> None:
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, (1, 64, 64, 1)).astype(np.uint8)
    one, other = features_of(image, (1, 1, 1)), features_of(image.astype(np.uint16), (1, 1, 1))
    assert one == other
    assert not any("size" in name or "shape" in name for name in one)


def test_an_outline_restricts_the_features_and_adds_its_shape() -> None:
    rng = np.random.default_rng(5)
    image = rng.normal(100, 5, (1, 80, 70, 1))
    mask = np.zeros((80, 70, 1), bool)
    mask[30:50, 20:45] = True
    image[0][mask] = 300
    found = features_of(image, (0.5, 0.5, 1.0), mask)
    assert found["first_order_mean"] == pytest.approx(300)
    assert found["shape_area"] == pytest.approx(20 * 25 * 0.25)
    assert found["shape_solidity"] == pytest.approx(1.0)
    assert found["shape_contrast"] > 1
    assert not any(name.startswith("shape_") for name in features_of(image, (0.5, 0.5, 1.0)))


def test_what_lies_outside_an_outline_does_not_count() -> None:
    rng = np.random.default_rng(6)
    image = rng.normal(0, 1, (1, 40, 40, 1))
    mask = np.zeros((40, 40, 1), bool)
    mask[10:30, 10:30] = True
    other = image.copy()
    other[0][~mask] += rng.normal(0, 1, (~mask).sum())
    families = ("first_order_", "histogram_", "glcm_", "glrlm_")
    one, two = (features_of(each, (1, 1, 1), mask) for each in (image, other))
    assert {n: v for n, v in one.items() if n.startswith(families)} == {
        n: v for n, v in two.items() if n.startswith(families)
    }


def test_outlines_that_cannot_be_used_are_refused() -> None:
    image = np.zeros((1, 5, 5, 1))
    with pytest.raises(UnusableInput, match="empty"):
        features_of(image, (1, 1, 1), np.zeros((5, 5, 1)))
    with pytest.raises(UnusableInput, match="fit"):
        features_of(image, (1, 1, 1), np.ones((5, 4, 1)))


def test_wavelets_keep_the_energy() -> None:
    grey = np.random.default_rng(7).normal(0, 1, (32, 32))
    grey -= grey.mean()
    energies = wavelet_energies(grey)
    low = grey.reshape(2, 16, 2, 16).mean(axis=(1, 3))
    assert sum(energies.values()) + (low**2).sum() * 256 / (grey**2).sum() == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 50), st.floats(-500, 500))
def test_textures_are_the_same_at_any_gain_and_offset(seed: int, gain: float, offset: float) -> None:
    values = np.random.default_rng(seed).integers(0, 64, 200).astype(float)
    assert (discretised(values * 2.0**3) == discretised(values)).all()
    moved = discretised(values * gain + offset)
    assert np.abs(moved - discretised(values)).max() <= 1  # rounding at the border of two levels
