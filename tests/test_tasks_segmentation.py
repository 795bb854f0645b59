from dataclasses import replace

import numpy as np
import pytest

from synthetic_study import GRID, LABELS, Held, make_case, make_cohort, outliner, truth_of
from vesalius.core.cohort import Label
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.finding import Finding, Mask
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.core.protocols import Prediction
from vesalius.measures.summary import summarise
from vesalius.tasks import task_named
from vesalius.tasks.inputs import inputs_of
from vesalius.tasks.segmentation import Segmentation

ARMS = {"model": "the network", "rival": "the rival"}


def by_name(scores, class_name="front"):
    return {score.name: score.value for score in scores if score.class_name == class_name}


def test_perfect_and_missing_answers():
    case = make_case(0)
    task = Segmentation(LABELS)
    perfect = by_name(task.score("model", case, Prediction(label_map=truth_of(0))))
    assert list(perfect) == ["dice", "iou", "hd95_mm", "nsd", "volume_error_ml", "volume_ml"]
    assert (perfect["dice"], perfect["iou"], perfect["hd95_mm"], perfect["nsd"]) == (1.0, 1.0, 0.0, 1.0)
    assert perfect["volume_error_ml"] == 0.0
    assert perfect["volume_ml"] == pytest.approx(np.count_nonzero(truth_of(0) == 1) * 1.2 / 1000)
    silent = by_name(task.score("model", case, Prediction(status="no answer")))
    diagonal = float(np.linalg.norm(np.multiply(GRID.shape, GRID.spacing)))
    assert (silent["dice"], silent["nsd"], silent["hd95_mm"]) == (0.0, 0.0, pytest.approx(diagonal))
    assert silent["volume_error_ml"] == -perfect["volume_ml"]


def test_a_class_absent_from_truth_and_answer_agrees():
    truth = np.where(truth_of(1) == 2, 0, truth_of(1))
    task = Segmentation(LABELS)
    case = make_case(1, truth)
    assert by_name(task.score("model", case, Prediction(label_map=truth)), "back")["dice"] == 1.0
    wrong = task.score("model", case, Prediction(label_map=truth_of(1)))
    assert by_name(wrong, "back")["dice"] == 0.0
    scores = wrong + task.score("rival", case, Prediction(label_map=truth))
    said = " ".join(task.sentences(scores, summarise(scores, seed=0), ARMS))
    assert "Absent from the truth: back in 1 of 1 cases." in said


def test_ignored_voxels_count_for_nothing():
    truth = truth_of(2)
    truth[:, :, 15:] = 255
    garbage = truth_of(2)
    garbage[:, :, 15:] = 1
    found = by_name(Segmentation(LABELS, 255).score("model", make_case(2, truth), Prediction(label_map=garbage)))
    assert found["dice"] == 1.0
    assert found["hd95_mm"] == 0.0
    assert found["volume_error_ml"] == 0.0


def test_classes_are_matched_by_name():
    cohort = make_cohort_of(make_case(0))
    card = {
        "inputs": ["T1"],
        "classes": [{"name": "Back", "value": 1}, {"name": "front", "value": 7}, {"name": "roof", "value": 2}],
    }
    task = task_named("segmentation", cohort, card)
    answer = np.zeros(GRID.shape, np.uint8)
    answer[truth_of(0) == 1], answer[truth_of(0) == 2] = 7, 1
    answer[0, 0, 0] = 2  # "roof", which the cohort does not know
    scores = task.score("model", cohort.cases[0], Prediction(label_map=answer))
    assert by_name(scores, "front")["dice"] == by_name(scores, "back")["dice"] == 1.0
    scores = task.score("rival", cohort.cases[0], Prediction(label_map=truth_of(0)))  # fitted on this cohort
    assert by_name(scores, "front")["dice"] == 1.0
    assert "roof" in task.sentences(scores, (), ARMS)[-1]


def make_cohort_of(*cases):
    from pathlib import Path

    return make_cohort(Path("nowhere"), cases)


def test_no_class_in_common_is_refused():
    card = {"classes": [{"name": "liver", "value": 1}]}
    with pytest.raises(UsageError, match=r"liver.*front, back.*--names"):
        task_named("segmentation", make_cohort_of(make_case(0)), card)
    with pytest.raises(UsageError, match="no task"):
        task_named("divination")


def test_answers_that_do_not_fit_the_image_are_refused():
    task, case = Segmentation(LABELS), make_case(0)
    for wrong in (np.zeros((3, 3, 3), np.uint8), np.zeros(GRID.shape, np.float32)):
        with pytest.raises(UnusableInput, match="label map"):
            task.score("model", case, Prediction(label_map=wrong))
    with pytest.raises(UnusableInput, match="no masks"):
        task.score("model", replace(case, findings=()), Prediction())


def test_an_answer_on_another_grid_is_brought_to_the_truth():
    fine = Grid.from_parts((72, 88, 60), spacing=(0.5, 0.5, 0.6), origin=(-0.25, -0.25, -0.3))
    case = make_case(3)
    second = Image("imgf", fine, "FLAIR", Kind.INTENSITY, "MR", 1, Held(np.zeros((1, *fine.shape), np.float32)))
    case = replace(case, images=(second, *case.images))
    answer = truth_of(3).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    found = by_name(Segmentation(LABELS, inputs=("FLAIR", "T1")).score("model", case, Prediction(label_map=answer)))
    assert found["dice"] > 0.97


