"""What lies beside images: reports, plans, doses, outlines and waveforms come in clean; documents wait outside."""

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from test_privacy_door import CANARY, dicom, holds
from vesalius.core.errors import UsageError
from vesalius.steps.ingest import ingest
from vesalius.store.cohort import open_cohort, quarantine
from vesalius.store.database import transaction

KINDS = {
    "test-SR.dcm": "report", "rtplan.dcm": "plan", "rtdose.dcm": "dose", "waveform_ecg.dcm": "waveform",
    "rtstruct.dcm": "structure set", "liver_1frame.dcm": "segmentation",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def carrier(name: str, sop_class: str = "") -> str:
    return {"rtstruct.dcm": "rtplan.dcm", "liver_1frame.dcm": "rtdose.dcm"}.get(name, name)


def an_object(path: Path, name: str, image: Path) -> None:
    """An object that names the patient and refers to an image."""
    classes = {"rtstruct.dcm": "1.2.840.10008.5.1.4.1.1.481.3", "liver_1frame.dcm": "1.2.840.10008.5.1.4.1.1.66.4"}
    values = {}
    if name in classes:
        values["SOPClassUID"] = classes[name]
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.2",
        dcmread(image).SOPInstanceUID,
    )
    label = Dataset()
    label.ROINumber, label.ROIName = 1, f"GTV {CANARY}"
    dicom(path, carrier(name), ReferencedImageSequence=Sequence([item]), StructureSetROISequence=Sequence([label]),
          RTPlanLabel=CANARY[:12], ContentDescription=f"for {CANARY}", **values)  # fmt: skip


def rows(folder: Path) -> list[dict[str, str]]:
    with transaction(folder) as connection:
        return [dict(row) for row in connection.execute("SELECT * FROM objects ORDER BY kind")]


@pytest.mark.parametrize("name", sorted(KINDS))
def test_an_object_comes_in_clean_and_still_refers_to_its_image(tmp_path, name):
    image = dicom(tmp_path / "in" / "a.dcm")
    an_object(tmp_path / "in" / f"{CANARY}.dcm", name, image)
    cohort = ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    assert len(cohort.cases) == 1 and len(cohort.cases[0].images) == 1
    (row,) = rows(tmp_path / "study")
    assert row["kind"] == KINDS[name] and row["patient"] == cohort.cases[0].patient
    stored = dcmread(tmp_path / "study" / row["path"])
    (slice_,) = [path for path in (tmp_path / "study" / "images").rglob("*.dcm") if path.name == "00001.dcm"]
    assert stored.ReferencedImageSequence[0].ReferencedSOPInstanceUID == dcmread(slice_).SOPInstanceUID
    assert stored.PatientID == dcmread(slice_).PatientID and stored.PatientIdentityRemoved == "YES"
    assert holds(tmp_path / "study") == [] and quarantine(tmp_path / "study") == []


def test_objects_come_in_once(tmp_path):
    image = dicom(tmp_path / "in" / "a.dcm")
    an_object(tmp_path / "in" / "b.dcm", "test-SR.dcm", image)
    for _ in range(2):
        ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    assert len(rows(tmp_path / "study")) == 1


def test_reports_alone_make_no_case(tmp_path):
    image = dicom(tmp_path / "other" / "a.dcm")
    an_object(tmp_path / "in" / "b.dcm", "test-SR.dcm", image)
    assert len(ingest(tmp_path / "in", into=tmp_path / "study").cases) == 0
    assert len(rows(tmp_path / "study")) == 1
    assert open_cohort(tmp_path / "study").cases == ()


@pytest.mark.parametrize(
    "sop_class",
    ["1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.104.3", "1.2.840.10008.5.1.4.1.1.66",
     "1.2.840.10008.5.1.4.1.1.9.4.1", "1.2.840.10008.5.1.4.1.1.68.1"],
)  # fmt: skip
def test_documents_raw_data_voices_and_surfaces_wait_outside(tmp_path, sop_class):
    dicom(tmp_path / "in" / "a.dcm")
    dicom(tmp_path / "in" / "b.dcm", "test-SR.dcm", SOPClassUID=sop_class, EncapsulatedDocument=CANARY.encode() + b"1")
    ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    (waiting,) = quarantine(tmp_path / "study")
    assert waiting["reason"] and waiting["remedy"]
    assert rows(tmp_path / "study") == [] and holds(tmp_path / "study") == []


def test_a_damaged_object_is_set_aside(tmp_path):
    dicom(tmp_path / "in" / "a.dcm")
    whole = Path(get_testdata_file("test-SR.dcm", download=False)).read_bytes()
    (tmp_path / "in" / "b.dcm").write_bytes(whole[: len(whole) // 2])
    ingest(tmp_path / "in", into=tmp_path / "study", pixels="keep")
    assert len(open_cohort(tmp_path / "study").cases) == 1
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.dcm").write_bytes(whole[:200] + generate_uid().encode())
    with pytest.raises(UsageError, match="No usable image"):
        ingest(tmp_path / "in", into=tmp_path / "other")
