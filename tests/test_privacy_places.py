"""Everywhere in a DICOM header where an identifier can hide."""

import io

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from vesalius.core.errors import UnusableInput
from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.objects import SeriesCleaner
from vesalius.privacy.profile import PixelMode, Profile
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.privacy.site import load_profile

PSEUDONYMS = Pseudonyms(b"k" * 32)
WORDS = ("Vandermolen", "Harriet", "7788123")


def image(**values):
    ds = dcmread(get_testdata_file("MR_small.dcm"))
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Vandermolen^Harriet", "MRN7788123", "19310704"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def cleaned(ds, profile=None):
    profile = profile or Profile(pixels=PixelMode.KEEP)
    SeriesCleaner(HeaderCleaner(PSEUDONYMS, "P1", "MRN7788123", profile)).clean(ds, {})
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return dcmread(io.BytesIO(file.getvalue())), file.getvalue()


def holds_any(raw: bytes) -> list[str]:
    lower = raw.lower()
    return [
        word for word in WORDS for code in ("utf-8", "utf-16-le", "utf-16-be") if word.lower().encode(code) in lower
    ]


def nested(ds, depth):
    for _ in range(depth):
        outer = Dataset()
        outer.ContentSequence = Sequence([ds])
        ds = outer
    return ds


PLACES = {
    "private block": lambda ds: ds.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "Harriet"),
    "private sequence": lambda ds: ds.private_block(0x0011, "MAKER", create=True).add_new(2, "SQ", Sequence([image()])),
    "private creator": lambda ds: ds.add_new(0x00130010, "LO", "Vandermolen"),
    "safe private text": lambda ds: ds.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(
        0x9E, "LO", "EFGRE Vandermolen"
    ),
    "safe private of unknown type": lambda ds: ds.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(
        0x23, "UN", b"7788123 "
    ),
    "curve": lambda ds: ds.add_new(0x50003000, "OW", b"Harriet "),
    "overlay comment": lambda ds: ds.add_new(0x60004000, "LT", "Vandermolen"),
    "overlay label": lambda ds: ds.add_new(0x60001500, "LO", "Vandermolen"),
    "padding": lambda ds: ds.add_new(0xFFFCFFFC, "OB", b"Harriet "),
    "unknown element": lambda ds: ds.add_new(0x00189998, "LO", "Harriet"),
    "unknown type of a known element": lambda ds: ds.add_new(0x00104000, "UN", b"Harriet "),
    "group length": lambda ds: ds.add_new(0x00100000, "UL", 77881230),
    "defined term": lambda ds: setattr(ds, "BodyPartExamined", "VANDERMOLEN"),
    "application entity": lambda ds: setattr(ds, "RetrieveAETitle", "VANDERMOLEN"),
    "number as text": lambda ds: setattr(ds, "AcquisitionNumber", "7788123"),
    "name in a sequence": lambda ds: setattr(ds, "ReferencedImageSequence", Sequence([nested(image(), 12)])),
    "person of another kind": lambda ds: setattr(ds, "PersonName", "Vandermolen^Harriet"),
    "binary": lambda ds: ds.add_new(0x00282000, "OB", b"profile MRN7788123 Vandermolen"),
    "wide letters": lambda ds: ds.add_new(0x00282000, "OB", "Vandermolen".encode("utf-16-le")),
    "URL": lambda ds: setattr(ds, "RetrieveURL", "https://pacs/7788123"),
    "text grown together": lambda ds: setattr(ds, "SeriesDescription", "t1_HarrietVandermolen"),
    "preamble": lambda ds: setattr(ds, "preamble", b"Harriet".ljust(128)),
    "application of the writer": lambda ds: setattr(ds.file_meta, "SourceApplicationEntityTitle", "Vandermolen"),
    "icon": lambda ds: setattr(ds, "IconImageSequence", Sequence([image()])),
    "original attributes": lambda ds: setattr(ds, "OriginalAttributesSequence", Sequence([image()])),
    "request": lambda ds: setattr(ds, "RequestAttributesSequence", Sequence([image(StudyDescription="Harriet T1")])),
    "long text": lambda ds: setattr(ds, "AcquisitionProtocolDescription", "T1 " * 3000 + "for Harriet"),
    "several values": lambda ds: setattr(ds, "ImageComments", "a") or ds.add_new(0x00180015, "CS", "BRAIN"),
    "device of the same name": lambda ds: setattr(ds, "DeviceSerialNumber", "Vandermolen7"),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_place_keeps_it(place):
    ds = image()
    PLACES[place](ds)
    after, raw = cleaned(ds)
    assert holds_any(raw) == []
    assert np.array_equal(after.pixel_array, dcmread(get_testdata_file("MR_small.dcm")).pixel_array)


