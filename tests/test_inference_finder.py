from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.grid import Array, FloatArray, Grid
from vesalius.imaging.brain_template import load_template
from vesalius.imaging.registration import Volume, rotation
from vesalius.inference.finder import Found, find_regions, needs_finding
from vesalius.inference.whole_head import Outline, check_outlines, outline_whole_head, sided_classes

CLASSES = [{"value": 1, "name": "anterior", "code": None}, {"value": 2, "name": "posterior", "code": None}]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nilearn")
    bench = str(Path(__file__).parents[1] / "bench")
    sys.path.insert(0, bench)
    try:
        import build_finder
    finally:
        sys.path.remove(bench)
    folder = tmp_path_factory.mktemp("bundle")
    build_finder.build(folder)
    return folder


@pytest.fixture(scope="module")
def card(assets: Path) -> dict[str, object]:
    return {"classes": CLASSES, "finder": json.loads((assets / "finder.json").read_text())}


def head_pose(turn: tuple[float, float, float], size: float, shift: FloatArray) -> FloatArray:
    pose = np.eye(4)
    pose[:3, :3] = rotation(*turn) * size
    pose[:3, 3] = shift
    return pose


def scanned(
    assets: Path, pose: FloatArray, orientation: str = "LPS", spacing: float = 2.0, scalp: bool = True
) -> tuple[Array, Grid]:
    """The template's brain at a pose, with a dark skull and a bright scalp, in a scanner's grid."""
    template = load_template(assets / "finder/template.safetensors")
    tone = template.tone.values
    if scalp:
        away = scipy.ndimage.distance_transform_edt(template.brain.values < 0.5) * 2.0
        tone = np.where((away > 8) & (away < 15), 0.9, tone)
    directions = np.zeros((3, 3))
    for index_axis, letter in enumerate(orientation):
        axis = next(number for number, pair in enumerate(("RL", "AP", "IS")) if letter in pair)
        directions[axis, index_axis] = 1.0 if letter in "LPS" else -1.0
    shape = [round(230 / spacing)] * 3
    middle = pose[:3, :3] @ [0.0, 18.0, 8.0] + pose[:3, 3]
    origin = middle - directions @ (np.full(3, 230 / 2))
    grid = Grid.from_parts(shape, spacing=(spacing,) * 3, origin=origin, directions=directions)
    index = np.stack(np.meshgrid(*(range(size) for size in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    back = np.linalg.inv(pose)
    places = grid.to_patient(index) @ back[:3, :3].T + back[:3, 3]
    values, inside = Volume(tone.astype(np.float32), template.tone.grid).on(places, grid.shape)
    noise = np.random.default_rng(0).normal(size=grid.shape) * 8.0
    return (np.where(inside, values, 0.0) * 400.0 + noise).astype(np.float32), grid


def place(card: dict[str, object], pose: FloatArray, side: str) -> FloatArray:
    return np.asarray(pose[:3, :3] @ card["finder"][side] + pose[:3, 3])


def errors(found: Found, card: dict[str, object], pose: FloatArray) -> list[float]:
    return [float(np.linalg.norm(region.centre - place(card, pose, region.side))) for region in found.regions]


@pytest.mark.parametrize(
    ("turn", "size", "shift", "orientation"),
    [
        ((0.0, 0.0, 0.0), 1.0, (0.0, 0.0, 0.0), "LPS"),
        ((18.0, -12.0, 15.0), 0.85, (1500.0, -900.0, 4000.0), "PIR"),
        ((-25.0, 8.0, -20.0), 1.05, (-300.0, 20.0, 5.0), "RAS"),
    ],
)
def test_both_hippocampi_are_found_however_the_head_lies(assets, card, turn, size, shift, orientation) -> None:
    pose = head_pose(turn, size, shift)
    found = find_regions(*scanned(assets, pose, orientation), card["finder"], assets)
    assert [region.side for region in found.regions] == ["left", "right"]
    assert [region.offset for region in found.regions] == [0, 2]
    assert max(errors(found, card, pose)) < 3.0
    assert found.quality["structure"] > 0.5


def test_sides_come_from_coordinates_when_the_pixels_are_mirrored(assets, card) -> None:
    pose = head_pose((5.0, 8.0, -10.0), 0.95, (3.0, 0.0, 0.0))
    array, grid = scanned(assets, pose, "RAS", scalp=False)
    mirrored = find_regions(array[::-1], grid, card["finder"], assets)
    left, right = mirrored.regions
    assert left.side == "left"
    assert left.centre[0] > right.centre[0] + 30.0
    # The same pixels turned round together with their affine are the same head.
    affine = np.array(grid.affine)
    affine[:3, 3] = grid.to_patient((grid.shape[0] - 1, 0, 0))
    affine[:3, 0] *= -1.0
    turned = find_regions(array[::-1], Grid(grid.shape, affine), card["finder"], assets)
    assert max(errors(turned, card, pose)) < 3.0


def test_boxes_are_laid_in_so_that_both_sides_look_alike(assets, card) -> None:
    array, grid = scanned(assets, np.eye(4))
    found = find_regions(array, grid, card["finder"], assets)
    left, right = (region.grid for region in found.regions)
    assert left.spacing == pytest.approx((1.0, 1.0, 1.0))
    assert left.shape == right.shape == (48, 64, 48)
    assert np.linalg.det(left.affine[:3, :3]) > 0 > np.linalg.det(right.affine[:3, :3])
    assert left.affine[0, 0] > 0.9  # i runs to the patient's left in the left box: away from the middle
    assert right.affine[0, 0] < -0.9


def refused(array: Array, grid: Grid, card: dict[str, object], assets: Path) -> str:
    with pytest.raises(UnusableInput) as caught:
        find_regions(array, grid, card["finder"], assets)
    return caught.value.what


def test_a_head_that_stands_otherwise_than_its_header_says_is_refused(assets, card) -> None:
    array, grid = scanned(assets, np.eye(4))
    refused(array[:, :, ::-1], grid, card, assets)


def test_no_head_no_outline(assets, card) -> None:
    grid = Grid.from_parts((90, 90, 90), spacing=(2.0, 2.0, 2.0))
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(0).normal(size=grid.shape), 2.0)
    refused(noise, grid, card, assets)
    assert "empty" in refused(np.zeros(grid.shape), grid, card, assets)
    thin = Grid.from_parts((128, 128, 4), spacing=(2.0, 2.0, 5.0))
    assert "thin" in refused(np.zeros(thin.shape), thin, card, assets)
    assert "empty" in refused(np.full(grid.shape, np.nan), grid, card, assets)


def test_another_contrast_than_t1_is_refused(assets, card) -> None:
    array, grid = scanned(assets, np.eye(4), scalp=False)
    t2 = np.where(array > 60.0, 460.0 - array, 0.0)
    refused(t2, grid, card, assets)


def test_a_hippocampus_outside_the_field_of_view_is_named(assets, card) -> None:
    array, grid = scanned(assets, np.eye(4))
    cut = int(grid.to_index(card["finder"]["right"])[0]) + 4
    half = refused(array[cut:], grid.cropped((cut, 0, 0), grid.shape), card, assets)
    assert "right hippocampus" in half or "No head" in half


def test_only_large_placed_scans_need_finding(card) -> None:
    crop, head = Grid.from_parts((35, 51, 35)), Grid.from_parts((256, 256, 180))
    assert not needs_finding(crop, card)
    assert needs_finding(head, card)
    assert not needs_finding(head, {"finder": None})
    assert not needs_finding(replace(head, placed=False), card)


def test_a_missing_template_is_the_bundles_fault(tmp_path, card) -> None:
    with pytest.raises(BundleError, match="template"):
        find_regions(np.zeros((99, 99, 99)), Grid.from_parts((99, 99, 99)), card["finder"], tmp_path)


def marked(array: Array, grid: Grid, centres: dict[str, FloatArray], back: FloatArray) -> Array:
    """The head with a bright bar at each hippocampus, its front half the brighter."""
    index = np.stack(np.meshgrid(*(range(size) for size in grid.shape), indexing="ij"), axis=-1)
    result = array.copy()
    for centre in centres.values():
        offset = (grid.to_patient(index) - centre) @ back.T
        bar = (np.abs(offset) <= (7.0, 18.0, 6.0)).all(axis=-1)
        result[bar] = np.where(offset[bar][:, 1] < 0, 3000.0, 2000.0)
    return result


def bright(box: Array) -> Array:
    """A network that outlines what was marked."""
    anterior, posterior = box > 2500.0, (box > 1200.0) & (box <= 2500.0)
    return np.stack([~(anterior | posterior), anterior, posterior]).astype(np.float32)


def test_a_whole_head_is_outlined_on_its_own_grid(assets, card) -> None:
    pose = head_pose((10.0, -5.0, 8.0), 0.95, (40.0, -60.0, 200.0))
    array, grid = scanned(assets, pose, "SAR")
    centres = {side: place(card, pose, side) for side in ("left", "right")}
    array = marked(array, grid, centres, np.linalg.inv(pose[:3, :3] / 0.95))
    labels, details = outline_whole_head(array, grid, card, assets, bright)
    assert labels.shape == grid.shape
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4}
    for side, values in (("left", (1, 2)), ("right", (3, 4))):
        voxels = np.isin(labels, values)
        centre = grid.to_patient(np.argwhere(voxels).mean(axis=0))
        assert np.linalg.norm(centre - centres[side]) < 1.5
        front, rear = (grid.to_patient(np.argwhere(labels == value).mean(axis=0)) for value in values)
        assert front[1] < rear[1] - 10.0
        overlap = 2 * (voxels & (array > 1200)).sum() / (voxels.sum() + (array > 1200).sum() / 2)
        assert overlap > 0.85
    assert [entry["name"] for entry in details["classes"]] == [
        "left_anterior", "left_posterior", "right_anterior", "right_posterior"
    ]  # fmt: skip
    truth = 15 * 37 * 13 / 1000
    assert sum(details["volumes_ml"].values()) == pytest.approx(2 * truth, rel=0.25)


def outline(found: Found, number: int, sizes: tuple[float, float, float], shift: float = 0.0) -> Outline:
    region = found.regions[number]
    ticks = [np.arange(size) - (size - 1) / 2 for size in region.grid.shape]
    offset = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1) - (0.0, shift, 0.0)
    inside = (np.abs(offset) <= sizes).all(axis=-1)
    return Outline(region, np.stack([~inside, inside]).astype(np.float32))


