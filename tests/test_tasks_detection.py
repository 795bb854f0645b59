import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from learning_cohort import Held
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort, Split
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.finding import Box, Finding, Point
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.core.progress import Silent
from vesalius.core.protocols import Prediction
from vesalius.core.report import Report
from vesalius.measures.summary import find_metric
from vesalius.measures.target import Target
from vesalius.reporting.html import report_page
from vesalius.reporting.write import cases_csv
from vesalius.tasks import task_named
from vesalius.tasks.arms import measure_arms
from vesalius.tasks.detection import Detection

ARMS = {"model": "the detector", "rival": "the blob finder"}
PLANE = Grid.from_parts((200, 160, 1), placed=False, unit="pixel")
BLOCK = Grid.from_parts((40, 40, 20), spacing=(1.0, 1.0, 2.0))
MASS = Target("mass", "places", ("mass",))


def make_image(name, grid=PLANE):
    pixels = np.random.default_rng(len(name)).normal(100, 10, (1, *grid.shape)).astype(np.float32)
    return Image(name, grid, "image", Kind.INTENSITY, "MG", 1, Held(pixels))


def make_case(number, places=(), grid=PLANE, views=1):
    """A case with circles at the places (view, x, y, z, radius)."""
    images = tuple(make_image(f"i{number}-{view}", grid) for view in range(views))
    found = tuple(
        Finding("mass", place=Point(f"i{number}-{view}", (x, y, z), radius)) for view, x, y, z, radius in places
    )
    return Case(f"case{number:03d}", f"p{number:03d}", images, found, {}, frozenset(image.id for image in images))


def mark(case, score, x, y, z=0.0, view=0, name="mass", size=20.0):
    return Finding(name, score, Box(case.images[view].id, (x, y, z), (size, size, 1.0 if z == 0 else size)))


def values(rows):
    return {row.name: row.value for row in rows}


def many(skill, seed, cases):
    random = np.random.default_rng(seed)
    answers = {}
    for case in cases:
        found = []
        for finding in case.findings:
            if random.random() < skill:
                x, y, _ = finding.place.centre
                found.append(mark(case, float(random.beta(4, 2)), x + random.normal(0, 2), y + random.normal(0, 2)))
        for _ in range(random.integers(0, 5)):
            found.append(mark(case, float(random.beta(2, 5)), *random.uniform(10, 150, 2)))
        answers[case.id] = Prediction(tuple(sorted(found, key=lambda one: -one.score)))
    return answers


def study(n=60):
    random = np.random.default_rng(5)
    return [make_case(k, [(0, *random.uniform(30, 130, 2), 0.0, 12.0)] if k % 3 else []) for k in range(n)]


def scored(task, cases, skills):
    answers = {arm: many(skill, number, cases) for number, (arm, skill) in enumerate(skills.items())}
    return answers, [s for arm in answers for case in cases for s in task.score(arm, case, answers[arm][case.id])]


def test_candidates_are_told_with_what_they_hit():
    case = make_case(0, [(0, 50, 50, 0, 12), (0, 120, 90, 0, 12)])
    given = [mark(case, 0.9, 52, 50), mark(case, 0.8, 50, 48), mark(case, 0.7, 10, 10), mark(case, 0.6, 120, 100)]
    found = values(Detection(MASS).score("model", case, Prediction(tuple(given))))
    assert (found["lesions"], found["images"], found["found"], found["candidates"]) == (2, 1, 2, 4)
    assert [found[f"candidate_0{n}_centre"] for n in range(1, 5)] == [1, -1, 0, 2]
    assert [found[f"candidate_0{n}_score"] for n in range(1, 5)] == [0.9, 0.8, 0.7, 0.6]
    assert found["candidate_04_iou_10"] == 2 and found["candidate_04_iou_50"] == 0
    assert found["margin"] == pytest.approx(0.6 - 0.7) and found["highest"] == 0.9


