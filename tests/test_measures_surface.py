import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import directed_hausdorff

from vesalius.measures.surface import surface_distances, surface_of

masks = arrays.arrays(np.bool_, (5, 4, 4))
spacings = st.tuples(*[st.sampled_from((0.5, 1.0, 3.0))] * 3)
UNIT = (1.0, 1.0, 1.0)


def ball(centre, radius, shape=(32, 32, 32), spacing=UNIT):
    off = (np.moveaxis(np.indices(shape), 0, -1) - centre) * spacing
    return (off**2).sum(axis=-1) <= radius**2


def box(start, stop, shape=(12, 12, 12)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def test_area_of_a_box_comes_from_its_faces():
    spacing = (1.0, 2.0, 3.0)
    areas = surface_of(box((2, 2, 2), (10, 10, 10)), spacing).areas
    faces = 2 * (64 * 6 + 64 * 3 + 64 * 2)
    assert areas.sum() == pytest.approx(faces, rel=0.1)  # edges and corners are cut off


def test_area_of_a_flat_wall_is_exact():
    mask = np.zeros((6, 20, 20), bool)
    mask[:3] = True
    surface = surface_of(mask, (0.7, 0.5, 2.0))
    inner = (surface.points[:, 0] == 3 * 0.7) & (surface.points[:, 1] > 1) & (surface.points[:, 1] < 9)
    inner &= (surface.points[:, 2] > 4) & (surface.points[:, 2] < 36)
    assert surface.areas[inner] == pytest.approx(0.5 * 2.0)


def test_area_of_a_ball():
    assert surface_of(ball((16, 16, 16), 12), UNIT).areas.sum() == pytest.approx(4 * np.pi * 144, rel=0.08)


def test_shifted_box():
    found = surface_distances(box((2, 2, 2), (6, 6, 6)), box((5, 2, 2), (9, 6, 6)), (2.0, 1.0, 1.0))
    assert found.hausdorff(100.0, worst=99.0) == 6.0  # the far wall lies 3 voxels of 2 mm off
    assert found.surface_dice(6.0) == 1.0
    assert found.surface_dice(0.5) < 1.0


def test_shells_three_millimetres_apart():
    found = surface_distances(ball((16, 16, 16), 8), ball((16, 16, 16), 11), UNIT)
    assert found.hausdorff(95.0, worst=99.0) == pytest.approx(3.0, abs=0.5)
    assert found.surface_dice(1.0) == 0.0
    assert found.surface_dice(4.0) == 1.0


def test_empty_masks():
    none, some = box((0, 0, 0), (0, 0, 0)), box((2, 2, 2), (5, 5, 5))
    both = surface_distances(none, none, UNIT)
    assert (both.hausdorff(95.0, worst=50.0), both.surface_dice(1.0)) == (0.0, 1.0)
    for found in (surface_distances(none, some, UNIT), surface_distances(some, none, UNIT)):
        assert (found.hausdorff(95.0, worst=50.0), found.surface_dice(1.0)) == (50.0, 0.0)


def test_masks_that_touch_the_border_have_a_surface_there():
    everything = np.ones((4, 4, 4), bool)
    assert surface_of(everything, UNIT).areas.sum() > 80
    assert surface_distances(everything, everything, UNIT).surface_dice(0.0) == 1.0


def test_the_hausdorff_distance_is_that_of_scipy():
    truth, predicted = ball((14, 15, 16), 7), ball((17, 15, 14), 8)
    spacing = (1.0, 0.5, 2.0)
    a, b = surface_of(truth, spacing).points, surface_of(predicted, spacing).points
    expected = max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])
    assert surface_distances(truth, predicted, spacing).hausdorff(100.0, worst=99.0) == pytest.approx(expected)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.0])
