"""The hand-designed rival of detection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from vesalius.classical.detection import DetectionSettings, FilterModel, FilterRival, detection_rival
from vesalius.classical.lesions.candidates import find_candidates
from vesalius.classical.lesions.field import read_field
from vesalius.classical.lesions.maps import filter_maps
from vesalius.classical.storage import load_rival, rival_folder, save_rival
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.finding import Box, Finding, Point
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.measures.target import find_target

SMALL = DetectionSettings(side=80, volume_side=32, radii=3, hard=8, easy=8)


@dataclass(frozen=True)
class Held:
    array: np.ndarray

    def read(self) -> np.ndarray:
        return self.array


def image(array: np.ndarray, name: str = "i") -> Image:
    return Image(name, Grid.from_parts(array.shape[1:]), "image", Kind.INTENSITY, "", len(array), Held(array))


def case(number: int, shape: tuple[int, int, int], sign: float = 1.0) -> Case:
    """Smooth noise with none, one or two blobs in it."""
    rng = np.random.default_rng(number)
    array = ndimage.gaussian_filter(rng.normal(0, 1, shape), [1.5 if size > 1 else 0 for size in shape])
    array /= array.std()
    findings = []
    for count in range(number % 3):
        low, high = (0.15, 0.4) if count == 0 else (0.6, 0.85)
        centre = tuple(rng.uniform(low, high) * size if size > 1 else 0.0 for size in shape)
        radius = rng.uniform(0.08, 0.11) * max(shape)
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)))
        array += sign * 4 * np.exp(-((distance / radius) ** 4))
        findings.append(Finding("mass", place=Point(f"i{number}", centre, radius)))
    picture = image(array[None].astype(np.float32), f"i{number}")
    return Case(f"c{number:02d}", f"p{number // 2}", (picture,), tuple(findings), assessed=frozenset({f"i{number}"}))


def cohort(shape: tuple[int, int, int], folder: Path = Path("nowhere"), sign: float = 1.0) -> Cohort:
    return Cohort("made", folder, tuple(case(number, shape, sign) for number in range(12)))


def fitted(study: Cohort) -> FilterModel:
    return FilterRival(find_target(study, "mass", places=True), settings=SMALL).fit(study.cases[:9], study, ())


@pytest.mark.parametrize(
    ("shape", "sign"), [((70, 90, 1), 1.0), ((70, 90, 1), -1.0), ((26, 30, 24), 1.0)], ids=["bright", "dark", "volume"]
)
def test_lesions_are_found_where_they_are(shape: tuple[int, int, int], sign: float, tmp_path: Path) -> None:
    study = cohort(shape, tmp_path, sign)
    model = fitted(study)
    save_rival(model, rival_folder(study, "detection-mass"))
    again = load_rival(rival_folder(study, "detection-mass"))
    for each in study.cases[9:]:
        answer = model.predict(each.images)
        assert again.predict(each.images) == answer
        scores = [finding.score for finding in answer.findings]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) <= SMALL.most
        for finding, place in zip(each.findings, _best(answer.findings, len(each.findings)), strict=True):
            assert np.linalg.norm(np.subtract(finding.place.centre, place.centre)) < finding.place.radius
            kept = [size for size, length in zip(place.size, shape, strict=True) if length > 1]
            assert np.mean(kept) == pytest.approx(2 * finding.place.radius, rel=0.5)
        if shape[2] == 1:
            assert all(f.place.size[2] == 1 and f.place.centre[2] == 0 for f in answer.findings)


def _best(findings: tuple[Finding, ...], count: int) -> list[Box]:
    """The best places, in the order of the first axis, which the lesions were made in."""
    return sorted((finding.place for finding in findings[:count]), key=lambda box: box.centre)


def test_training_cases_without_lesions_or_unread_are_refused() -> None:
    study = cohort((40, 40, 1))
    target = find_target(study, "mass", places=True)
    with pytest.raises(UnusableInput):
        detection_rival(study, target).fit([replace(each, findings=()) for each in study.cases], study, ())
    with pytest.raises(UnusableInput):
        detection_rival(study, target).fit([replace(each, assessed=frozenset()) for each in study.cases], study, ())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 9, 1), (3, 40, 30, 1), (1, 300, 2, 1)])
def test_blank_and_tiny_images_are_answered(shape: tuple[int, ...]) -> None:
    model = fitted(cohort((40, 40, 1)))
    for array in (np.zeros(shape), np.full(shape, 60000, np.uint16), np.full(shape, np.nan)):
        answer = model.predict([image(array)])
        assert len(answer.findings) <= SMALL.most
        assert all(np.isfinite((*finding.place.centre, *finding.place.size)).all() for finding in answer.findings)


def test_the_field_goes_to_the_source_and_back() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 333, 200, 1), (1, 30, 50, 41), (1, 1, 60, 40)):
        field = read_field(image(rng.normal(0, 1, shape)), 32)
        places = rng.uniform(0, 20, (5, field.values.ndim))
        index = field.to_index(places)
        assert field.from_index(index) == pytest.approx(places)
        corner = field.to_index(np.full((1, field.values.ndim), -0.5))
        assert corner[0][list(field.axes)] == pytest.approx(-0.5)


def test_a_breast_is_turned_and_its_outline_is_no_edge() -> None:
    i, j = np.indices((300, 400))
    left = np.where((i / 180.0) ** 2 + ((j - 200) / 170.0) ** 2 < 1, 100.0 + 0.1 * j, 2.0)
    left += np.random.default_rng(1).normal(0, 1, left.shape)
    right = left[::-1]
    one, other = (read_field(image(each[None, :, :, None]), 100) for each in (left, right))
    assert one.inside.mean() < 0.7
    assert other.flipped != one.flipped
    assert one.inside.shape == other.inside.shape
    assert (one.inside != other.inside).mean() < 0.02
    assert np.abs(one.values).max() < 20  # outside, the tissue's brightness goes on
    place = one.to_index(np.array([[20.0, 50.0]]))[0]
    mirrored = other.to_index(np.array([[20.0, 50.0]]))[0]
    assert place[0] + mirrored[0] == pytest.approx(299)


def test_each_filter_answers_to_what_it_is_made_for() -> None:
    i, j = np.indices((90, 90)) - 45.0
    distance, angle = np.hypot(i, j), np.arctan2(j, i)
    rng = np.random.default_rng(2)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (90, 90)), 1.0)
    blob = 4 * np.exp(-((distance / 9) ** 2)) + noise
    star = 4 * (np.cos(7 * angle) > 0.85) * (distance > 5) * np.exp(-((distance / 25) ** 4)) + noise
    specks = noise * 0.2
    for _ in range(12):
        a, b = rng.integers(-8, 9, 2)
        specks[45 + a, 45 + b] += 6
    for pattern, filters in (
        (blob, ("laplacian", "hessian", "tophat", "contrast", "convergence")), (star, ("spicules",)),
        (specks, ("points", "cluster")),
    ):  # fmt: skip
        field = read_field(image(pattern[None, :, :, None]), 90)
        maps = filter_maps(field, (9.0,), dark=False)
        for name in filters:
            peak = np.unravel_index(maps[name][0].argmax(), (90, 90))
            assert np.hypot(peak[0] - 45, peak[1] - 45) < 7, name


def test_candidates_are_described_by_finite_numbers() -> None:
    for shape in ((1, 60, 50, 1), (1, 24, 20, 18)):
        field = read_field(image(np.random.default_rng(3).normal(0, 1, shape)), 60)
        found = find_candidates(field, (3.0, 6.0), dark=False)
        assert found.features.shape == (len(found.places), len(found.names))
        assert np.isfinite(found.features).all()
