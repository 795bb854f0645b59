"""Resampling: positions are kept, matching grids are left alone, classes are not mixed."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vesalius.core.grid import Grid
from vesalius.imaging.resample import axis_taps, grid_taps, overlap, resample, resample_label

SHAPES = st.tuples(*[st.integers(1, 14)] * 3)
SPACINGS = st.tuples(*[st.floats(0.4, 4.0)] * 3)


def lattice(grid: Grid) -> np.ndarray:
    return grid.to_patient(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))


def turned(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])


@given(shape=SHAPES, spacing=SPACINGS, order=st.sampled_from([1, 3]), lead=st.booleans())
def test_a_matching_grid_changes_nothing(shape, spacing, order, lead) -> None:
    grid = Grid.from_parts(shape, spacing=spacing, origin=(5, 6, 7), directions=turned(0.2))
    array = np.random.default_rng(0).normal(size=((2, *shape) if lead else shape)).astype(np.float32)
    result = resample(array, grid, grid, order=order)
    np.testing.assert_array_equal(result, array)
    assert not np.shares_memory(result, array)
    labels = (array > 0).astype(np.uint8)
    if not lead:
        np.testing.assert_array_equal(resample_label(labels, grid, grid), labels)


@given(shape=SHAPES, spacing=SPACINGS, aim=SPACINGS, order=st.sampled_from([1, 3]))
def test_constants_stay_constant_and_weights_add_up(shape, spacing, aim, order) -> None:
    source = Grid.from_parts(shape, spacing=spacing)
    target = source.resampled(aim)
    for tap in grid_taps(source, target, order):
        np.testing.assert_allclose(tap.weight.sum(axis=1), 1, atol=1e-5)
        assert not tap.outside.any()
    result = resample(np.full(shape, 3.25, np.float32), source, target, order=order)
    assert result.shape == target.shape
    np.testing.assert_allclose(result, 3.25, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@example(spacing=(1.0, 2.375, 2.0), aim=(1.0, 3.0, 3.0), order=1, angle=0.0)
@given(
    spacing=st.tuples(*[st.floats(0.5, 3.0)] * 3),
    aim=st.tuples(*[st.floats(0.5, 3.0)] * 3),
    order=st.sampled_from([1, 3]),
    angle=st.sampled_from([0.0, 0.15]),
)
def test_a_ramp_in_patient_space_stays_that_ramp(spacing, aim, order, angle) -> None:
    """Away from the border every value is that of its position: nothing is shifted, whatever the spacing."""
    source = Grid.from_parts((24, 24, 24), spacing=spacing, origin=(-9.0, 4.0, 2.0))
    base = source.resampled(aim)
    target = Grid.from_parts(base.shape, spacing=base.spacing, origin=base.origin, directions=turned(angle))
    slope = np.array([1.0, -2.0, 0.5])
    result = resample(lattice(source) @ slope, source, target, order=order)
    index = source.to_index(lattice(target))
    margin = 2.5 * np.maximum(np.asarray(aim) / spacing, 1.0) + 1
    inner = ((index > margin) & (index < 23 - margin)).all(axis=-1)
    wrong = np.abs(result - lattice(target) @ slope)[inner]
    # Sampled kernels place each axis within 6 % of the larger spacing; the ramp adds the three up.
    assert not wrong.size or wrong.max() < 0.06 * np.abs(slope).sum() * max(*spacing, *aim)


def test_finer_and_back_is_nearly_the_same() -> None:
    from scipy.ndimage import gaussian_filter

    array = gaussian_filter(np.random.default_rng(0).normal(size=(30, 32, 20)), 2.0).astype(np.float32)
    source = Grid.from_parts(array.shape, spacing=(1.0, 0.9, 2.0))
    target = source.resampled((0.6, 0.6, 0.6))
    back = resample(resample(array, source, target, order=3), target, source, order=1)
    assert np.abs(back - array)[2:-2, 2:-2, 2:-2].max() < 0.05 * np.abs(array).max()


def test_downsampling_smooths_first() -> None:
    """A checkerboard finer than the target becomes grey, not another pattern."""
    array = np.indices((40, 40, 40)).sum(axis=0) % 2
    source = Grid.from_parts(array.shape)
    for order in (1, 3):
        result = resample(array, source, source.resampled((2.5, 2.5, 2.5)), order=order)
        assert np.abs(result - 0.5)[1:-1, 1:-1, 1:-1].max() < 0.1
    quarter = turned(0.3)
    oblique = Grid.from_parts((10, 10, 10), spacing=(2.5,) * 3, origin=(12, 4, 8), directions=quarter)
    assert np.abs(resample(array, source, oblique, order=3) - 0.5).max() < 0.2


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_beyond_the_source_stands_the_fill(angle: float) -> None:
    array = np.full((10, 10, 10), 8.0)
    array[0] = 2.0
    source = Grid.from_parts(array.shape)
    target = Grid.from_parts((10, 10, 10), origin=(6.0, 0.0, 0.0), directions=turned(angle))
    index = source.to_index(lattice(target))
    outside = ((index < -0.51) | (index > 9.51)).any(axis=-1)
    assert outside.any()
    assert (resample(array, source, target)[outside] == 2.0).all()
    assert (resample(array, source, target, fill=-1.0)[outside] == -1.0).all()
    assert (resample(array, source, target)[~outside] >= 2.0 - 1e-4).all()
    assert (resample_label((array > 5).astype(np.uint8), source, target)[outside] == 0).all()


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(4, 12)] * 3), aim=st.tuples(*[st.floats(0.3, 1.0)] * 3))
def test_finer_labels_keep_every_source_voxel(shape, aim) -> None:
    """At least as many voxels: the voxel nearest to each source centre keeps that voxel's class."""
    labels = np.random.default_rng(0).integers(0, 4, size=shape).astype(np.uint8)
    source = Grid.from_parts(shape)
    target = source.resampled(aim)
    result = resample_label(labels, source, target)
    assert set(np.unique(result)) <= set(np.unique(labels))
    whole = [round(t / s) for t, s in zip(target.shape, source.shape, strict=True)]
    if tuple(w * s for w, s in zip(whole, source.shape, strict=True)) == target.shape and all(
        factor % 2 for factor in whole
    ):
        middle = tuple(slice(factor // 2, None, factor) for factor in whole)
        np.testing.assert_array_equal(result[middle], labels)


def test_label_classes_are_never_averaged() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[5:15, 5:15, 5:15] = 2
    labels[8:12, 8:12, 8:12] = 40
    source = Grid.from_parts(labels.shape)
    for aim in (0.7, 1.6):
        target = source.resampled((aim, aim, aim))
        result = resample_label(labels, source, target)
        assert set(np.unique(result)) <= {0, 2, 40}
        assert abs((result == 2).sum() * target.voxel_ml / source.voxel_ml - 936) < 200


def test_unplaced_images_are_resampled_over_the_same_extent() -> None:
    source = Grid.from_parts((8, 6, 1), spacing=(0.5, 0.5, 1.0), origin=(9, 9, 9), placed=False)
    target = source.resampled((1.0, 1.0, 1.0))
    array = np.arange(8.0)[:, None, None] * np.ones((8, 6, 1))
    result = resample(array, source, target)
    assert result.shape == (4, 3, 1)
    assert (np.diff(result[:, 0, 0]) > 0).all()


def test_integer_steps_are_not_mistaken_for_identity() -> None:
    taps = axis_taps(9, np.arange(0.0, 9.0, 2.0))
    assert taps.index.shape[1] > 1
    assert not taps.identity
    assert axis_taps(9, np.arange(9.0)).identity


def test_overlap_is_the_covered_share() -> None:
    first = Grid.from_parts((10, 10, 10))
    assert overlap(first, first) == 1.0
    assert overlap(first, Grid.from_parts((10, 10, 10), origin=(5, 0, 0))) == pytest.approx(0.5, abs=0.05)
    assert overlap(first, Grid.from_parts((10, 10, 10), origin=(50, 0, 0))) == 0.0
