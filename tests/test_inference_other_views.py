from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test_inference_detector import detector, marked
from vesalius.core.errors import BundleError
from vesalius.core.finding import Box
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.imaging.contrast import View, ViewRecipe, view
from vesalius.inference.candidates import Candidates
from vesalius.inference.other_views import FEATURES, OtherViews, Pose, pose_of, tables_of

ODDS = float(np.log(0.8 / 0.2))


@dataclass(frozen=True)
class Held:
    array: np.ndarray

    def read(self) -> np.ndarray:
        return self.array


def breast(role: str, right: bool = False, spots: tuple[tuple[int, int], ...] = (), high: int = 240) -> Image:
    """A drawn mammogram with bright squares; the chest wall is at low i, or at high i where `right`."""
    i, j = np.meshgrid(np.arange(200), np.arange(high), indexing="ij")
    plane = np.where((i / 140) ** 2 + ((j - high / 2) / (0.48 * high)) ** 2 < 1, 100.0, 0.0)
    plane += np.random.default_rng(len(role)).normal(0, 2, plane.shape)
    for a, b in spots:
        plane[a - 6 : a + 6, b - 6 : b + 6] += 80
    array = (plane[::-1] if right else plane)[None, ..., None].copy()
    grid = Grid(array.shape[1:], np.eye(4), None, False, "pixel")
    return Image(f"{role}-{right}", grid, role, Kind.INTENSITY, "MG", 1, Held(array))


def seen(image: Image, mammogram: bool = True) -> View:
    return view(image, ViewRecipe((2.0, 2.0, 1.0), 1, mammogram))


def pose(role: str, right: bool = False) -> Pose:
    found = pose_of(role, seen(breast(role, right)))
    assert found is not None
    return found


@pytest.mark.parametrize("right", [False, True])
def test_the_breast_is_described_from_its_chest_wall(right: bool) -> None:
    found = pose("MLO-R", right)
    assert (found.view, found.side) == ("MLO", "R")
    assert found.low == pytest.approx((0, 3), abs=3) and found.span == pytest.approx((70, 115), abs=4)
    assert found.nipple == pytest.approx((69, 60), abs=4)


def test_without_a_side_in_the_role_the_chest_wall_tells_it() -> None:
    assert pose("image").view == pose("image", True).view == "image"
    assert pose("image").side != pose("image", True).side
    assert pose_of("MLO-L", seen(breast("MLO-L"), mammogram=False)) is None


def test_the_opposite_breast_is_asked_at_the_mirrored_place() -> None:
    left, right = pose("MLO-L"), pose("MLO-R", True)
    ours = marked((30, 40, 8, 0.8), (50, 90, 8, 0.5))
    theirs = marked((32, 41, 8, 0.9), (10, 100, 8, 0.2))
    table, other = tables_of([left, right], [ours, theirs], [ours.heat, theirs.heat])
    high = float(np.log(9))
    assert table[:, 0] == pytest.approx([ODDS, 0])
    assert table[:, 1] == pytest.approx([high, -6])
    assert table[:, 2] == pytest.approx([ODDS - high, -high])
    assert np.isnan(table[:, 3:]).all()
    assert other[:, 1] == pytest.approx([ODDS, -6]) and other[:, 2] == pytest.approx([high - ODDS, -2 * ODDS])


def test_the_other_view_is_asked_at_the_distance_from_the_nipple() -> None:
    mlo, cc = pose("MLO-L"), pose("CC-L")
    ours = marked((39, 60, 8, 0.8), (5, 10, 8, 0.5))
    theirs = marked((69, 30, 8, 0.9), (69, 58, 8, 0.95))  # 30 voxels from the nipple, and at it
    table, _ = tables_of([mlo, cc], [ours, theirs], [ours.heat, theirs.heat])
    assert np.isnan(table[:, 1:3]).all()
    assert table[0, 3] == pytest.approx(np.log(9)) and table[1, 3] == -6
    assert table[:, 4] == pytest.approx([ODDS - np.log(19), -np.log(19)])


