from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.finding import Box, Finding
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.imaging.contrast import ViewRecipe, view
from vesalius.inference.candidates import Candidates, candidates, with_points
from vesalius.inference.detector import Detector
from vesalius.inference.heat import HeatGeometry, heat_map
from vesalius.inference.second_look import FEATURES, SecondLook, features
from vesalius.inference.second_opinion import SecondOpinion, joined, marks_of
from vesalius.store.bundle import open_bundle, write_bundle

DEPTH = 5


@dataclass(frozen=True)
class Held:
    array: np.ndarray

    def read(self) -> np.ndarray:
        return self.array


def image_of(array: np.ndarray, name: str = "i") -> Image:
    grid = Grid(array.shape[1:], np.eye(4), None, False, "pixel")
    return Image(name, grid, "image", Kind.INTENSITY, "", len(array), Held(array))


def graph(classes: int = 1) -> bytes:
    """Heat is the view's mean intensity of 2 × 2 pixels less 3; sizes are always 8 voxels."""
    weights = np.zeros((classes, DEPTH, 2, 2, 1), np.float32)
    weights[:, 0] = 0.25
    nodes = [
        helper.make_node("Conv", ["image", "weights", "bias"], ["heat"], strides=[2, 2, 1]),
        helper.make_node("Conv", ["image", "none", "eight"], ["size"], strides=[2, 2, 1]),
    ]
    values = {
        "weights": weights, "bias": np.full(classes, -3, np.float32),
        "none": np.zeros((2, DEPTH, 2, 2, 1), np.float32), "eight": np.full(2, np.log(8), np.float32),
    }  # fmt: skip
    model = helper.make_graph(
        nodes, "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", DEPTH, "i", "j", 1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("heat", "size")],
        [numpy_helper.from_array(array, name) for name, array in values.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(model, opset_imports=opset, ir_version=8).SerializeToString())


def card(spacing: float = 1.0, mammogram: bool = False, **changes: Any) -> dict[str, Any]:
    return {
        "name": "m", "task": "detection", "research_only": "yes", "inputs": [],
        "classes": [{"value": 1, "name": "spot", "code": None}],
        "preparation": {"view": ViewRecipe((spacing, spacing, 1.0), 1, mammogram).as_json()},
        "network": {"stride": [2, 2, 1], "multiple": [8, 8, 1], "mirror_axes": [0]}, "second_look": None, **changes,
    }  # fmt: skip


def detector(tmp_path: Path, number: itertools.count[int] = itertools.count(), **changes: Any) -> Detector:  # noqa: B008
    folder = tmp_path / f"model{next(number)}"
    return Detector(open_bundle(write_bundle(folder, {"model.onnx": graph()}, card(**changes))), 1)


def spots(shape: tuple[int, int], *places: tuple[int, int], half: int = 3) -> np.ndarray:
    array = np.random.default_rng(0).normal(100, 5, (1, *shape, 1)).astype(np.float32)
    for i, j in places:
        array[0, i - half : i + half + 1, j - half : j + half + 1] += 60
    return array


def test_boxes_lie_where_the_spots_are(tmp_path: Path) -> None:
    answer = detector(tmp_path).predict([image_of(spots((101, 83), (20, 30), (70, 60)))])
    assert 2 <= len(answer.findings) <= 10
    scores = [finding.score for finding in answer.findings]
    assert scores == sorted(scores, reverse=True) and min(scores) >= 0 and max(scores) <= 1
    found = [finding.place for finding in answer.findings[:2]]
    assert all(isinstance(place, Box) and place.image_id == "i" for place in found)
    centres = sorted(place.centre for place in found if isinstance(place, Box))
    np.testing.assert_allclose(centres, [(20, 30, 0), (70, 60, 0)], atol=1.5)
    assert found[0].size == pytest.approx((8, 8, 1))  # type: ignore[union-attr]


def test_a_card_says_how_many_findings_are_kept(tmp_path: Path) -> None:
    image = image_of(np.random.default_rng(3).normal(100, 30, (1, 240, 240, 1)))
    network = card()["network"]
    assert len(detector(tmp_path).predict([image]).findings) == 10
    assert len(detector(tmp_path, network={**network, "most": 60}).predict([image]).findings) == 60
    for most in (0, 10**6, "x"):
        with pytest.raises(BundleError):
            detector(tmp_path, network={**network, "most": most})


