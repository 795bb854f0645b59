"""Which files predict answers together: a study's, and those that a table joins."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import vesalius as vs
from dicom_maker import MG, image, write
from test_inference_detector import card, graph
from test_inference_other_views import breast, regression
from vesalius.core.errors import UsageError
from vesalius.core.progress import Silent
from vesalius.formats.raster import write_png
from vesalius.formats.roles import load_rules
from vesalius.store.bundle import write_bundle

BOTH, ONE = (60, 60), (60, 180)
RULES = """
[[rule]]
role = "MLO-L"
Name = "left"
[[rule]]
role = "MLO-R"
Name = "right"
[[rule]]
role = "MLO-{ImageLaterality}"
Modality = "^MG$"
"""


def pixels(right):
    return breast("MLO-R" if right else "MLO-L", right, (BOTH,) if right else (BOTH, ONE)).read()[0, ..., 0]


@pytest.fixture
def films(tmp_path):
    """Two breasts of one woman, and of another the left one only."""
    folder = tmp_path / "films"
    folder.mkdir()
    for name, right in (("a_left", False), ("a_right", True), ("b_left", False)):
        write_png(folder / f"{name}.png", np.clip(pixels(right), 0, 255).astype(np.uint8))
    (tmp_path / "films.csv").write_text("image,woman\na_left,a\na_right,a\nb_left,b\n")
    return folder


def model(tmp_path, **changes):
    rules = load_rules(RULES).as_json()
    made = card(spacing=2.0, mammogram=True, other_views=regression().as_json(), roles=rules, **changes)
    return write_bundle(tmp_path / "model", {"model.onnx": graph()}, made)


def answers(folder: Path):
    """Rows of predictions.csv, and the scores of each input by place."""
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    found = list(csv.DictReader((folder / "detections.csv").open()))
    return rows, {(row["input"], row["x"], row["y"]): float(row["score"]) for row in found}


def test_a_table_joins_files_into_cases(tmp_path, films):
    bundle = model(tmp_path)
    vs.predict(bundle, films, to=tmp_path / "apart")
    rows, apart = answers(tmp_path / "apart")
    assert [row["input"] for row in rows] == ["a_left.png", "a_right.png", "b_left.png"]
    vs.predict(bundle, films, to=tmp_path / "joined", table=tmp_path / "films.csv", case="woman")
    rows, joined = answers(tmp_path / "joined")
    assert [(row["input"], row["status"]) for row in rows] == [("a_left.png", "ok"), ("b_left.png", "ok")]
    assert {name for name, *_ in joined} == {"a_left.png", "a_right.png", "b_left.png"}
    same = [place for place in apart if place in joined]
    assert same and all(joined[place] == apart[place] for place in same if place[0] == "b_left.png")
    assert any(joined[place] != apart[place] for place in same if place[0] == "a_left.png")


def test_a_model_that_learned_from_several_images_is_given_whole_studies(tmp_path):
    def film(right, study):
        array = np.clip(pixels(right).T, 0, 255).astype(np.uint8)
        uid = {"StudyInstanceUID": f"1.2.826.0.1.{study}", "SeriesInstanceUID": f"1.2.826.0.1.{study}.{int(right)}"}
        return image(array, MG, "MG", ViewPosition="MLO", ImageLaterality="R" if right else "L", **uid)

    write(tmp_path / "pacs", [film(False, 1), film(True, 1), film(False, 2)])
    counts = {}
    for pooled in (False, True):
        bundle = model(tmp_path, pooled=pooled)
        counts[pooled] = len(vs.predict(bundle, tmp_path / "pacs", to=tmp_path / f"out{pooled}"))
    assert counts == {False: 3, True: 2}
    (_, apart), (_, joined) = (answers(tmp_path / f"out{pooled}") for pooled in (False, True))
    same = [place for place in apart if place in joined]
    assert any(joined[place] != apart[place] for place in same if place[0].startswith("001"))
    assert all(joined[place] == apart[place] for place in same if place[0].startswith("003"))


def test_images_of_a_case_that_cannot_be_used_are_named(tmp_path, films):
    write_png(films / "b_right.png", np.zeros((64, 64), np.uint8))
    (tmp_path / "films.csv").write_text("image,woman\na_left,a\na_right,a\nb_left,b\nb_right,b\n")
    progress = Silent()
    vs.predict(model(tmp_path), films, to=tmp_path / "out", table=tmp_path / "films.csv", case="woman",
               progress=progress)  # fmt: skip
    rows, _ = answers(tmp_path / "out")
    assert [(row["status"], row["left_out"]) for row in rows] == [("ok", ""), ("ok", "b_right.png")]
    assert [entry["input"] for entry in progress.aside] == ["b_right.png"]


def test_a_table_that_cannot_join_is_refused(tmp_path, films):
    table = tmp_path / "films.csv"
    with pytest.raises(UsageError, match="--table is here to join files"):
        vs.predict(model(tmp_path), films, to=tmp_path / "out", table=table)
    with pytest.raises(UsageError, match="Add --table"):
        vs.predict(model(tmp_path), films, to=tmp_path / "out", case="woman")
    with pytest.raises(UsageError, match="Add --table"):
        vs.predict(model(tmp_path), films, to=tmp_path / "out", key="image")
    with pytest.raises(UsageError, match="names none of the inputs"):
        (tmp_path / "others.csv").write_text("image,woman\nx,a\n")
        vs.predict(model(tmp_path), films, to=tmp_path / "none", table=tmp_path / "others.csv", case="woman")
    assert not (tmp_path / "none" / "predictions.csv").exists()
    with pytest.raises(UsageError, match="no column 'patient'"):
        vs.predict(model(tmp_path), films, to=tmp_path / "out", table=table, case="patient")
    with pytest.raises(UsageError, match="each image by itself"):
        vs.predict(model(tmp_path, inputs=["T1"]), films, to=tmp_path / "out", table=table, case="woman")
    assert not (tmp_path / "out").exists()


def test_a_file_that_the_table_does_not_name_is_answered_by_itself(tmp_path, films):
    (tmp_path / "some.csv").write_text("image,woman\na_left,b_left\na_right,b_left\n")  # a case called like a file
    said = []
    progress = Silent()
    progress.say = said.append
    rows = vs.predict(
        model(tmp_path), films, to=tmp_path / "out", table=tmp_path / "some.csv", case="woman", progress=progress
    )
    assert [row.input for row in rows] == ["b_left.png", "a_left.png"]
    assert any("1 inputs are not named in the table" in one for one in said)


def test_cases_of_two_patients_may_have_one_name(tmp_path, films):
    (tmp_path / "visits.csv").write_text("image,woman,visit\na_left,a,1\na_right,a,1\nb_left,b,1\n")
    options = {"table": tmp_path / "visits.csv", "case": "visit"}
    assert len(vs.predict(model(tmp_path), films, to=tmp_path / "one", **options)) == 1
    assert len(vs.predict(model(tmp_path), films, to=tmp_path / "two", patient="woman", **options)) == 2


def test_files_of_one_name_in_two_folders_stay_two(tmp_path, films):
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        (films / f"a_{side}.png").rename(tmp_path / side / "film.png")
    (tmp_path / "films.csv").write_text("image,woman\nfilm,a\n")
    vs.predict(model(tmp_path), [tmp_path / "left", tmp_path / "right"], to=tmp_path / "out",
               table=tmp_path / "films.csv", case="woman")  # fmt: skip
    rows, found = answers(tmp_path / "out")
    assert len(rows) == 1 and {name for name, *_ in found} == {"film.png", "right/film.png"}


def test_without_a_study_uid_images_of_strangers_stay_apart(tmp_path):
    bare = {"StudyInstanceUID": "", "PatientID": "", "PatientName": "", "PatientBirthDate": ""}
    made = [image(np.clip(pixels(right).T, 0, 255).astype(np.uint8), MG, "MG", ImageLaterality="L",
                  SeriesInstanceUID=f"1.2.{int(right)}", **bare) for right in (False, True)]  # fmt: skip
    write(tmp_path / "bare", made)
    assert len(vs.predict(model(tmp_path, pooled=True), tmp_path / "bare", to=tmp_path / "out")) == 2


def test_a_card_says_whether_cases_were_learned_from_as_a_whole(tmp_path, own_key):
    folder, rng = tmp_path / "in", np.random.default_rng(0)
    folder.mkdir()
    lines, kinds = ["image,woman"], ["image,kind,part"]
    for woman in range(15):
        for view in range(2):
            array = rng.normal(100, 20, (40, 40)) + 60 * (woman % 2) * (np.indices((40, 40)).sum(0) % 8 < 4)
            write_png(folder / f"w{woman}_{view}.png", np.clip(array, 0, 255).astype(np.uint8))
            lines.append(f"w{woman}_{view},{woman}")
            kinds.append(f"w{woman}_{view},{'striped' if woman % 2 else 'plain'},{'test' if woman > 10 else 'train'}")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    (tmp_path / "kinds.csv").write_text("\n".join(kinds))
    cohort = vs.ingest(folder, into=tmp_path / "study", table=tmp_path / "cases.csv", patient="woman", case="woman")
    assert len(cohort.cases) == 15
    cohort = vs.label(cohort, table=tmp_path / "kinds.csv")
    cohort = vs.split(cohort, column="part")
    vs.fit(cohort, "classification", target="kind", minutes=0.2, to=tmp_path / "striped", rival=False)
    assert json.loads((tmp_path / "striped" / "card.json").read_text())["pooled"] is True
    rows = vs.predict(tmp_path / "striped", folder, to=tmp_path / "out", table=tmp_path / "cases.csv", case="woman")
    assert len(rows) == 15 and all(row.status == "ok" for row in rows)