def test_surface_dice_agrees_with_monai(spacing, tolerance):
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    truth, predicted = ball((15, 16, 17), 9, spacing=spacing), ball((16, 16, 15), 10, spacing=spacing)
    as_tensor = [torch.tensor(mask[None, None].astype(np.float32)) for mask in (predicted, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = metrics.compute_surface_dice(
            *as_tensor, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
        ).item()
    assert surface_distances(truth, predicted, spacing).surface_dice(tolerance) == pytest.approx(expected, abs=0.01)


def test_hd95_agrees_with_monai_to_half_a_voxel():
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    truth, predicted = ball((15, 16, 17), 9), ball((17, 16, 13), 10)
    as_tensor = [torch.tensor(mask[None, None].astype(np.float32)) for mask in (predicted, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = metrics.compute_hausdorff_distance(*as_tensor, include_background=True, percentile=95).item()
    assert surface_distances(truth, predicted, UNIT).hausdorff(95.0, worst=99.0) == pytest.approx(expected, abs=0.5)


def test_a_plane_is_measured_along_its_outline():
    disc = np.hypot(*(np.indices((60, 60)) - 30.0)) <= 20
    surface = surface_of(disc[..., None], (1.0, 1.0, 5.0), plane=True)
    assert surface.areas.sum() / 5.0 == pytest.approx(2 * np.pi * 20, rel=0.1)
    grown = np.hypot(*(np.indices((60, 60)) - 30.0)) <= 23
    found = surface_distances(disc[..., None], grown[..., None], (1.0, 1.0, 5.0), plane=True)
    assert found.hausdorff(95.0, worst=99.0) == pytest.approx(3.0, abs=0.5)


def test_left_out_voxels_are_not_scored():
    truth, predicted = box((2, 2, 2), (9, 6, 6)), box((2, 2, 2), (6, 6, 6))
    left_out = box((5, 0, 0), (12, 12, 12))
    cleared = [mask & ~left_out for mask in (truth, predicted)]
    found = surface_distances(*cleared, UNIT, left_out=left_out)
    assert found.hausdorff(100.0, worst=99.0) == 0.0
    assert found.truth_areas.sum() < surface_of(cleared[0], UNIT).areas.sum()  # the cut is no surface


@settings(max_examples=40, deadline=None)
@given(masks, masks, spacings)
def test_symmetry_and_range(truth, predicted, spacing):
    found, turned = surface_distances(truth, predicted, spacing), surface_distances(predicted, truth, spacing)
    assert found.hausdorff(95.0, worst=77.0) == pytest.approx(turned.hausdorff(95.0, worst=77.0))
    assert found.surface_dice(1.0) == pytest.approx(turned.surface_dice(1.0))
    assert 0.0 <= found.surface_dice(1.0) <= found.surface_dice(2.0) <= 1.0 + 1e-12
    assert found.hausdorff(95.0, worst=77.0) <= found.hausdorff(100.0, worst=77.0)


@settings(max_examples=30, deadline=None)
@given(masks, masks, spacings, st.tuples(*[st.integers(0, 5)] * 3))
def test_moving_both_masks_changes_nothing(truth, predicted, spacing, shift):
    moved = []
    for mask in (truth, predicted):
        wide = np.zeros(np.add(mask.shape, 5), bool)
        wide[tuple(slice(s, s + n) for s, n in zip(shift, mask.shape, strict=True))] = mask
        moved.append(wide)
    here, there = surface_distances(truth, predicted, spacing), surface_distances(*moved, spacing)
    assert here.hausdorff(95.0, worst=77.0) == pytest.approx(there.hausdorff(95.0, worst=77.0))
    assert here.surface_dice(1.0) == pytest.approx(there.surface_dice(1.0))


@settings(max_examples=20, deadline=None)
@given(masks, spacings)
def test_a_mask_agrees_with_itself(mask, spacing):
    found = surface_distances(mask, mask, spacing)
    assert found.hausdorff(100.0, worst=77.0) == 0.0
    assert found.surface_dice(0.0) == pytest.approx(1.0)
