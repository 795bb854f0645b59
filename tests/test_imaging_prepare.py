"""From images to the network's array, whatever way they were stored."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.grid import Grid, restore
from vesalius.core.image import Image, Kind
from vesalius.imaging.prepare import (
    Normalisation,
    Preparation,
    normalise,
    prepare,
    prepare_array,
    prepare_label,
    prepared_grid,
)

ZSCORE = Preparation(("image",), None, (Normalisation("zscore"),))


@dataclass(frozen=True)
class Held:
    array: Any

    def read(self) -> Any:
        return self.array


def image(array: np.ndarray, grid: Grid | None = None, kind: Kind = Kind.INTENSITY) -> Image:
    spatial = array.shape[-3:]
    channels = array.shape[0] if array.ndim == 4 else 1
    return Image("x", grid or Grid.from_parts(spatial), "image", kind, "MR", channels, Held(array))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, size=shape).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    spacing=st.tuples(*[st.floats(0.5, 3.0)] * 3),
    aim=st.floats(0.6, 2.5),
)
def test_stored_order_does_not_matter(order, signs, spacing, aim) -> None:
    """The same anatomy stored along other axes gives the same prepared array at the same place."""
    canonical = Grid.from_parts((9, 12, 7), spacing=spacing, origin=(1.0, 2.0, 3.0))
    array = noise(9, 12, 7)
    flips = tuple(sign < 0 for sign in signs)
    stored = restore(array, order, flips)
    affine = np.eye(4)
    for axis, index_axis in enumerate(order):
        affine[:3, index_axis] = canonical.affine[:3, axis] * signs[axis]
    last = [(size - 1) if flip else 0 for size, flip in zip(canonical.shape, flips, strict=True)]
    affine[:3, 3] = canonical.to_patient(last)
    grid = Grid(stored.shape, affine)
    recipe = Preparation(("image",), (aim,) * 3, (Normalisation("zscore"),))
    straight, turned = prepare_array(array, canonical, recipe), prepare([image(stored[None], grid)], recipe)
    assert turned.grid.matches(straight.grid)
    np.testing.assert_allclose(turned.array, straight.array, atol=1e-5)
    assert turned.source is grid
    assert turned.array.dtype == np.float32
    assert turned.array.flags.c_contiguous


def test_spacing_within_one_percent_is_kept() -> None:
    grid = Grid.from_parts((10, 10, 10), spacing=(1.005, 0.995, 1.0))
    assert prepared_grid(grid, (1, 1, 1)).matches(grid)
    one_axis = prepared_grid(Grid.from_parts((10, 10, 10), spacing=(1.005, 1.0, 2.0)), (1, 1, 1))
    assert one_axis.shape == (10, 10, 20)
    assert one_axis.spacing == pytest.approx((1.005, 1.0, 1.0))


def test_a_single_slice_is_not_multiplied() -> None:
    plane = prepared_grid(Grid.from_parts((10, 10, 1), spacing=(2, 2, 5.0)), (1, 1, 1))
    assert plane.shape == (20, 20, 1)


def test_colour_keeps_its_channels_and_their_balance() -> None:
    colour = np.zeros((3, 30, 40, 1), np.uint8)
    colour[0] = np.arange(40, dtype=np.uint8)[:, None] * 6
    colour[1] = 100
    recipe = Preparation(("photo",), None, (Normalisation("unit"),))
    grid = Grid.from_parts((30, 40, 1), placed=False, unit="pixel")
    result = prepare([image(colour, grid)], recipe)
    assert result.array.shape == (3, 30, 40, 1)
    assert 0.0 <= result.array.min() < 0.01
    assert 0.99 < result.array.max() <= 1.0
    assert np.unique(result.array[1]).size == 1
    assert 0.3 < result.array[1, 0, 0, 0] < 0.55


def test_zscore_does_not_care_for_scale_offset_or_outliers() -> None:
    array = noise(1, 20, 20, 20)
    plain = normalise(array, Normalisation("zscore"))
    np.testing.assert_allclose(normalise(array * 7 + 300, Normalisation("zscore")), plain, atol=1e-3)
    assert abs(plain.mean()) < 1e-3
    spiked = array.copy()
    spiked[0, 3, 3, 3] = 1e6
    difference = np.abs(normalise(spiked, Normalisation("zscore")) - plain)
    assert np.delete(difference.ravel(), np.argmax(spiked)).max() < 0.02


def test_zscore_of_a_stripped_head_is_that_of_its_crop() -> None:
    crop = noise(1, 20, 20, 20)
    head = np.zeros((1, 40, 40, 40), np.float32)
    head[:, 10:30, 10:30, 10:30] = crop
    inside = normalise(head, Normalisation("zscore"))[:, 10:30, 10:30, 10:30]
    np.testing.assert_allclose(inside, normalise(crop, Normalisation("zscore")), atol=0.02)


def test_clip_zscore_uses_the_constants_alone() -> None:
    recipe = Normalisation("clip_zscore", low=-100, high=200, mean=50, std=25)
    result = normalise(np.array([-1000.0, -100, 50, 75, 3000]).reshape(1, 5, 1, 1), recipe)
    np.testing.assert_allclose(result.ravel(), [-6, -6, 0, 1, 6])


def test_numbers_that_are_not_finite_become_the_lowest() -> None:
    array = noise(1, 8, 8, 8)
    array[0, 0, 0, :3] = [np.nan, np.inf, -np.inf]
    result = normalise(array, Normalisation("zscore"))
    assert np.isfinite(result).all()
    assert result[0, 0, 0, 0] == result.min()


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_empty_images_are_unusable(value: float) -> None:
    with pytest.raises(UnusableInput):
        prepare([image(np.full((1, 4, 4, 4), value))], ZSCORE)


def test_pixels_that_contradict_the_grid_are_unusable() -> None:
    with pytest.raises(UnusableInput, match="do not fill"):
        prepare([image(noise(1, 4, 4, 5), Grid.from_parts((4, 4, 4)))], ZSCORE)


TWO = Preparation(("T1", "FLAIR"), None, (Normalisation("clip_zscore", -1e9, 1e9), Normalisation("zscore")))


def test_further_inputs_come_to_the_first_grid_by_position() -> None:
    first = Grid.from_parts((20, 20, 20), directions=np.diag([-1.0, -1.0, 1.0]), origin=(19, 19, 0))
    second = Grid.from_parts((10, 10, 24), spacing=(2, 2, 1), origin=(0.5, 0.5, -2))
    ramp = second.to_patient(np.stack(np.meshgrid(*map(np.arange, second.shape), indexing="ij"), -1))[..., 2]
    recipe = Preparation(TWO.inputs, None, (TWO.normalisation[0],) * 2)
    result = prepare([image(noise(1, 20, 20, 20), first), image(ramp[None], second)], recipe)
    assert result.array.shape == (2, 20, 20, 20)
    expected = np.broadcast_to(np.arange(20.0), (20, 20, 20))
    np.testing.assert_allclose(result.array[1], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (Grid.from_parts((20, 20, 20), origin=(200, 0, 0)), "same part"),
        (Grid.from_parts((20, 20, 21), frame_of_reference="2.25.2"), "frames of reference"),
        (Grid.from_parts((20, 20, 21), placed=False), "do not say where"),
    ],
)
def test_inputs_that_cannot_be_brought_together_are_unusable(second: Grid, reason: str) -> None:
    first = Grid.from_parts((20, 20, 20), frame_of_reference="2.25.1")
    with pytest.raises(UnusableInput, match=reason):
        prepare([image(noise(1, 20, 20, 20), first), image(noise(1, *second.shape), second)], TWO)
    with pytest.raises(UnusableInput, match="takes 2 inputs"):
        prepare([image(noise(1, 20, 20, 20), first)], TWO)


def test_labels_follow_the_image() -> None:
    grid = Grid.from_parts((10, 12, 8), directions=np.diag([-1.0, 1.0, -1.0]), spacing=(1, 1, 2))
    labels = np.zeros(grid.shape, np.int16)
    labels[2:5, 3:9, 2:6] = 3
    same = prepare_label(image(labels, grid, Kind.LABEL), grid, prepared_grid(grid, None))
    np.testing.assert_array_equal(same, labels[::-1, :, ::-1])
    assert same.dtype == np.uint8
    finer = prepare_label(image(labels, grid, Kind.LABEL), grid, prepared_grid(grid, (1, 1, 1)))
    assert finer.shape == (10, 12, 16)
    np.testing.assert_array_equal(finer, np.repeat(same, 2, axis=2))
    with pytest.raises(UnusableInput, match="image's grid"):
        prepare_label(image(labels, grid.cropped((1, 0, 0), (11, 12, 8)), Kind.LABEL), grid, grid)
    with pytest.raises(UnusableInput, match=r"0\.\.255"):
        prepare_label(image(labels - 1, grid, Kind.LABEL), grid, grid)


def test_preparation_survives_json() -> None:
    recipe = Preparation(("T1", "CT"), (1.0, 1.0, 2.5), (Normalisation("zscore"), TWO.normalisation[0]))
    assert Preparation.from_json(recipe.as_json()) == recipe
    for damage in ({"spacing": [1, 2]}, {"inputs": ["T1"]}, {"normalisation": [{"kind": "magic"}] * 2},
                   {"spacing": [0, 1, 1]}):  # fmt: skip
        with pytest.raises(BundleError, match="preparation"):
            Preparation.from_json({**recipe.as_json(), **damage})
    with pytest.raises(BundleError, match="preparation"):
        Preparation.from_json({})