def test_unused_bits_of_pixels_lose_their_overlay():
    ds = image()
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
    ds.add_new(0x60000100, "US", 1)
    ds.add_new(0x60000102, "US", 14)
    pixels = np.frombuffer(ds.PixelData, "<u2") & 0xFFF
    ds.PixelData = (pixels | 0x4000).tobytes()
    after, _ = cleaned(ds)
    assert np.array_equal(np.frombuffer(after.PixelData, "<u2"), pixels)


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "ISO_IR 144", "\\ISO 2022 IR 87"])
def test_other_character_sets(charset):
    name = {"ISO_IR 144": "Кузнецова^Людмила", "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎"}.get(
        charset, "Müllenbrück^Jürg"
    )
    family = name.split("=")[-1].split("^")[0]
    ds = image(SpecificCharacterSet=charset.split("\\"))
    ds.PatientName = name
    ds.ImageComments = f"brain of {family} twice"
    after, raw = cleaned(ds)
    assert after.ImageComments == "brain of *** twice"
    for code in ("utf-8", "latin-1", "iso8859-5", "iso2022_jp", "shift_jis"):
        try:
            assert family.encode(code) not in raw
        except UnicodeEncodeError:
            continue


def test_safe_private_values_stay():
    ds = image()
    block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x08, "CS", "UNSAFE")
    after, _ = cleaned(ds)
    kept = after.private_block(0x0019, "SIEMENS MR HEADER")
    assert kept[0x0C].value == 1000 and 0x08 not in kept


def test_tracer_dose_and_times_stay():
    tracer = Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = "370000000", "6586.2"
    tracer.RadiopharmaceuticalStartTime = "101500"
    tracer.RadiopharmaceuticalStartDateTime = "20240403101500"
    ds = image(RadiopharmaceuticalInformationSequence=Sequence([tracer]), SeriesTime="111500", StudyDate="20240403")
    ds.PatientWeight, ds.DecayCorrection, ds.Units = "70", "START", "BQML"
    after, _ = cleaned(ds)
    item = after.RadiopharmaceuticalInformationSequence[0]
    assert (item.RadionuclideTotalDose, item.RadiopharmaceuticalStartTime) == (370000000, "101500")
    assert item.RadiopharmaceuticalStartDateTime == after.StudyDate + "101500"
    assert after.SeriesTime == "111500" and after.PatientWeight == 70


def test_absurd_nesting_is_refused_not_crashed_on(tmp_path):
    ds = image()
    ds.ReferencedImageSequence = Sequence([nested(image(), 150)])
    path = tmp_path / "a.dcm"
    ds.save_as(path)
    header = HeaderCleaner(PSEUDONYMS, "P1", "MRN7788123", Profile(pixels=PixelMode.KEEP))
    try:
        SeriesCleaner(header).write([path], [tmp_path / "b.dcm"])
    except UnusableInput:
        return
    assert holds_any((tmp_path / "b.dcm").read_bytes()) == []


def test_what_was_done_is_told():
    told = []
    cleaner = HeaderCleaner(PSEUDONYMS, "P1", "MRN7788123", report=lambda *row: told.append(row))
    cleaner.clean(image(StudyDate="20240403", OperatorsName="X^Y"))
    actions = {name: (what, why) for name, what, why in told}
    assert actions["StudyDate"][0] == "date shifted" and "Modified Dates" in actions["StudyDate"][1]
    assert actions["PatientName"][0] == "replaced by the pseudonym"
    assert actions["OperatorsName"][0] == "replaced by a dummy"
    assert actions["Rows"][0] == "kept"


def test_methods_that_were_used_are_written():
    ds, _ = cleaned(image(), load_profile("[options]\nretain_institution_identity = true\n"))
    codes = {item.CodeValue for item in ds.DeidentificationMethodCodeSequence}
    assert {"113100", "113101", "113105", "113107", "113108", "113111", "113112"} <= codes
    assert ds.LongitudinalTemporalInformationModified == "MODIFIED" and ds.BurnedInAnnotation == "NO"


def test_full_dates_or_none():
    for toml, date, told in (
        ("retain_full_dates = true\nretain_modified_dates = false", "20240403", "UNMODIFIED"),
        ("retain_modified_dates = false", "", "REMOVED"),
    ):
        after, _ = cleaned(image(StudyDate="20240403"), load_profile(f"[options]\n{toml}\n[pixels]\ntext = 'keep'"))
        assert str(after.get("StudyDate", "")) == date
        assert after.LongitudinalTemporalInformationModified == told


def test_damaged_values_go_without_harm():
    ds = image()
    ds._dict[0x00280030] = DataElement(0x00280030, "DS", ["1", "1"])
    after, _ = cleaned(ds)
    assert list(after.PixelSpacing) == [1, 1]
