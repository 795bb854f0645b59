from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.imaging.contrast import ViewRecipe, view
from vesalius.imaging.mammogram import cleaned, find_breast, looks_like_mammogram


def film(width: int = 200, height: int = 256, right: bool = False, depth: float = 255.0) -> tuple[np.ndarray, ...]:
    """A breast at the left edge with a muscle above, a label and a strip of tape; and its parts."""
    i, j = np.meshgrid(np.arange(width) / width, np.arange(height) / height, indexing="ij")
    breast = (i / 0.7) ** 2 + ((j - 0.5) / 0.48) ** 2 < 1
    muscle = breast & (i / 0.3 + j / 0.6 < 1)
    rng = np.random.default_rng(0)
    plane = np.where(breast, 0.35 + 0.1 * rng.random(i.shape), 0.01 * rng.random(i.shape))
    plane = np.where(muscle, 0.8, plane)
    plane[(i > 0.8) & (i < 0.92) & (j < 0.12)] = 1.0
    plane[(i > 0.97)] = 0.9
    turned = [part[::-1] if right else part for part in (plane * depth, breast, muscle)]
    return turned[0], turned[1], turned[2]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize(("factor", "depth"), [(1, 255.0), (4, 65535.0)])
def test_breast_muscle_and_side_are_found(right: bool, factor: int, depth: float) -> None:
    plane, breast, muscle = film(200 * factor, 256 * factor, right, depth)
    found = find_breast(plane)
    assert found is not None
    assert overlap(found.mask, breast) > 0.95
    assert overlap(found.muscle, muscle) > 0.85
    assert found.wall_right is right
    assert looks_like_mammogram(plane)


def test_label_and_tape_are_removed() -> None:
    plane, breast, _ = film()
    found = find_breast(plane)
    assert found is not None
    left = cleaned(plane, found)
    assert left[~breast].max() < 0.5 * plane.max()
    np.testing.assert_allclose(left[found.mask], plane[found.mask], rtol=1e-6)


def test_without_a_muscle_none_is_found() -> None:
    plane, breast, muscle = film()
    plane[muscle] = 0.4 * 255
    found = find_breast(plane)
    assert found is not None and found.muscle.sum() < 0.05 * breast.sum()


def test_other_pictures_are_no_mammograms() -> None:
    rng = np.random.default_rng(1)
    assert not looks_like_mammogram(rng.random((128, 128)))
    assert find_breast(np.zeros((128, 128))) is None
    assert find_breast(np.ones((3, 3))) is None
    i, j = np.meshgrid(np.linspace(-1, 1, 128), np.linspace(-1, 1, 128), indexing="ij")
    assert not looks_like_mammogram(200.0 * (i**2 + j**2 < 0.4))  # a disc has no straight wall


@dataclass(frozen=True)
class Held:
    array: np.ndarray

    def read(self) -> np.ndarray:
        return self.array


def image_of(plane: np.ndarray) -> Image:
    array = plane[None, ..., None]
    return Image("i", Grid(array.shape[1:], np.eye(4), None, False, "pixel"), "image", Kind.INTENSITY, "MG", 1,
                 Held(array))  # fmt: skip


def test_views_of_both_sides_are_alike_and_points_stand_out() -> None:
    recipe = ViewRecipe((4.0, 4.0, 1.0), 1, True)
    plane, _, _ = film(400, 512)
    plane[150:152, 300:302] = 0.9 * 255
    left, right = view(image_of(plane), recipe), view(image_of(plane[::-1].copy()), recipe)
    assert left.array.shape == (5, 100, 128, 1) and not left.turned and right.turned
    np.testing.assert_allclose(left.array, right.array, atol=0.05)
    fine = left.array[2, ..., 0]
    assert [int(n) for n in np.unravel_index(fine.argmax(), fine.shape)] == [37, 75]
    centre, _ = right.to_source(right.to_view((249.0, 301.0, 0.0), (9.0, 9.0, 1.0))[0], (1.0, 1.0, 1.0))
    assert centre == pytest.approx((249.0, 301.0, 0.0))


def test_what_cannot_be_seen_is_refused() -> None:
    with pytest.raises(UnusableInput):
        view(image_of(np.zeros((1, 1))), ViewRecipe((4.0, 4.0, 1.0)))
    with pytest.raises(BundleError):
        ViewRecipe.from_json({"spacing": [1, 1], "channels": 1, "mammogram": False})
    with pytest.raises(BundleError):
        ViewRecipe.from_json({"spacing": [1, 1, 0], "channels": 1, "mammogram": False})
