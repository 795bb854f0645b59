"""label joins places and the classes of folders to the images of a cohort."""

import numpy as np
import pytest
from PIL import Image

import vesalius as vs
from vesalius.core.errors import UsageError
from vesalius.core.finding import Box, Point
from vesalius.core.progress import Silent


def pictures(folder, names, size=(60, 50)):
    rng = np.random.default_rng(3)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, size[::-1], dtype=np.uint8)).save(path)
    return folder


def by_patient_count(cohort):
    return sorted(len(case.findings) for case in cohort)


def test_mias_circles_are_counted_from_below_and_the_unknown_left_out(tmp_path):
    pictures(tmp_path / "in", ["mdb001.png", "mdb003.png", "mdb059.png"])
    vs.ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    (tmp_path / "Info.txt").write_text("mdb001 G CIRC M 20 10 8\nmdb003 D NORM\nmdb059 F CIRC B *NOTE 3*\n")
    cohort = vs.label(tmp_path / "study", table=tmp_path / "Info.txt")
    assert by_patient_count(cohort) == [0, 0, 1] and sum(len(case.assessed) for case in cohort) == 2
    place = next(finding.place for case in cohort for finding in case.findings)
    assert isinstance(place, Point) and place.centre == (20.0, 40.0, 0.0) and place.radius == 8.0
    assert sorted(case.covariates["tissue"] for case in cohort) == ["dense-glandular", "fatty", "fatty-glandular"]


def test_boxes_replace_those_that_were_there_and_unknown_images_are_counted(tmp_path):
    pictures(tmp_path / "in", ["a.png", "b.png"])
    vs.ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    table = tmp_path / "boxes.csv"
    table.write_text(
        "input,class,x,y,width,height\na.png,mass,11.5,7.5,4,6\na,mass,20,20,3,3\nb.png,,,,,\nz.png,,,,,\n"
    )
    digest = vs.open_cohort(tmp_path / "study").digest
    for _ in range(2):
        cohort = vs.label(tmp_path / "study", boxes=table)
    assert cohort.digest != digest
    assert by_patient_count(cohort) == [0, 1]  # `a` alone was a row of its own name, the last one counts
    assert isinstance(next(f.place for c in cohort for f in c.findings), Box)


def test_a_place_outside_of_its_image_is_set_aside(tmp_path):
    pictures(tmp_path / "in", ["a.png", "b.png"])
    vs.ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    table = tmp_path / "boxes.csv"
    table.write_text("input,class,x,y,width,height\na.png,mass,900,7,4,6\nb.png,mass,9,7,4,6\n")
    progress = Silent()
    vs.label(tmp_path / "study", boxes=table, progress=progress)
    assert [entry["input"] for entry in progress.aside] == ["a.png"]


def test_folders_of_classes_become_a_covariate_but_folders_of_patients_do_not(tmp_path):
    names = [f"{word}/{word}_{n}.png" for word in ("benign", "malignant") for n in range(6)]
    source = pictures(tmp_path / "in", names)
    vs.ingest(source, into=tmp_path / "study", pixels="keep")
    cohort = vs.label(tmp_path / "study", folders=source)
    assert sorted(case.covariates["class"] for case in cohort) == ["benign"] * 6 + ["malignant"] * 6
    people = pictures(tmp_path / "people", [f"Miller{n}/scan_{n}.png" for n in range(12)])
    vs.ingest(people, into=tmp_path / "other", pixels="keep")
    with pytest.raises(UsageError, match="do not look like classes"):
        vs.label(tmp_path / "other", folders=people)


def test_a_mask_beside_its_image_is_no_input_and_joins_as_truth(tmp_path):
    source = pictures(tmp_path / "in", ["a.png", "b.png"])
    mask = np.zeros((50, 60), np.uint8)
    mask[10:20, 10:30] = 255
    for name in ("a_mask.png", "b_mask.png"):
        Image.fromarray(mask).save(source / name)
    cohort = vs.ingest(source, into=tmp_path / "study", pixels="keep")
    assert len(cohort.cases) == 2
    cohort = vs.label(cohort, masks=source, names={255: "mass"})
    assert all(case.label_image is not None for case in cohort)
