"""ingest, label, split and show: what a user does to get a cohort, and what goes wrong on the way."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

import vesalius as vs
from making import study, volume, write_nifti
from vesalius.core.errors import PatientOverlap, StoreError, UsageError
from vesalius.core.progress import Silent
from vesalius.steps.split import near_duplicate_cases

NAMES = {1: "anterior", 2: "posterior"}


@pytest.fixture
def made(tmp_path):
    images, labels = study(tmp_path / "in")
    cohort = vs.ingest(images, into=tmp_path / "study")
    return tmp_path, images, labels, cohort


def test_ingest_keeps_pixels_and_geometry_and_adds_nothing_twice(made):
    tmp_path, images, _, cohort = made
    assert len(cohort) == 6 and len(cohort.patients) == 6
    source = nib.load(images / "case_00.nii.gz")
    stored = {case.images[0].read().tobytes() for case in cohort}
    assert np.asarray(source.dataobj, np.float32)[np.newaxis].tobytes() in stored
    assert cohort.cases[0].images[0].grid.orientation == "RAS"
    progress = Silent()
    again = vs.ingest(images, into=tmp_path / "study", progress=progress)
    assert len(again) == 6 and progress.figures["added"] == 0 and progress.figures["already"] == 6
    assert again.digest == cohort.digest


def test_no_source_name_in_any_byte_of_the_cohort(made):
    tmp_path, _, labels, _ = made
    vs.label(tmp_path / "study", masks=labels, names=NAMES)
    vs.show(tmp_path / "study")
    for path in (tmp_path / "study").rglob("*"):
        assert "case_0" not in path.name
        if path.is_file():
            assert b"case_0" not in path.read_bytes(), path
    assert oct((tmp_path / "study").stat().st_mode)[-3:] == "700"


def test_bad_files_are_set_aside_with_a_remedy_and_the_rest_goes_on(tmp_path):
    images, _ = study(tmp_path / "in", cases=2)
    (images / "broken.nii.gz").write_bytes((images / "case_00.nii.gz").read_bytes()[:700])
    (images / "empty.nii").write_bytes(b"")
    progress = Silent()
    cohort = vs.ingest(images, into=tmp_path / "study", progress=progress)
    assert len(cohort) == 2
    assert {entry["input"] for entry in progress.aside} == {"broken.nii.gz", "empty.nii"}
    assert all(entry["reason"] and entry["remedy"] for entry in progress.aside)
    assert vs.show(cohort, sheet=False).figures["quarantined"] == 2
    vs.ingest(images, into=tmp_path / "study")
    assert vs.show(cohort, sheet=False).figures["quarantined"] == 2
    write_nifti(images / "broken.nii.gz", volume(9)[0])
    vs.ingest(images, into=tmp_path / "study")
    assert vs.show(cohort, sheet=False).figures["quarantined"] == 1


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").write_bytes(b"no")
    with pytest.raises(UsageError):
        vs.ingest(tmp_path / "in", into=tmp_path / "study")
    with pytest.raises(UsageError):
        vs.ingest(tmp_path / "missing", into=tmp_path / "study")


def test_a_folder_with_other_things_is_not_taken_for_a_cohort(tmp_path):
    images, _ = study(tmp_path / "in", cases=1)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError):
        vs.ingest(images, into=tmp_path / "study")
    with pytest.raises(StoreError):
        vs.open_cohort(tmp_path / "nothing")


def test_patients_from_a_table_or_a_pattern(tmp_path):
    images, _ = study(tmp_path / "in", cases=4)
    table = tmp_path / "t.csv"
    table.write_text("file;who\ncase_00;a\ncase_01.nii.gz;a\ncase_02;b\ncase_03;b\n")
    cohort = vs.ingest(images, into=tmp_path / "one", table=table, patient="who")
    assert len(cohort) == 4 and len(cohort.patients) == 2
    cohort = vs.ingest(images, into=tmp_path / "two", table=table, patient="who", case="who")
    assert len(cohort) == 2 and all(len(case.images) == 2 for case in cohort)
    cohort = vs.ingest(images, into=tmp_path / "three", patient_from=r"case_(\d)\d")
    assert len(cohort) == 4 and len(cohort.patients) == 1
    with pytest.raises(UsageError):
        vs.ingest(images, into=tmp_path / "four", table=table, patient="nobody")


def test_labels_are_checked_against_their_images(made):
    tmp_path, _images, labels, _ = made
    _image, label = volume(1)
    write_nifti(labels / "case_01.nii.gz", label[:-1])
    write_nifti(labels / "case_02.nii.gz", np.where(volume(2)[1] == 2, 7, volume(2)[1]).astype(np.uint8))
    write_nifti(labels / "case_03.nii.gz", volume(3)[1].astype(np.float32) * 0.5)
    write_nifti(labels / "stranger.nii.gz", label)
    write_nifti(labels / "case_00_seg.nii.gz", volume(0)[1])
    progress = Silent()
    cohort = vs.label(tmp_path / "study", masks=labels, names=NAMES, progress=progress)
    aside = {entry["input"]: entry["reason"] for entry in progress.aside}
    assert set(aside) == {
        "case_01.nii.gz", "case_02.nii.gz", "case_03.nii.gz", "stranger.nii.gz", "case_00_seg.nii.gz",
    }  # fmt: skip
    assert "7" in aside["case_02.nii.gz"] and "second" in aside["case_00_seg.nii.gz"]
    assert sum(case.label_image is not None for case in cohort) == 3
    assert [label.name for label in cohort.labels] == ["anterior", "posterior"]
    stored = next(case for case in cohort if case.label_image is not None)
    assert set(np.unique(stored.label_image.read())) == {0, 1, 2}


def test_an_ignore_value_is_let_through(made):
    tmp_path, _, labels, _ = made
    _, label = volume(0)
    label[0] = 255
    write_nifti(labels / "case_00.nii.gz", label)
    cohort = vs.label(tmp_path / "study", masks=labels, names=NAMES, ignore=255)
    assert cohort.ignore == 255 and all(case.label_image is not None for case in cohort)


def test_covariates_come_through_the_door(made):
    tmp_path, _, _, _ = made
    table = tmp_path / "t.csv"
    table.write_text("file,age,sex,surname\n" + "".join(f"case_0{n},{50 + n},F,Wilson{n}\n" for n in range(6)))
    progress = Silent()
    cohort = vs.label(tmp_path / "study", table=table, progress=progress)
    assert {case.covariates["age"] for case in cohort} == {float(50 + n) for n in range(6)}
    assert set(progress.figures["columns_left_out"]) == {"file", "surname"}
    assert b"Wilson" not in (tmp_path / "study" / "cohort.sqlite").read_bytes()


def test_split_is_by_patient_drawn_once_and_repeatable(tmp_path):
    images, labels = study(tmp_path / "in", cases=20)
    cohort = vs.ingest(images, into=tmp_path / "a", patient_from=r"case_(\d\d)")
    vs.label(cohort, masks=labels, names=NAMES)
    drawn = vs.split(cohort, seed=3)
    parts = drawn.split.parts
    assert sorted(parts) == sorted(drawn.patients)
    assert list(parts.values()).count("test") == 4
    assert set(drawn.split.folds) == {patient for patient, part in parts.items() if part == "train"}
    assert vs.split(cohort, seed=4).split.parts == parts
    with pytest.raises(UsageError):
        vs.split(cohort, column="part")
    assert vs.split(cohort, seed=4, redraw=True).split.parts != parts
    assert vs.split(cohort, seed=3, redraw=True).split.parts == parts


def test_a_given_split_is_kept_and_patients_in_both_parts_are_refused(tmp_path):
    images, _ = study(tmp_path / "in", cases=4)
    cohort = vs.ingest(images, into=tmp_path / "a", patient_from=r"case_0(\d)")
    given = tmp_path / "splits_final.json"
    given.write_text(json.dumps([{"train": ["case_00", "case_01"], "val": ["case_02", "case_03"]}]))
    split = vs.split(cohort, from_file=given).split
    assert sorted(split.parts.values()) == ["test", "test", "train", "train"] and split.given
    both = vs.ingest(images, into=tmp_path / "b", patient_from=r"(case)")
    vs.ingest(write_nifti(tmp_path / "more" / "x_9.nii.gz", volume(9)[0]), into=tmp_path / "b")
    with pytest.raises(PatientOverlap):
        vs.split(both, from_file=given)


def test_near_duplicates_are_drawn_together_and_counted_when_the_split_is_given(tmp_path):
    images, _labels = study(tmp_path / "in", cases=6)
    for name in ("case_00", "case_01"):
        copy = nib.load(images / f"{name}.nii.gz")
        noisy = np.asarray(copy.dataobj) * 2 + 5
        write_nifti(images / f"{name}_copy.nii.gz", noisy.astype(np.float32), copy.affine)
    for seed in range(4):
        cohort = vs.ingest(images, into=tmp_path / f"s{seed}")
        drawn = vs.split(cohort, seed=seed, test_share=0.4)
        from vesalius.store.cohort import image_hashes

        pairs = near_duplicate_cases(image_hashes(drawn.folder))
        patient = {case.id: case.patient for case in drawn}
        assert len(pairs) == 2
        for first, second in pairs:
            assert drawn.split.parts[patient[first]] == drawn.split.parts[patient[second]]
    given = tmp_path / "split.json"
    names = [f"case_0{n}" for n in range(6)]
    given.write_text(json.dumps({"train": names, "test": ["case_00_copy", "case_01_copy"]}))
    kept = vs.split(cohort, from_file=given, redraw=True).split
    assert len(kept.duplicates) == 2 and list(kept.parts.values()).count("test") == 2


def test_show_counts_draws_and_matches_sources(made):
    _tmp_path, images, labels, cohort = made
    vs.label(cohort, masks=labels, names=NAMES)
    progress = Silent()
    overview = vs.show(cohort, sources=images, progress=progress)
    assert {key: overview.figures[key] for key in ("cases", "patients", "images", "quarantined")} == {
        "cases": 6, "patients": 6, "images": 6, "quarantined": 0,
    }  # fmt: skip
    assert overview.sheet.read_bytes().startswith(b"\x89PNG")
    assert set(overview.sources) == {f"case_0{n}.nii.gz" for n in range(6)}
    assert "anterior" in str(overview)


def test_a_kill_in_the_middle_loses_nothing_and_the_next_run_finishes(tmp_path):
    images, _ = study(tmp_path / "in", cases=160, shape=(40, 48, 36))
    command = [sys.executable, "-m", "vesalius", "ingest", str(images), "--into", str(tmp_path / "study"), "--quiet"]
    process = subprocess.Popen(command)
    database = tmp_path / "study" / "cohort.sqlite"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if database.exists() and len(vs.open_cohort(tmp_path / "study")) >= 5:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(vs.open_cohort(tmp_path / "study"))
    assert 0 < before < 160
    assert sqlite3.connect(database).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    cohort = vs.ingest(images, into=tmp_path / "study")
    assert len(cohort) == 160
    assert not list((tmp_path / "study" / "images").glob("*/.new-*"))
    for case in cohort.cases[:5]:
        assert case.images[0].read().shape == (1, 40, 48, 36)


@pytest.mark.parametrize("layout", ["nnunet", "monai", "bids"])
def test_layouts_of_other_programs_come_back_as_they_went(made, layout):
    tmp_path, _, labels, cohort = made
    vs.label(cohort, masks=labels, names=NAMES)
    cohort = vs.split(cohort, seed=1)
    vs.export(cohort, layout, to=tmp_path / "out")
    back = vs.ingest(tmp_path / "out", into=tmp_path / "back")
    assert len(back) == 6
    assert [label.name for label in back.labels] == ["anterior", "posterior"]

    def content(study):
        return sorted((c.images[0].read().tobytes(), c.label_image.read().tobytes()) for c in study)

    assert content(back) == content(cohort)
    if layout != "bids":
        again = vs.split(back, column="part").split
        assert list(again.parts.values()).count("test") == list(cohort.split.parts.values()).count("test")


def test_volumes_of_one_file_are_one_case_and_its_mask_lies_on_the_first(tmp_path):
    image, label = volume(1)
    write_nifti(tmp_path / "in" / "four.nii.gz", np.stack([image, image + 5, image * 2], axis=-1))
    write_nifti(tmp_path / "masks" / "four.nii.gz", label)
    cohort = vs.ingest(tmp_path / "in", into=tmp_path / "study")
    assert len(cohort) == 1 and len(cohort.cases[0].images) == 3
    cohort = vs.label(cohort, masks=tmp_path / "masks", names=NAMES)
    assert cohort.cases[0].label_image is not None
    first = cohort.cases[0].image(cohort.cases[0].label_image.role)
    assert np.array_equal(first.read()[0], image)
