"""Boxes in a larger scan: what the network says inside them lands where it was seen, turned or mirrored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.imaging.prepare import Normalisation, Preparation
from vesalius.inference.boxes import predict_box
from vesalius.inference.sliding import Sliding

RECIPE = Preparation(("image",), (1.0,) * 3, (Normalisation("clip_zscore", -1e3, 1e3),))
SCANS = [
    Grid.from_parts((40, 44, 36)),
    Grid.from_parts((36, 40, 44), origin=(0, 0, 36), directions=[[0, 1, 0], [0, 0, 1], [-1, 0, 0]]),
    Grid.from_parts((60, 30, 50), spacing=(0.7, 1.5, 0.8)),
]


def turned(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])


def box(angle: float, mirrored: bool, centre: tuple[float, float, float] = (20.0, 22.0, 18.0)) -> Grid:
    directions = turned(angle) * ([-1.0, 1, 1] if mirrored else [1.0, 1, 1])
    sizes = np.array((16, 18, 14))
    return Grid.from_parts(sizes, origin=centre - directions @ ((sizes - 1) / 2), directions=directions)


def lattice(grid: Grid) -> np.ndarray:
    return grid.to_patient(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))


def halves(batch: np.ndarray) -> np.ndarray:
    """Class 1 in the box's first half along i, class 2 in the second, whatever is seen."""
    ramp = np.linspace(-9, 9, batch.shape[2], dtype=np.float32)[:, None, None] + 0 * batch
    return np.concatenate((np.full_like(batch, -20.0), -ramp, ramp), axis=1)


@pytest.mark.parametrize("grid", SCANS)
@pytest.mark.parametrize("angle", [0.0, 0.3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_boxes_own_axes_decide(grid: Grid, angle: float, mirrored: bool) -> None:
    target = box(angle, mirrored)
    scan = np.random.default_rng(0).normal(size=grid.shape)
    sliding = Sliding((16, 18, 14), multiple=(1, 1, 1))
    block, labels = predict_box(scan, grid, target, RECIPE, halves, sliding, (1, 2))
    index = target.to_index(lattice(grid)[block])
    inside = ((index > 0.2) & (index < np.asarray(target.shape) - 1.2)).all(axis=-1)
    outside = ((index < -1.3) | (index > np.asarray(target.shape) + 0.3)).any(axis=-1)
    clear = inside & (np.abs(index[..., 0] - 7.5) > 1.0)
    assert clear.sum() > 500
    np.testing.assert_array_equal(labels[clear], np.where(index[..., 0] < 7.5, 1, 2)[clear])
    assert (labels[outside] == 0).all()


@pytest.mark.parametrize("grid", SCANS)
def test_the_network_sees_the_scan_where_the_box_lies(grid: Grid) -> None:
    """A ramp in patient space arrives in the box as that ramp, to a tenth of a millimetre."""
    target, seen = box(0.3, True), []

    def watch(batch: np.ndarray) -> np.ndarray:
        seen.append(batch[0, 0])
        return halves(batch)

    scan = lattice(grid) @ np.array([1.0, -2.0, 0.5])
    predict_box(scan, grid, target, RECIPE, watch, Sliding((16, 18, 14), multiple=(1, 1, 1)), (1, 2))
    expected = lattice(target) @ np.array([1.0, -2.0, 0.5])
    assert np.abs(seen[0] - expected).max() < 0.1


def test_a_box_that_leaves_the_scan_is_cut_off() -> None:
    scan = np.random.default_rng(0).normal(size=(40, 44, 36))
    target = box(0.2, False, centre=(2.0, 2.0, 34.0))
    block, labels = predict_box(scan, SCANS[0], target, RECIPE, halves, Sliding((16, 18, 14)), (1, 2))
    assert labels.shape == scan[block].shape
    assert set(np.unique(labels)) == {0, 1, 2}


@dataclass(frozen=True)
class Held:
    array: Any

    def read(self) -> Any:
        return self.array


def test_regions_get_values_and_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    from test_inference_segmenter import CARD, HALF, toy_files
    from vesalius.inference import finder
    from vesalius.inference.segmenter import Segmenter
    from vesalius.store.bundle import open_bundle, write_bundle

    grid = Grid.from_parts((90, 40, 40), origin=(-45.0, 0, 0))
    places = {"left": (25.0, 20.0, 20.0), "right": (-25.0, 20.0, 20.0)}
    distance = {side: np.linalg.norm(lattice(grid) - place, axis=-1) for side, place in places.items()}
    scan = 100.0 * ((distance["left"] < 6) | (distance["right"] < 4))
    regions = tuple(
        finder.Region(box(0.1, side == "left", place), side, 5 * number)
        for number, (side, place) in enumerate(places.items())
    )
    found = finder.Found(regions, {"structure": 0.5}, np.eye(4))
    monkeypatch.setattr(finder, "find_regions", lambda *given: found)
    preparation = {"inputs": ["image"], "spacing": [1.0] * 3, "normalisation": [HALF]}
    card = {**CARD, "preparation": preparation, "finder": {"crop_below_mm": 80.0}}
    segmenter = Segmenter(open_bundle(write_bundle(tmp_path / "toy", toy_files(), card)), threads=1)
    image = Image("x", grid, "image", Kind.INTENSITY, "MR", 1, Held(scan[None].astype(np.float32)))
    answer = segmenter.predict([image])
    assert [(item["value"], item["name"]) for item in answer.details["classes"]] == [
        (5, "left_bright"), (10, "right_bright")
    ]  # fmt: skip
    assert answer.details["found"] == {"structure": 0.5}
    for side, value in (("left", 5), ("right", 10)):
        truth, seen = distance[side] < (6 if side == "left" else 4), answer.label_map == value
        assert 2 * (truth & seen).sum() / (truth.sum() + seen.sum()) > 0.9
        assert answer.details["volumes_ml"][f"{side}_bright"] == pytest.approx(truth.sum() / 1000, rel=0.15)

    small = grid.cropped((0, 0, 0), (40, 40, 40))  # a crop: nothing is looked for
    crop = Image("x", small, "image", Kind.INTENSITY, "MR", 1, Held(scan[None, :40].astype(np.float32)))
    assert set(np.unique(segmenter.predict([crop]).label_map)) == {0, 5}
    colour = Image("x", grid, "image", Kind.INTENSITY, "MR", 3, Held(np.stack([scan] * 3)))
    with pytest.raises(UnusableInput, match="colour"):
        segmenter.predict([colour])