@pytest.mark.parametrize("spacing", [2.0, 2.5, 4.0])
def test_boxes_are_in_the_inputs_own_pixels(tmp_path: Path, spacing: float) -> None:
    image = image_of(spots((203, 167), (60, 100), half=8))
    best = detector(tmp_path, spacing=spacing).predict([image]).findings[0].place
    assert isinstance(best, Box)
    np.testing.assert_allclose(best.centre, (60, 100, 0), atol=1.5 * spacing)
    assert best.size[0] == pytest.approx(8 * spacing, rel=0.02)


def test_sixteen_bits_colour_and_several_images(tmp_path: Path) -> None:
    model = detector(tmp_path)
    deep = (spots((64, 64), (20, 30)) * 256).astype(np.uint16)
    colour = np.repeat(spots((64, 64), (40, 30)), 3, axis=0)
    blank = np.zeros((1, 64, 64, 1), np.uint8)
    answer = model.predict([image_of(deep, "deep"), image_of(colour, "colour"), image_of(blank, "blank")])
    assert {finding.place.image_id for finding in answer.findings} == {"deep", "colour"}  # type: ignore[union-attr]
    assert answer.details["images"] == ["deep", "colour"] and "blank" in answer.details["aside"]
    with pytest.raises(UnusableInput):
        model.predict([image_of(blank)])
    with pytest.raises(UnusableInput):
        model.predict([image_of(np.full((1, 1, 1, 1), 7.0))])
    with pytest.raises(UnusableInput, match="planes"):
        model.predict([image_of(np.random.default_rng(0).random((1, 8, 8, 8)))])


def test_small_and_thin_images(tmp_path: Path) -> None:
    model = detector(tmp_path)
    for shape in ((2, 2), (3, 50), (1, 9)):
        array = np.random.default_rng(1).random((1, *shape, 1))
        for finding in model.predict([image_of(array)]).findings:
            assert isinstance(finding.place, Box)
            assert all(0 <= c <= n - 1 for c, n in zip(finding.place.centre, (*shape, 1), strict=True))


def test_a_mammogram_is_turned_and_turned_back(tmp_path: Path) -> None:
    i, j = np.meshgrid(np.arange(200), np.arange(240), indexing="ij")
    plane = np.where(((i - 200) / 140) ** 2 + ((j - 120) / 115) ** 2 < 1, 100.0, 0.0)
    plane += np.random.default_rng(0).normal(0, 2, plane.shape)
    plane[110:122, 130:142] += 80
    plane[5:30, 5:20] = 255  # a label
    for turned in (False, True):
        array = (plane[::-1] if turned else plane)[None, ..., None].copy()
        best = detector(tmp_path, spacing=2.0, mammogram=True).predict([image_of(array)]).findings[0].place
        assert isinstance(best, Box)
        np.testing.assert_allclose(best.centre, (83.5 if turned else 115.5, 135.5, 0), atol=4)


def test_a_second_look_reorders_and_cards_are_checked(tmp_path: Path) -> None:
    weights = np.zeros(len(FEATURES))
    weights[0] = -1.0  # the other way round
    look = SecondLook(np.zeros(len(FEATURES)), np.ones(len(FEATURES)), weights, 0.0)
    image = image_of(spots((64, 64), (20, 30)))
    plain = detector(tmp_path).predict([image]).findings
    turned = detector(tmp_path, second_look=look.as_json()).predict([image]).findings
    assert plain[0].place != turned[0].place
    broken = look.as_json()
    loop = {"feature": [0, -1], "threshold": [0.0, 0.0], "left": [0, 0], "right": [1, 0], "value": [0.0, 0.0]}
    for change in ({"features": ["x"]}, {"scale": [0.0] * len(FEATURES)}, {"trees": [loop]}, {"weights": "no"}):
        with pytest.raises(BundleError):
            detector(tmp_path, second_look={**broken, **change})
    with pytest.raises(BundleError):
        detector(tmp_path, network={"stride": [0, 2, 1], "multiple": [8, 8, 1], "mirror_axes": []})
    with pytest.raises(BundleError):
        detector(tmp_path, preparation={})


def test_of_overlapping_maxima_the_best_stays() -> None:
    heat = np.zeros((40, 40, 1), np.float32)
    for place, value in (((10, 10), 0.9), ((13, 10), 0.8), ((30, 30), 0.7)):
        heat[place] = value
    found = candidates(heat, np.full((2, 40, 40, 1), np.log(40.0), np.float32), (2, 2, 1))
    np.testing.assert_allclose(found.centres, [(20.5, 20.5, 0), (60.5, 60.5, 0)])
    assert len(candidates(np.zeros_like(heat), np.zeros((2, 40, 40, 1), np.float32), (2, 2, 1))) == 0


