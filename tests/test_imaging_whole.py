"""A whole image is brought to a frame and a map of the frame back to the image, whatever its size and kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning_cohort import Held
from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.imaging.prepare import Normalisation
from vesalius.imaging.whole import WholePreparation, content_size, map_on_image, prepare_whole

UNIT = Normalisation("unit", mean=0.5, std=0.25)


def image_of(array: Any, grid: Grid | None = None) -> Image:
    grid = grid or Grid.from_parts(array.shape[1:], placed=False, unit="pixel")
    return Image("a", grid, "image", Kind.INTENSITY, "", len(array), Held(array))


def frame(size: tuple[int, int, int], channels: int = 1) -> WholePreparation:
    return WholePreparation((), size, (1.0, 1.0, 1.0), channels, UNIT)


@given(st.integers(2, 90), st.integers(2, 90), st.integers(4, 40), st.integers(4, 40))
@settings(max_examples=40, deadline=None)
def test_proportions_are_kept_and_the_frame_is_filled_one_way(i: int, j: int, a: int, b: int) -> None:
    content = content_size(Grid.from_parts((i, j, 1), placed=False), frame((a, b, 1)))
    assert content[0] == a or content[1] == b
    assert content[0] <= a
    assert content[1] <= b
    scale = max(i / a, j / b)
    assert abs(content[0] - max(1, i / scale)) <= 0.5 + 1e-6
    assert abs(content[1] - max(1, j / scale)) <= 0.5 + 1e-6


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32])
def test_every_number_type_gives_the_same_picture(kind: Any) -> None:
    ramp = np.arange(40 * 30).reshape(1, 40, 30, 1) % 120
    assert np.allclose(
        prepare_whole(image_of(ramp.astype(kind)), frame((20, 15, 1))),
        prepare_whole(image_of(ramp.astype(np.float64)), frame((20, 15, 1))),
        atol=1e-4,
    )


def test_colours_and_greys_take_each_others_place() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (1, 12, 12, 1), dtype=np.uint8)
    colour = np.repeat(grey, 3, 0)
    as_colour = prepare_whole(image_of(grey), frame((12, 12, 1), 3))
    assert as_colour.shape == (3, 12, 12, 1)
    assert np.allclose(as_colour, prepare_whole(image_of(colour), frame((12, 12, 1), 3)))
    assert np.allclose(prepare_whole(image_of(colour), frame((12, 12, 1))), as_colour[:1], atol=0.1)


@pytest.mark.parametrize("size", [(1, 1, 1), (9, 7, 1)])
def test_an_image_without_contrast_is_set_aside(size: tuple[int, int, int]) -> None:
    with pytest.raises(UnusableInput, match="same value"):
        prepare_whole(image_of(np.full((1, *size), 3, np.uint8)), frame((8, 8, 1)))


def test_a_volume_is_no_plane() -> None:
    with pytest.raises(UnusableInput, match="takes planes"):
        prepare_whole(image_of(np.random.default_rng(0).random((1, 8, 8, 8))), frame((8, 8, 1)))


def test_numbers_that_are_not_finite_do_not_spread() -> None:
    array = np.random.default_rng(0).random((1, 30, 30, 1)).astype(np.float32)
    array[0, 4, 4] = np.nan
    assert np.isfinite(prepare_whole(image_of(array), frame((10, 10, 1)))).all()


def test_a_large_image_is_averaged_not_picked() -> None:
    board = (np.indices((640, 480)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None]
    board[:, :320] //= 2
    small = prepare_whole(image_of(board), frame((16, 12, 1)))
    assert small[0, :7].std() < 0.05
    assert small[0, 9:].std() < 0.05
    assert small[0, 9:].mean() > small[0, :7].mean()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_map_comes_back_to_where_it_was_seen(order: tuple[int, int, int]) -> None:
    shape = tuple(int(np.array((24, 18, 12))[axis]) for axis in order)
    affine = np.eye(4)
    affine[:3, :3] = -np.eye(3)[:, list(order)]
    grid = Grid((shape[0], shape[1], shape[2]), affine)
    array = np.zeros((1, *shape), np.float32)
    place = tuple(n // 4 for n in shape)
    array[0][tuple(slice(p - 1, p + 2) for p in place)] = 100
    preparation = frame((16, 16, 16))
    seen = prepare_whole(image_of(array, grid), preparation)
    found = map_on_image(seen, grid, preparation)
    assert found is not None
    assert found.shape == (1, *shape)
    peak = np.unravel_index(int(np.argmax(found[0])), shape)
    assert np.abs(np.array(peak) - np.array(place)).max() <= 1


def test_a_map_that_would_be_huge_is_not_made() -> None:
    found = np.zeros((3, 4, 4, 1), np.float32)
    assert map_on_image(found, Grid.from_parts((8000, 6000, 1), placed=False), frame((16, 12, 1))) is None


@pytest.mark.parametrize("broken", [{"size": [1, 2]}, {"channels": 2}, {"normalisation": []}, {"voxel": [0, 1, 1]}])
def test_a_broken_card_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        WholePreparation.from_json(frame((8, 8, 1)).as_json() | broken)
