"""The whole way in: a canary in every place of a folder, two batches, two keys, and what is set aside."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from making import volume
from test_privacy_pixels import letters
from vesalius.steps.audit import audit
from vesalius.steps.ingest import ingest, preview
from vesalius.store.cohort import open_cohort

CANARY = "Vandermolen"


@pytest.fixture(autouse=True)
def own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def dicom(path: Path, carrier="CT_small.dcm", **values) -> Path:
    ds = dcmread(get_testdata_file(carrier, download=False))
    ds.PatientName, ds.PatientID, ds.StudyDate = f"{CANARY}^Harriet", "MRN7788123", "20240403"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.SeriesDescription = f"brain {CANARY}"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path)
    return path


def holds(folder: Path) -> list[str]:
    lower = CANARY.lower()
    return [
        str(path)
        for path in folder.rglob("*")
        if lower in path.name.lower() or (path.is_file() and lower.encode() in path.read_bytes().lower())
    ]


def plain_files(folder: Path) -> None:
    """A PNG and a NIfTI volume with the canary in their metadata, their names and their pixels."""
    picture = np.full((200, 300), 40, np.uint8)
    picture[letters(CANARY.upper(), picture.shape)] = 255
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", f"patient {CANARY}")
    Image.fromarray(picture).save(folder / f"{CANARY}_1.png", pnginfo=told)
    image = nib.Nifti1Image(volume(1)[0], np.eye(4))
    image.header["descrip"] = CANARY.encode()
    nib.save(image, folder / f"{CANARY}_2.nii.gz")


def test_a_canary_in_every_place_is_in_no_byte_of_the_cohort(tmp_path):
    home = tmp_path / "in" / CANARY
    dicom(home / f"{CANARY}.dcm")
    plain_files(home)
    cohort = ingest(tmp_path / "in", into=tmp_path / "study")
    assert len(cohort.cases) == 3
    assert holds(tmp_path / "study") == []
    (png,) = (tmp_path / "study" / "images").rglob("*.png")
    stored = np.asarray(Image.open(png))
    assert np.ptp(stored[letters(CANARY.upper(), stored.shape)]) == 0
    assert audit(tmp_path / "study").entries == 1


def test_a_second_batch_lands_under_the_same_pseudonym_and_shift_and_another_key_is_unlinkable(tmp_path):
    dicom(tmp_path / "one" / "a.dcm")
    dicom(tmp_path / "two" / "b.dcm", StudyDate="20240404")

    def stored(name):
        (file,) = (tmp_path / name).rglob("images/**/*.dcm")
        return dcmread(file)

    for batch in ("one", "two"):
        ingest(tmp_path / batch, into=tmp_path / f"study_{batch}")
    first, second = stored("study_one"), stored("study_two")
    assert first.PatientID == second.PatientID == first.PatientName
    assert int(second.StudyDate) - int(first.StudyDate) in (1, 70, 71, 72, 73, 8870)
    shutil.rmtree(tmp_path / "data")
    ingest(tmp_path / "one", into=tmp_path / "study_other")
    other = stored("study_other")
    assert other.PatientID != first.PatientID and other.SOPInstanceUID != first.SOPInstanceUID
    assert other.StudyDate != first.StudyDate


def test_secondary_captures_wait_outside_until_they_are_asked_for(tmp_path):
    dicom(tmp_path / "in" / "a.dcm")
    dicom(tmp_path / "in" / "b.dcm", "SC_rgb_small_odd.dcm")
    dicom(tmp_path / "in" / "c.dcm", SeriesDescription="Dose Report")
    ingest(tmp_path / "in", into=tmp_path / "study")
    cohort = open_cohort(tmp_path / "study")
    assert len(cohort.cases) == 1 and holds(tmp_path / "study") == []
    ingest(tmp_path / "in", into=tmp_path / "study", secondary=True)
    assert len(open_cohort(tmp_path / "study").cases) == 2  # the dose sheet has the role "ignore" besides


def test_a_preview_writes_nothing(tmp_path):
    dicom(tmp_path / "in" / "a.dcm")
    shown = preview(tmp_path / "in", into=tmp_path / "study")
    assert shown.files == 1 and "PatientName" in str(shown) and CANARY not in str(shown)
    assert not (tmp_path / "study").exists()
