import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from synthetic_study import GRID, LABELS, Held, make_case, make_cohort, outliner, seen, truth_of
from vesalius.core.errors import PatientOverlap, UnusableInput, UsageError
from vesalius.core.progress import Silent
from vesalius.core.protocols import RESEARCH_ONLY, Prediction
from vesalius.measures.summary import find_metric
from vesalius.steps.evaluate import evaluate

CASES = [make_case(n) for n in range(10)]
TRAINING, TEST = CASES[:4], CASES[4:]


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr("vesalius.tasks.arms.WORST_SHOWN", 1)


@pytest.fixture
def rivals(monkeypatch):
    """Rivals by the folder that they would be stored in."""
    stored = {}
    monkeypatch.setattr("vesalius.classical.storage.load_rival", lambda folder: stored[folder])

    def store(cohort, rival):
        folder = cohort.folder / "models" / "rival-segmentation"
        folder.mkdir(parents=True)
        stored[folder] = rival

    return store


def fitted(**settings):
    card = {"network": {}, "cohort": {"digest": "d1"}, "patients_seen": seen(TRAINING)}
    return outliner(CASES, card=card, **settings)


def test_model_and_rival_are_measured_on_the_test_part(tmp_path, rivals):
    cohort = make_cohort(tmp_path, CASES, test=6)
    rivals(cohort, outliner(CASES, shift=2.0, grown=1, name="multi-atlas segmentation"))
    progress = Silent()
    report = evaluate(fitted(shift=0.3), cohort, tmp_path / "report", progress=progress)
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data["sentences"][0].startswith("The network's mean Dice is ")
    assert "above the multi-atlas segmentation on the same 6 patients." in data["sentences"][0]
    assert data["research_only"] == RESEARCH_ONLY
    names = {"dice", "iou", "hd95_mm", "nsd", "volume_error_ml"}
    found = {(row["arm"], row["name"], row["class"]) for row in data["metrics"]}
    assert found == {
        (arm, name, label)
        for arm in ("model", "rival", "difference")
        for name in names
        for label in ("front", "back", "all")
    }
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] == 6 for row in data["metrics"])
    rows = list(csv.DictReader((tmp_path / "report" / "cases.csv").open()))
    assert {(row["case"], row["class"]) for row in rows} == {(case.id, label.name) for case in TEST for label in LABELS}
    overall = find_metric(report.metrics, "model", "dice").value
    assert overall == pytest.approx(np.mean([float(row["dice"]) for row in rows]))
    assert [picture.caption[:11] for picture in report.pictures] == ["Rank 1 of 6", "The middle ", "The best ca"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["cases.csv", "report.html", "report.json"]
    assert progress.aside == [] and progress.figures["cases"] == 6
    assert data["card"]["patients_seen"] == 4


def test_the_same_seed_gives_the_same_figures(tmp_path):
    cohort = make_cohort(tmp_path, CASES, test=6)
    first, second, other = (
        evaluate(fitted(shift=1.0), cohort, tmp_path / name, seed=seed).metrics
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second != other


def test_the_rival_wins_and_the_report_says_so(tmp_path, rivals):
    cohort = make_cohort(tmp_path, CASES, test=6)
    rivals(cohort, outliner(CASES, shift=0.1, name="tissue mixture"))
    report = evaluate(fitted(shift=2.0, grown=1), cohort, tmp_path / "report")
    assert report.sentences[0].startswith("The hand-designed rival wins: the tissue mixture's mean Dice")


def test_without_a_rival(tmp_path, rivals):
    report = evaluate(fitted(), make_cohort(tmp_path / "a", CASES, test=6), tmp_path / "report")
    assert "No hand-designed rival was fitted on this cohort." in report.sentences
    other = make_cohort(tmp_path / "b", TEST)
    other = replace(other, digest="another")
    report = evaluate(fitted(), other, tmp_path / "report")
    assert any(sentence.startswith("No hand-designed rival") for sentence in report.sentences)
    assert {metric.arm for metric in report.metrics} == {"model"}
    report = evaluate(fitted(), other, tmp_path / "report", rival=False)
    assert not any("No hand-designed rival was" in sentence for sentence in report.sentences)


def test_a_rival_that_saw_the_measured_patients_is_left_out(tmp_path, rivals):
    other = replace(make_cohort(tmp_path, TEST, test=2), digest="another")  # has its own training part
    rivals(other, outliner(CASES))
    report = evaluate(fitted(), other, tmp_path / "report")
    assert any("it was fitted on patients that are measured on here" in sentence for sentence in report.sentences)
    assert report.facts["Cases"] == "6"


def test_patients_seen_in_training_are_refused(tmp_path):
    other = replace(make_cohort(tmp_path, CASES[3:]), digest="another")
    with pytest.raises(PatientOverlap, match="seen in training"):
        evaluate(fitted(), other, tmp_path / "report")
    assert not (tmp_path / "report").exists()


class Unreadable:
    def read(self):
        raise UnusableInput("The stored image is damaged.", remedy="Ingest it again.")


def test_a_case_that_cannot_be_read_is_set_aside(tmp_path):
    broken = replace(TEST[1], images=(replace(TEST[1].images[0], pixels=Unreadable()),))
    bare = replace(TEST[2], findings=())
    cohort = make_cohort(tmp_path, [*TRAINING, TEST[0], broken, bare, *TEST[3:]], test=6)
    progress = Silent()
    report = evaluate(fitted(), cohort, tmp_path / "report", progress=progress)
    assert report.facts["Cases"] == "4"
    assert [entry["input"] for entry in progress.aside] == [broken.id]
    assert "One case could not be read: left out; the reasons are listed below." in report.sentences
    assert any("One case without truth left out." in sentence for sentence in report.sentences)
    table = next(table for table in report.tables if table.title == "Cases set aside")
    assert (broken.id, "The stored image is damaged.") in table.rows


def test_no_answer_counts_as_an_empty_one(tmp_path):
    cohort = make_cohort(tmp_path, CASES, test=6)
    progress = Silent()
    failing = fitted(fails=frozenset({TEST[0].images[0].id}))
    report = evaluate(failing, cohort, tmp_path / "report", progress=progress)
    zero = [score.value for score in report.scores if score.case == TEST[0].id and score.name == "dice"]
    assert zero == [0.0, 0.0]
    assert find_metric(report.metrics, "model", "dice").n == 6
    assert "The model gave no answer for one case; there it counts as an empty one." in report.sentences
    assert "secret" not in (tmp_path / "report" / "report.html").read_text()  # errors of others may name files
    assert "RuntimeError" in progress.aside[0]["reason"]
    with pytest.raises(UsageError, match="answered none"):
        evaluate(fitted(fails=frozenset(case.images[0].id for case in CASES)), cohort, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_answer_of_the_wrong_shape_is_no_answer(tmp_path):
    model = fitted()
    right = model.predict
    model.predict = lambda images: (
        Prediction(label_map=np.zeros((2, 2, 2), np.uint8)) if images[0].id == TEST[0].images[0].id else right(images)
    )
    report = evaluate(model, make_cohort(tmp_path, CASES, test=6), tmp_path / "report")
    assert next(table for table in report.tables if table.title == "No answer").rows[0][:2] == (TEST[0].id, "model")


def test_near_duplicates_of_a_given_split_are_counted(tmp_path):
    pairs = ((TRAINING[0].id, TEST[0].id), (TRAINING[1].id, TEST[1].id))
    cohort = make_cohort(tmp_path, CASES, test=6, given=True, duplicates=pairs)
    report = evaluate(fitted(shift=0.5), cohort, tmp_path / "report")
    said = next(sentence for sentence in report.sentences if "near-duplicate" in sentence)
    assert "2 pairs" in said and "2 of the measured cases belong to one" in said
    table = next(table for table in report.tables if table.title == "Without near-duplicates")
    assert table.rows[0][0] == "Dice" and "n = 6" in table.rows[0][2] and "n = 4" in table.rows[0][3]


def test_the_report_goes_into_the_cohort_where_no_place_is_named(tmp_path):
    evaluate(fitted(name="my model"), make_cohort(tmp_path, CASES, test=6))
    found = list((tmp_path / "reports").iterdir())
    assert len(found) == 1 and found[0].name.startswith("my-model-")
    assert (found[0] / "report.html").exists()


def test_one_patient_gives_no_interval(tmp_path):
    report = evaluate(fitted(shift=0.5), make_cohort(tmp_path, CASES[:5], test=1), tmp_path / "report")
    assert "One patient gives no interval: low and high repeat the value." in report.sentences
    assert "no interval" in (tmp_path / "report" / "report.html").read_text()


def test_label_maps_of_every_integer_type(tmp_path):
    class Wide:
        card = fitted().card

        def predict(self, images):
            return Prediction(label_map=truth_of(int(images[0].id[3:])).astype(np.int64))

    report = evaluate(Wide(), make_cohort(tmp_path, CASES, test=6), tmp_path / "report")
    assert find_metric(report.metrics, "model", "dice").value == 1.0
    assert Held(np.zeros(GRID.shape)).read().shape == GRID.shape
