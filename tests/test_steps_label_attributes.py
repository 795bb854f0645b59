"""Targets from the headers that stand in the cohort: what they say, what may not come in, and what differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from vesalius.core.errors import UsageError
from vesalius.formats.dicom_attributes import attributes_in
from vesalius.steps.ingest import ingest
from vesalius.steps.label import label


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from doc_data import _write_patient

    folder = tmp_path_factory.mktemp("headers")
    for number in (2, 3):
        _write_patient(folder / "scans", None, number)
    return folder / "scans"


def test_a_header_becomes_a_covariate(scans: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    ingest(scans, into=study, pixels="keep")
    found = label(study, attributes=["MRAcquisitionType", "EchoTime"])
    assert {case.covariates["MRAcquisitionType"] for case in found} == {"3D"}
    assert all(isinstance(case.covariates["EchoTime"], float) for case in found)


@pytest.mark.parametrize(
    ("keyword", "said"),
    [("ViewPositon", "no DICOM attribute"), ("PatientName", "no word"), ("StudyDate", "no word"), ("KVP", "No stored")],
)
def test_what_cannot_be_a_target_is_refused_with_its_remedy(
    scans: Path, tmp_path: Path, keyword: str, said: str
) -> None:
    study = tmp_path / "study"
    ingest(scans, into=study, pixels="keep")
    with pytest.raises(UsageError, match=said) as refused:
        label(study, attributes=[keyword])
    assert refused.value.remedy
    if keyword == "ViewPositon":
        assert "ViewPosition" in refused.value.remedy


def test_images_that_differ_leave_their_case_without(scans: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    copied = shutil.copytree(scans, tmp_path / "scans")
    first = sorted(copied.iterdir())[0]
    series = next(part for part in first.iterdir() if part.is_dir())
    ingest(copied, into=study, pixels="keep")
    before = label(study, attributes=["FlipAngle"])
    assert all("FlipAngle" in case.covariates for case in before)
    changed = tmp_path / "changed"
    shutil.copytree(series, changed / first.name / "again")
    for number, path in enumerate(sorted((changed / first.name / "again").rglob("*.dcm"))):
        dataset = dcmread(path)
        dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.9"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SeriesInstanceUID}.{number}"
        dataset.FlipAngle = 77
        dataset.save_as(path)
    other = tmp_path / "both"
    shutil.copytree(first, other / first.name)
    shutil.copytree(changed / first.name / "again", other / first.name / "again")
    ingest(other, into=tmp_path / "two", pixels="keep")
    found = label(tmp_path / "two", attributes=["FlipAngle", "MRAcquisitionType"])
    assert [sorted(case.covariates) for case in found] == [["MRAcquisitionType"]]


def test_ages_are_in_years_and_what_is_no_dicom_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no DICOM at all" * 100)
    assert attributes_in(tmp_path / "note.txt", ["PatientAge"]) == {}
    cut = bytearray(Path(get_testdata_file("CT_small.dcm", download=False)).read_bytes())
    cut[137:141] = b"\xff" * 4
    (tmp_path / "damaged.dcm").write_bytes(cut)
    assert attributes_in(tmp_path / "damaged.dcm", ["PatientAge"]) == {}
    path = Path(str(get_testdata_file("CT_small.dcm")))
    dataset = dcmread(path)
    for text, years in (("045Y", "45"), ("006M", "0.5")):
        dataset.PatientAge = text
        dataset.save_as(tmp_path / "one.dcm")
        assert attributes_in(tmp_path / "one.dcm", ["PatientAge", "KVP"])["PatientAge"] == years