def test_clusters_of_points_are_candidates_too() -> None:
    view = np.zeros((DEPTH, 64, 64, 1), np.float32)
    view[-1] = 1.0
    view[-2, 50, 20] = 3.0
    heat = np.zeros((32, 32, 1), np.float32)
    heat[5, 5] = 0.5
    sizes = np.full((2, 32, 32, 1), np.log(10.0), np.float32)
    found = with_points(candidates(heat, sizes, (2, 2, 1)), view, heat, sizes, (2, 2, 1))
    assert len(found) == 2 and list(found.centres[1]) == [50, 20, 0]
    table = features(view, heat, found, (2, 2, 1))
    assert table.shape == (2, len(FEATURES)) and np.isfinite(table).all()


def test_tiles_cover_every_place_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert max(batch.shape[2:4]) <= 64 + 2 * 48
        small = batch[:, :1, ::2, ::2] + batch[:, :1, 1::2, 1::2]
        return small, small

    monkeypatch.setattr("vesalius.inference.heat._TILE", {True: (64, 64, 1), False: (64, 64, 64)})
    array = np.random.default_rng(0).normal(size=(2, 301, 130, 1)).astype(np.float32)
    heat, _ = heat_map(array, run, HeatGeometry((2, 2, 1), (8, 8, 1)))
    assert heat.shape == (1, 151, 65, 1)
    expected = 1 / (1 + np.exp(-(array[0, :300:2, ::2] + array[0, 1::2, 1::2])))
    np.testing.assert_allclose(heat[0, :150], expected, rtol=1e-4)


def marked(*rows: tuple[float, float, float, float]) -> Candidates:
    """Candidates of (i, j, size, score)."""
    table = np.array(rows, float).reshape(-1, 4)
    flat = np.zeros(len(table))
    sizes = np.repeat(table[:, 2:3], 3, axis=1)
    return Candidates(np.stack([table[:, 0], table[:, 1], flat], 1), sizes, table[:, 3])


def test_a_mark_goes_to_the_best_candidate_in_its_box_or_stands_alone() -> None:
    found = marked((10, 10, 8, 0.5), (13, 10, 8, 0.8), (60, 60, 8, 0.9))
    every, total = joined(found, found.heat, marked((11, 10, 12, 0.7), (90, 20, 12, 0.6)))
    assert every.centres[:, 0].tolist() == [10, 13, 60, 90]
    assert every.sizes[:, 0] == pytest.approx([8, 96**0.5, 8, 12])
    odds = {share: float(np.log(share / (1 - share))) for share in (0.5, 0.6, 0.7, 0.8, 0.9)}
    assert total == pytest.approx([odds[0.5] - 6, odds[0.8] + odds[0.7], odds[0.9] - 6, odds[0.6] - 6])


def test_no_marks_change_no_order_and_marks_alone_keep_theirs() -> None:
    found = marked((10, 10, 8, 0.9), (30, 10, 8, 1.0), (60, 60, 8, 0.0))
    every, total = joined(found, found.heat, marked())
    assert len(every) == 3 and np.argsort(-total).tolist() == [1, 0, 2] and np.isfinite(total).all()
    alone, total = joined(marked(), np.zeros(0), found)
    assert alone.centres.tolist() == found.centres.tolist() and np.argsort(-total).tolist() == [1, 0, 2]


def test_marks_lie_in_the_view_as_in_the_image() -> None:
    image = image_of(spots((64, 96), (20, 70)))
    seen = view(image, ViewRecipe((2.0, 2.0, 1.0), 1, False))
    findings = [
        Finding("spot", 0.7, Box("i", (20.0, 70.0, 0.0), (8.0, 6.0, 1.0))),
        Finding("other", 0.9, Box("i", (1.0, 1.0, 0.0), (8.0, 6.0, 1.0))),
    ]
    marks = marks_of(findings, "spot", seen)
    assert marks.heat.tolist() == [0.7] and marks.sizes[0, :2].tolist() == [4, 3]
    assert seen.to_source(marks.centres[0], marks.sizes[0])[0] == pytest.approx((20, 70, 0))
    assert len(marks_of([], "spot", seen)) == 0


@pytest.mark.parametrize(
    "data", [{}, {"slope": 0.0, "bias": 1.0}, {"slope": "x", "bias": 1.0}, {"slope": 1.0, "bias": np.nan}]
)
def test_a_damaged_second_opinion_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        SecondOpinion.from_json(data)
    assert SecondOpinion.from_json(SecondOpinion(0.5, -1.0).as_json()) == SecondOpinion(0.5, -1.0)