@pytest.mark.parametrize(
    ("left", "right", "shift", "sentence"),
    [
        ((3, 8, 3), (7, 18, 6), 0.0, "plausible"),
        ((7, 18, 6), (16, 24, 16), 0.0, "plausible"),
        ((7, 18, 6), (7, 12, 6), 15.0, "expected"),
        ((7, 18, 6), (4, 12, 4), 0.0, "differ"),
        ((5, 32, 4), (7, 18, 6), 0.0, "box"),
    ],
)
def test_implausible_outlines_are_refused(card, left, right, shift, sentence) -> None:
    grid = Grid.from_parts((48, 64, 48))
    regions = tuple(_region(grid, side, number) for number, side in enumerate(("left", "right")))
    found = Found(regions, {}, np.eye(4))
    good = [outline(found, number, (7, 18, 6)) for number in (0, 1)]
    check_outlines(good, regions, card["finder"])
    doubtful = [outline(found, 0, left), outline(found, 1, right, shift)]
    with pytest.raises(UnusableInput, match=sentence):
        check_outlines(doubtful, regions, card["finder"])


def _region(grid: Grid, side, number):
    from vesalius.inference.finder import Region

    return Region(grid, side, 2 * number)


def test_classes_of_both_sides_follow_one_another() -> None:
    sided = sided_classes(CLASSES)
    assert [entry["value"] for entry in sided] == [1, 2, 3, 4]
    assert sided[2]["name"] == "right_anterior"
    assert sided[2]["laterality"]["meaning"] == "Right"