def test_planes_without_spacing_are_measured_in_pixels():
    grid = Grid.from_parts((40, 30, 1), placed=False, unit="pixel")
    truth = np.zeros(grid.shape, np.uint8)
    truth[10:20, 10:20] = 1
    answer = np.zeros_like(truth)
    answer[10:23, 10:20] = 1
    case = make_case(0, truth, grid)
    task = Segmentation(LABELS[:1])
    scores = task.score("model", case, Prediction(label_map=answer))
    found = by_name(scores)
    assert list(found) == ["dice", "iou", "hd95_px", "nsd", "size_error_px", "size_px"]
    assert found["hd95_px"] == 3.0
    assert found["size_error_px"] == 30
    assert "no physical spacing" in " ".join(task.sentences(scores, summarise(scores, seed=0), ARMS))
    assert task.pictures(case, {"model": Prediction(label_map=answer)}, scores)[0].pixels.ndim == 3


def test_planes_with_spacing_are_measured_in_square_millimetres():
    grid = Grid.from_parts((40, 30, 1), spacing=(0.5, 2.0, 1.0), placed=False)
    truth = np.zeros(grid.shape, np.uint8)
    truth[10:20, 10:20] = 1
    found = by_name(Segmentation(LABELS[:1]).score("model", make_case(0, truth, grid), Prediction()))
    assert found["area_error_mm2"] == pytest.approx(-100.0)


def test_tables_plots_and_pictures_hold_every_arm():
    cases = [make_case(n) for n in range(4)]
    task = Segmentation(LABELS)
    answers = {
        arm: {case.id: outliner(cases, shift=shift).predict(case.images) for case in cases}
        for arm, shift in (("model", 0.5), ("rival", 2.0))
    }
    scores = [s for arm in answers for case in cases for s in task.score(arm, case, answers[arm][case.id])]
    tables = task.tables(scores)
    assert [len(table.rows) for table in tables] == [4, 4]
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    plots = task.plots(cases, scores)
    assert [plot.title for plot in plots][:2] == ["Dice by volume: front", "Dice by volume: back"]
    assert {series.name for series in plots[0].series} == {"model", "rival"}
    assert [series.name for series in plots[2].series if series.line] == ["bias", "95 % limit", "95 % limit"]
    truth = next(s for s in plots[0].series if s.name == "model").x
    assert truth == pytest.approx([np.count_nonzero(truth_of(n) == 1) * 1.2 / 1000 for n in range(4)])
    picture = task.pictures(cases[0], {arm: found[cases[0].id] for arm, found in answers.items()}, scores)[0]
    assert picture.pixels.dtype == np.uint8 and picture.pixels.shape[2] == 3
    assert "case000" in picture.caption and "rival" in picture.caption


def test_many_classes_share_one_plot():
    labels = tuple(Label(n, f"class {n}") for n in range(1, 7))
    truth = np.zeros((20, 20, 20), np.uint8)
    for label in labels:
        truth[label.value * 2, 5:15, 5:15] = label.value
    grid = Grid.from_parts(truth.shape)
    case = make_case(0, truth, grid)
    task = Segmentation(labels)
    scores = task.score("model", case, Prediction(label_map=truth))
    assert [plot.title for plot in task.plots([case], scores)] == [
        "Dice by volume: all classes",
        "Volume agreement (Bland-Altman): all classes",
    ]


def test_problems_are_told_all_at_once(tmp_path):
    cases = [make_case(n) for n in range(4)]
    task = Segmentation()
    assert task.problems(make_cohort(tmp_path, cases, test=2)) == []
    assert "label" in task.problems(make_cohort(tmp_path, [replace(case, findings=()) for case in cases]))[0]
    plane = Grid.from_parts((36, 44, 1))
    flat = make_case(9, truth_of(9)[:, :, 15:16], plane, patient="patient000")
    front_only = np.where(truth_of(0) == 2, 0, truth_of(0))
    found = task.problems(make_cohort(tmp_path, [make_case(0, front_only), replace(flat, findings=_front(flat))]))
    assert len(found) == 3
    assert "One patient" in found[0] or "one patient" in found[0]
    assert "planes" in found[1]
    assert "back" in found[2]


def _front(case):
    image = case.label_image
    image = replace(image, pixels=Held(np.where(image.read() == 2, 0, image.read())))
    return tuple(Finding(label.name, place=Mask(image, label.value)) for label in LABELS)


def test_a_class_only_in_the_test_part_is_a_problem(tmp_path):
    front = np.where(truth_of(0) == 2, 0, truth_of(0))
    cohort = make_cohort(tmp_path, [make_case(0, front), make_case(1, front), make_case(2)], test=1)
    assert Segmentation().problems(cohort) == [
        "No training case contains back. Draw the split anew, or leave it out of --names."
    ]


def test_inputs_by_role():
    case = make_case(0)
    assert inputs_of(case, ["T1"]) == inputs_of(case, []) == inputs_of(case, ["image"]) == case.images
    with pytest.raises(UnusableInput, match="needs FLAIR, but the case has T1"):
        inputs_of(case, ["FLAIR"])
    with pytest.raises(UnusableInput, match="no image"):
        inputs_of(replace(case, images=()), ["T1"])