def test_every_view_counts_for_itself():
    case = make_case(0, [(0, 50, 50, 0, 12), (1, 80, 80, 0, 12)], views=3)
    seen = replace(case, assessed=frozenset({"i0-0", "i0-1"}))
    given = (mark(case, 0.9, 80, 80, view=1), mark(case, 0.8, 80, 80, view=0), mark(case, 0.7, 50, 50, view=2))
    found = values(Detection(MASS).score("model", seen, Prediction(given)))
    assert (found["images"], found["lesions"], found["found"], found["candidates"]) == (2, 2, 1, 2)
    assert [found["candidate_01_centre"], found["candidate_02_centre"]] == [2, 0]  # the unseen view counts for nothing


def test_no_answer_finds_nothing():
    case = make_case(0, [(0, 50, 50, 0, 12)])
    found = values(Detection(MASS).score("model", case, Prediction(status="no")))
    assert (found["found"], found["candidates"], found["margin"]) == (0, 0, 0)
    clean = values(Detection(MASS).score("model", make_case(1), Prediction()))
    assert (clean["lesions"], clean["margin"]) == (0, 1)


def test_answers_that_do_not_fit_are_refused():
    case = make_case(0)
    with pytest.raises(UnusableInput, match="finite"):
        Detection(MASS).score("model", case, Prediction((mark(case, float("nan"), 5, 5),)))
    with pytest.raises(UnusableInput, match="looked"):
        Detection(MASS).score("model", replace(case, assessed=frozenset()), Prediction())
    assert not Detection(MASS).usable(replace(case, assessed=frozenset()))


def test_figures_follow_from_the_rows_alone():
    cases = study()
    task = Detection(MASS)
    answers, scores = scored(task, cases, {"model": 0.9, "rival": 0.5})
    metrics = task.metrics(scores, seed=0)
    marks = []  # (score, hit) by the circle itself
    for case in cases:
        found = False
        for one in answers["model"][case.id].findings:
            centre = case.findings[0].place.centre if case.findings else (1e9, 1e9, 0)
            hit = bool(np.hypot(*np.subtract(one.place.centre, centre)[:2]) < 12)
            if not (hit and found):  # a second mark on the lesion counts for nothing
                marks.append((one.score, hit))
            found |= hit
    lesions = sum(len(case.findings) for case in cases)
    for rate, name in ((0.125, "1_8"), (1.0, "1"), (2.0, "2")):
        best = 0.0
        for threshold, _ in marks:
            above = [hit for score, hit in marks if score >= threshold]
            if above.count(False) <= rate * len(cases):
                best = max(best, above.count(True) / lesions)
        assert find_metric(metrics, "model", f"sensitivity_at_{name}_fp").value == pytest.approx(best)
    assert metrics[0].name == task.primary
    names = {metric.name for metric in metrics}
    assert {"cpm", "ap_centre", "ap_10", "ap_50", "auroc", "sensitivity_at_8_fp"} <= names
    assert find_metric(metrics, "difference", "cpm").low > 0
    said = task.sentences(scores, metrics, ARMS)
    assert said[0].startswith("The detector's sensitivity at 2 false positives per image is")
    assert any("60 images were looked over" in one for one in said)
    assert task.metrics(scores, seed=0) == metrics


def test_the_report_shows_curves_points_and_marks():
    cases = study(30)
    task = Detection(MASS)
    answers, scores = scored(task, cases, {"model": 0.8, "rival": 0.8})
    metrics = task.metrics(scores, seed=0)
    said = task.sentences(scores, metrics, ARMS)
    assert any("not shown to be better than the hand-designed rival" in one for one in said)
    (plot,) = task.plots(cases, scores)
    assert plot.doubling and [series.name for series in plot.series] == ["model", "rival"]
    for series in plot.series:
        assert series.x[0] == 1 / 16 and series.x[-1] == 8.0
        assert all(np.diff(series.x) >= 0) and all(np.diff(series.y) >= 0)
    tables = task.tables(scores)
    assert len(tables[0].rows) == 14 and all(len(row) == len(t.columns) for t in tables for row in t.rows)
    pictures = task.pictures(cases[1], {arm: answers[arm][cases[1].id] for arm in answers}, scores)
    assert len(pictures) == 1 and "Model (3 surest marks)" in pictures[0].caption
    report = Report("t", "detection", tuple(said), metrics, tuple(scores), tuple(tables), (plot,), tuple(pictures))
    text = report_page(report)
    assert ">1/8<" in text and "Sensitivity at 2 false positives per image" in text and "candidate_01" not in text
    rows = list(csv.DictReader(io.StringIO(cases_csv(scores))))
    assert len(rows) == 30 and list(rows[0])[3:9] == ["margin", "images", "lesions", "found", "candidates", "highest"]


