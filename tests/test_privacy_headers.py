"""The door's header rules: nothing that names the patient stays, what the image needs stays."""

from datetime import datetime

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.profile import Action, Profile, rows
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.privacy.tables import Table

PSEUDONYMS = Pseudonyms(b"k" * 32)


def identified() -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.SourceApplicationEntityTitle = "WILSONAE"
    ds = FileDataset("", {}, file_meta=meta, preamble=b"WILSON" + b"\0" * 122)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID = MRImageStorage, "1.2.3.4", "1.2.3"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Wilson^Harriet", "MRN778812", "19310704"
    ds.PatientSex, ds.PatientAge, ds.PatientWeight = "F", "093Y", "61"
    ds.StudyDate, ds.StudyTime, ds.AcquisitionDateTime = "20240229", "101500", "20240229101500.5"
    ds.SeriesDescription = "T1 MPRAGE for Mrs Wilson 778812"
    ds.InstitutionName, ds.DeviceSerialNumber, ds.ManufacturerModelName = "St. Wilson Hospital", "SN4711", "Prisma"
    ds.EchoTime, ds.RepetitionTime = "2.9", "2300"
    ds.OperatorsName = "Wilson^Op"
    item = Dataset()
    item.PatientID, item.ReferencedSOPInstanceUID, item.PersonName = "MRN778812", "1.2.3.4", "Wilson^Harriet"
    inner = Dataset()
    inner.TextValue = "seen by Dr. Wilson on 29.02.2024"
    item.ContentSequence = Sequence([inner])
    ds.ReferencedImageSequence = Sequence([item])
    ds.add_new(0x00091001, "LO", "Wilson")
    ds.add_new(0x60003000, "OW", b"\0\0")
    return ds


@pytest.fixture
def cleaned() -> FileDataset:
    ds = identified()
    HeaderCleaner(PSEUDONYMS, "P0123", "MRN778812").clean(ds)
    return ds


def test_no_identifier_stays_anywhere(cleaned, tmp_path):
    cleaned.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    content = (tmp_path / "a.dcm").read_bytes()
    for word in (b"Wilson", b"WILSON", b"Harriet", b"778812", b"SN4711", b"19310704", b"20240229", b"1.2.3.4"):
        assert word not in content, word


def test_what_the_study_needs_stays(cleaned):
    assert cleaned.PatientName == cleaned.PatientID == "P0123"
    assert cleaned.PatientSex == "F" and cleaned.PatientWeight == 61 and cleaned.PatientAge == "090Y"
    assert cleaned.EchoTime == 2.9 and cleaned.ManufacturerModelName == "Prisma"
    assert cleaned.SeriesDescription.startswith("T1 MPRAGE")
    assert cleaned.StudyTime == "101500"
    assert cleaned.PatientIdentityRemoved == "YES" and len(cleaned.DeidentificationMethodCodeSequence) >= 4


def test_dates_move_together_and_keep_their_time(cleaned):
    moved = datetime.strptime("20240229", "%Y%m%d") - datetime.strptime(cleaned.StudyDate, "%Y%m%d")
    assert moved.days == PSEUDONYMS.shift_days("MRN778812")
    assert cleaned.AcquisitionDateTime == cleaned.StudyDate + "101500.5"


def test_references_still_lead_to_the_same_object(cleaned):
    assert cleaned.ReferencedImageSequence[0].ReferencedSOPInstanceUID == cleaned.SOPInstanceUID
    assert cleaned.file_meta.MediaStorageSOPInstanceUID == cleaned.SOPInstanceUID
    assert cleaned.SOPClassUID == MRImageStorage


def test_cleaning_twice_is_harmless(cleaned, tmp_path):
    cleaned.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    again = pydicom.dcmread(tmp_path / "a.dcm")
    HeaderCleaner(PSEUDONYMS, "P0123", "P0123").clean(again)
    assert again.PatientID == "P0123"


def test_the_table_is_whole_and_repeating_groups_are_found():
    assert len(rows()) == 621
    assert Profile().rule_for(0x60023000).action is Action.REMOVE
    assert Profile().rule_for(0x50101234).action is Action.REMOVE
    assert Profile().rule_for(0x00280010) is None


def test_tables_let_measures_through_and_nothing_that_names():
    rows = [
        {"file": f"a{n}", "age": str(40 + n), "sex": "FM"[n % 2], "Patient Name": "X Y", "seen": "2020-01-02",
         "word": f"w{n}", "report": "the patient came in with a cough and left"}
        for n in range(20)
    ]  # fmt: skip
    table = Table.of(rows, ["file"])
    assert {name: str(kind) for name, kind in table.kept.items()} == {
        "age": "age", "sex": "word", "seen": "date", "report": "text",
    }  # fmt: skip
    assert set(table.refused) == {"file", "Patient Name", "word"}
