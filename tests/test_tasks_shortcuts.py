import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from learning_cohort import Held
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort, Split
from vesalius.core.finding import Finding, Point
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.core.progress import Silent
from vesalius.core.protocols import Fitted
from vesalius.core.report import Plot
from vesalius.imaging.duplicates import perceptual_hash
from vesalius.measures.target import Target
from vesalius.tasks.shortcut_features import MARKS, RIM, SIZE, as_table, case_features
from vesalius.tasks.shortcuts import Shortcuts, check_shortcuts, learn_after_checks

SICK = Target("sick", "binary", ("0", "1"))


def pixels_of(number, size=(40, 36)):
    return np.random.default_rng(number).normal(100, 20, (1, *size, 1)).clip(0, 255).round()


def make_case(number, pixels, modality="US", patient=""):
    grid = Grid.from_parts(pixels.shape[1:], placed=False, unit="pixel")
    image = Image(f"i{number}", grid, "image", Kind.INTENSITY, modality, len(pixels), Held(pixels))
    return Case(f"c{number:03d}", patient or f"p{number:03d}", (image,), covariates={"sick": float(number % 2)})


def study(change=lambda pixels, sick: pixels, n=80, modality=lambda sick: "US"):
    cases = []
    for number in range(n):
        size = tuple(np.random.default_rng(1000 + number).integers(36, 48, 2))
        cases.append(make_case(number, change(pixels_of(number, size), number % 2), modality(number % 2)))
    return Cohort("study", Path("nowhere"), tuple(cases))


def check(cohort, target=SICK):
    return check_shortcuts(cohort, cohort.cases, target, 0)


def test_noise_is_no_shortcut():
    found = check(study())
    assert not found.warns and found.sentences[0].startswith("No shortcut shown")
    assert found.table is not None and {row[4] for row in found.table.rows} == {"no"}


def burned(pixels, sick):
    if sick:
        pixels[:, 2:12:2, 1:3] = 255
    return pixels


def framed(pixels, sick):
    if sick:
        pixels[:, :, :2] = 0
    return pixels


def cut(pixels, sick):
    return pixels[:, : pixels.shape[1] - 12 * sick]


@pytest.mark.parametrize(
    ("cohort", "group"),
    [
        (study(cut), "image size"),
        (study(framed), "border pixels"),
        (study(burned), "burned-in marks"),
        (study(lambda pixels, sick: pixels * (16.0 if sick else 1.0)), "range of values"),
        (study(modality=lambda sick: "MG" if sick else "US"), "header"),
    ],
)
def test_each_shortcut_is_found_and_named_with_its_figure(cohort, group):
    found = check(cohort)
    assert found.warns and found.table is not None
    by_group = {row[0]: row for row in found.table.rows}
    assert by_group[group][1] > 0.9 and by_group[group][4] == "yes"
    assert found.sentences[0].startswith("Warning:") and f"{group} (AUROC" in found.sentences[0]
    assert Shortcuts.from_json(found.as_json()) == found


def test_the_same_seed_gives_the_same_answer():
    assert check(study(framed, 40)) == check(study(framed, 40))


@dataclass(frozen=True)
class Settings:
    minutes: float = 10.0
    seed: int = 0
    hide_marks: bool = False


def test_learning_says_what_was_found_and_keeps_to_the_budget():
    cohort, told, left, said = study(framed, 40), Silent(), [], []

    def learner(cohort, train, settings, work, progress, target):
        left.append(settings.minutes)
        return Fitted({}, {"plan": 1}, Plot("", "", "", ()))

    told.say = said.append
    fitted = learn_after_checks(learner, cohort, cohort.cases, Settings(), Path("nowhere"), told, SICK)
    assert said[0].startswith("Warning:") and left[0] < 10.0
    assert fitted.card["plan"] == 1
    assert Shortcuts.from_json(json.loads(json.dumps(fitted.card["shortcuts"]))).warns


def test_hidden_marks_give_nothing_away():
    def drawn(pixels, sick):
        plane = gaussian_filter(np.repeat(np.repeat(pixels, 3, 1), 3, 2)[:, :108, :108], (0, 1.5, 1.5, 0))
        if sick:
            plane[:, 10:90, 4:6] = plane[:, 10:90:16, 4:12] = 255
        return plane

    cohort, warned = study(drawn, 60), []
    for hide in (False, True):
        fitted = learn_after_checks(
            lambda *given: Fitted({}, {}, Plot("", "", "", ())),
            cohort, cohort.cases, Settings(hide_marks=hide), Path("nowhere"), Silent(), SICK,
        )  # fmt: skip
        warned.append(fitted.card["shortcuts"]["warns"])
    assert warned == [True, False]


def test_large_images_are_read_for_fewer_cases(monkeypatch):
    monkeypatch.setattr("vesalius.tasks.shortcuts._MOST_VOXELS", 1e5)
    found = check(study(n=80))
    assert found.table is not None  # of some sixty cases, each class often enough


def test_too_few_and_nothing_that_varies():
    few = check(study(n=12))
    assert few.table is None and "fewer than 10 patients" in few.sentences[0] and not few.warns
    same = Cohort("study", Path("nowhere"), tuple(make_case(n, pixels_of(0)) for n in range(40)))
    assert "the same in every case" in check(same).sentences[0]


def test_places_are_asked_whether_there_are_any():
    cases = []
    for case in study(framed, 60).cases:
        image = case.images[0]
        sick = case.covariates["sick"] == 1.0
        found = (Finding("mass", place=Point(image.id, (10.0, 10.0, 0.0), 4.0)),) if sick else ()
        cases.append(replace(case, covariates={}, findings=found, assessed=frozenset({image.id})))
    cohort = Cohort("study", Path("nowhere"), tuple(cases))
    assert check(cohort, Target("mass", "places", ("mass",))).warns


def test_look_alikes_across_parts_and_classes(tmp_path, monkeypatch):
    cases = [make_case(n, pixels_of(n)) for n in range(6)]
    hashes = {c.images[0].id: (c.id, c.patient, perceptual_hash(c.images[0].read())) for c in cases}
    hashes["i5"] = (*hashes["i5"][:2], hashes["i0"][2])  # patient 5 looks like patient 0, of the other class
    parts = {c.patient: "test" if n > 3 else "train" for n, c in enumerate(cases)}
    (tmp_path / "cohort.sqlite").write_bytes(b"")
    monkeypatch.setattr("vesalius.store.cohort.image_hashes", lambda folder: hashes)
    cohort = Cohort("study", tmp_path, tuple(cases), Split(parts, {}, True, "Given."))
    found = check(cohort)
    assert found.warns
    assert "one pair of images that look alike stands in both the training and the test part" in found.sentences[0]
    assert "has different truth for sick" in found.sentences[1]


def test_features_do_not_look_at_the_middle():
    plain, changed = pixels_of(0), pixels_of(0)
    changed[:, 15:25, 15:20] = changed[:, 15:25, 15:20][:, ::-1]
    first, second = (case_features(make_case(0, one), {}) for one in (plain, changed))
    for group in (SIZE, RIM, MARKS):
        assert first[group] == second[group]
    assert as_table([first, second], RIM).shape == (2, 0)
    coloured = np.repeat(plain, 3, axis=0)
    coloured[0, 10, 10] = 255
    assert case_features(make_case(0, coloured), {})[MARKS]["colour"] > 0


def test_one_pixel_images_are_no_obstacle():
    cases = [make_case(n, np.full((1, 1, 1, 1), float(n % 2))) for n in range(40)]
    assert check(Cohort("study", Path("nowhere"), tuple(cases))).sentences