def test_of_images_that_do_not_belong_together_nothing_is_said() -> None:
    one = marked((30, 40, 8, 0.8))
    for poses in (
        [pose("MLO-L"), pose("CC-R", True), None],
        [pose("MLO-L"), pose("MLO-L")],
        [pose("MLO-L"), pose("image", True)],
        [pose("image"), pose("image")],
        [pose("image-1"), pose("image-2", True)],
        [pose("MG"), pose("MG", True), pose("MG"), pose("MG", True)],  # which of them are MLO?
    ):
        tables = tables_of(poses, [one] * len(poses), [one.heat] * len(poses))
        assert all(np.isnan(table[:, 1:]).all() for table in tables)


def test_an_image_without_marks_says_that_there_is_nothing() -> None:
    one, nothing = marked((30, 40, 8, 0.8)), marked()
    table, empty = tables_of([pose("MLO-L"), pose("MLO-R", True)], [one, nothing], [one.heat, nothing.heat])
    assert table[0, :2] == pytest.approx([ODDS, -6]) and np.isnan(table[0, 2])
    assert empty.shape == (0, len(FEATURES))


def regression(**changes: Any) -> OtherViews:
    weights = np.array([1.0, -2.0, 0.0, 1.0, 0.0])
    return OtherViews(**{"mean": np.array([0.0, -3, 0, -3, 0]), "scale": np.ones(5), "weights": weights, "bias": 0.0,
                         **changes})  # fmt: skip


def test_what_a_missing_image_would_say_counts_as_the_average() -> None:
    model = regression()
    table = np.array([[0.5, np.nan, np.nan, -3.0, 0.0], [0.5, -3.0, 0.0, -3.0, 0.0], [0.5, -6.0, 0, -3.0, 0]])
    scores = model.scores(table)
    assert scores[0] == scores[1] == pytest.approx(1 / (1 + np.exp(-0.5))) and scores[2] > scores[1]
    assert model.scores(np.zeros((0, 5))).shape == (0,)
    again = OtherViews.from_json(model.as_json())
    assert again.scores(table).tolist() == scores.tolist()


def test_a_mark_of_which_nothing_is_said_keeps_its_score() -> None:
    table = np.array([[ODDS, np.nan, np.nan, np.nan, np.nan]])
    assert regression(bias=-4.0).scores(table) == pytest.approx([0.8])


@pytest.mark.parametrize(
    "change", [{"features": ["own"]}, {"scale": [0.0] * 5}, {"weights": "x"}, {"bias": np.nan}, {"mean": [1.0]}]
)
def test_a_damaged_card_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="other views"):
        OtherViews.from_json({**regression().as_json(), **change})


def test_a_detector_lowers_what_both_breasts_show(tmp_path: Path) -> None:
    """The network marks every bright square alike; one of the two is there in both breasts."""
    both, one = (60, 60), (60, 180)
    images = [breast("MLO-L", spots=(both, one)), breast("MLO-R", True, spots=(both,))]
    model = detector(tmp_path, spacing=2.0, mammogram=True, other_views=regression().as_json())
    found = [finding for finding in model.predict(images).findings if finding.place.image_id == images[0].id]  # type: ignore[union-attr]
    first, score = found[0].place, {}
    assert isinstance(first, Box)
    np.testing.assert_allclose(first.centre[:2], one, atol=5)
    for finding in found:
        assert isinstance(finding.place, Box)
        for name, place in (("both", both), ("one", one)):
            if np.hypot(*np.subtract(finding.place.centre[:2], place)) < 8:
                score.setdefault(name, finding.score)
    assert score["one"] > 2 * score.get("both", 0.0)  # which may not be among the ten surest
    alone = model.predict(images[:1]).findings
    assert len(alone) >= 2 and abs(alone[0].score - alone[1].score) < 0.1


def test_candidates_without_any_are_nothing() -> None:
    nothing = Candidates(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    assert tables_of([pose("MLO-L")], [nothing], [nothing.heat])[0].shape == (0, len(FEATURES))