def test_several_classes_and_volumes():
    target = Target("mass,cyst", "places", ("mass", "cyst"))
    cases = []
    for number in range(12):
        case = make_case(number, [(0, 20, 20, 10, 4)] if number % 2 else [], grid=BLOCK)
        extra = (Finding("cyst", place=Box(case.images[0].id, (30.0, 30.0, 5.0), (6.0, 6.0, 3.0))),)
        cases.append(replace(case, findings=case.findings + (extra if number % 3 == 0 else ())))
    task = Detection(target)
    scores = []
    for case in cases:
        given = Prediction((mark(case, 0.9, 21, 20, 10), mark(case, 0.4, 30, 30, 5, name="CYST", size=5.0)))
        scores += task.score("model", case, given)
        assert task.pictures(case, {"model": given}, scores)[0].pixels.ndim == 3
    metrics = task.metrics(scores, seed=0)
    assert {m.class_name for m in metrics} == {"mass", "cyst", "all"}
    assert find_metric(metrics, "model", "sensitivity_at_2_fp").value == 1.0
    assert find_metric(metrics, "model", "sensitivity_at_2_fp").low < 1.0
    assert set(task.rank(scores)) == {case.id for case in cases}


def test_problems_are_told_all_at_once():
    def cohort(cases, test=0):
        parts = {c.patient: "test" if n >= len(cases) - test else "train" for n, c in enumerate(cases)}
        return Cohort("s", Path("nowhere"), tuple(cases), Split(parts, {}, False, "") if test else None)

    task = Detection(MASS)
    full = study(12)
    assert task.problems(cohort(full, 6)) == []
    assert "No patient of the cohort has a known place of mass" in task.problems(cohort([full[0], full[3]]))[0]
    assert "test part has a known place" in task.problems(cohort([full[1], full[2], full[0]], 1))[0]
    blind = [replace(case, assessed=frozenset()) for case in full]
    assert len(task.problems(cohort(blind))) == 1
    mixed = [*full, make_case(99, [(0, 20, 20, 10, 4)], grid=BLOCK)]
    assert "planes and volumes" in task.problems(cohort(mixed))[0]


def test_a_model_meets_another_cohort():
    cohort = Cohort("s", Path("nowhere"), tuple(study(6)))
    task = task_named("detection", cohort, {"target": "mass", "classes": [{"name": "mass"}, {"name": "cyst"}]})
    assert task.target.classes == ("mass", "cyst") and task.unjudged == ("cyst",)
    assert task.card(cohort)["classes"][0] == {"value": 1, "name": "mass", "code": None}
    with pytest.raises(UsageError, match="cohort knows places of mass"):
        task_named("detection", cohort, {"target": "mass", "classes": [{"name": "cat"}]})
    with pytest.raises(UsageError, match="mean mass"):
        task_named("detection", cohort, {"target": "masss"})


def test_a_case_whose_asked_image_nobody_looked_over_is_set_aside(tmp_path):
    whole = make_case(1, [(0, 60.0, 60.0, 0.0, 12.0)], views=2)
    cc, mlo = whole.images
    case = replace(whole, images=(replace(cc, role="CC"), replace(mlo, role="MLO")), assessed=frozenset({mlo.id}))
    other = replace(make_case(2, [(0, 60.0, 60.0, 0.0, 12.0)]), assessed=frozenset({"i2-0"}))
    other = replace(other, images=(replace(other.images[0], role="CC"),))

    class Finds:
        @property
        def card(self):
            return {}

        def predict(self, images):
            return Prediction((Finding("mass", 0.5, Box(images[0].id, (60.0, 60.0, 0.0), (9.0, 9.0, 1.0))),))

    measured = measure_arms(Detection(MASS), {"model": Finds()}, [case, other], ("CC",), tmp_path, Silent())
    assert [one.id for one in measured.cases] == [other.id] and [name for name, _ in measured.aside] == [case.id]


CARD = {"target": "mass", "classes": [{"name": "mass"}], "threshold": {
    "false_positives_per_image": {"mass": {"0.5": 0.9, "2": 0.5}}, "sensitivity_99": 0.2}}  # fmt: skip


def test_the_models_own_threshold_is_measured():
    cases = [make_case(number, [(0, 50, 50, 0, 10)] if number % 2 else []) for number in range(8)]
    cohort = Cohort("some", Path("nowhere"), tuple(cases))
    task = task_named("detection", cohort, CARD)
    scores = []
    for number, case in enumerate(cases):
        marks = [mark(case, 0.8 if number % 4 == 1 else 0.4, 50, 50)] if number % 2 else [mark(case, 0.5, 120, 90)]
        marks += [mark(case, 0.6, 150, 30)] if number in (0, 1, 2) else []
        scores += task.score("model", case, Prediction(findings=tuple(marks)))
        scores += task.score("rival", case, Prediction(findings=tuple(marks)))
    metrics = task.metrics(scores, seed=0)
    assert find_metric(metrics, "model", "own_sensitivity", "mass").value == 0.5
    cost = find_metric(metrics, "model", "own_false_positives", "mass")
    assert cost.value == 3 / 8 and 0 <= cost.low < cost.value < cost.high  # a score of 0.5 is not above 0.5
    assert find_metric(metrics, "rival", "own_false_positives", "mass") is None
    said = task.sentences(scores, metrics, ARMS)
    assert any("makes 0.38" in one and "finds 0.50" in one for one in said)
    assert any("threshold chosen before" in one for one in said)


def test_false_alarms_are_counted_on_normals():
    cases = [make_case(number) for number in range(10)]
    task = task_named("detection", Cohort("normal", Path("nowhere"), tuple(cases)), CARD)
    for alarms, value in ((3, 0.3), (0, 0.0)):
        scores = []
        for number, case in enumerate(cases):
            score = 0.7 if number < alarms else 0.3
            scores += task.score("model", case, Prediction(findings=(mark(case, score, 50, 50),)))
        metrics = task.metrics(scores, seed=0)
        assert {m.name for m in metrics} == {"own_false_positives"}
        found = find_metric(metrics, "model", "own_false_positives", "all")
        assert found.value == value and found.high > 0.36
        assert any(f"makes {value:.2f}" in one and "finds" not in one for one in task.sentences(scores, metrics, ARMS))


@pytest.mark.parametrize("threshold", [None, 3, {"false_positives_per_image": 3},
                                       {"false_positives_per_image": {"mass": {"2": "x"}}}])  # fmt: skip
def test_a_card_without_usable_thresholds_is_measured_without(threshold):
    cases = [make_case(number) for number in range(3)]
    task = task_named("detection", Cohort("normal", Path("nowhere"), tuple(cases)), {**CARD, "threshold": threshold})
    _, scores = scored(task, cases, {"model": 0.8})
    assert task.metrics(scores, seed=0) == ()


def test_a_model_meets_a_cohort_of_normals():
    cases = [make_case(number) for number in range(8)]
    cohort = Cohort("normal", Path("nowhere"), tuple(cases))
    task = task_named("detection", cohort, {"target": "mass", "classes": [{"name": "mass"}]})
    assert task.target.classes == ("mass",) and task.unjudged == ()
    _, scores = scored(task, cases, {"model": 0.8})
    said = task.sentences(scores, task.metrics(scores, seed=0), ARMS)
    assert any("0 of mass" in one for one in said)
    assert task.tables(scores) is not None and task.plots(cases, scores) is not None
    with pytest.raises(UsageError, match="knows no target"):
        task_named("detection", cohort, {"target": "mass"})
