"""Identifiers in elements whose kind of value is no text, and terms and numbers that must not be taken for them."""

import warnings

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from vesalius.privacy.dates import DateShift
from vesalius.privacy.forms import is_standard_uid, pooled_age
from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.identity import Identity
from vesalius.privacy.objects import SeriesCleaner
from vesalius.privacy.profile import PixelMode, Profile
from vesalius.privacy.pseudonyms import Pseudonyms

PSEUDONYMS = Pseudonyms(b"k" * 32)


def written(tmp_path, *, preamble=True, elements=(), **values):
    """A file with raw elements (tag, VR, bytes) cleaned: its bytes and its data set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = dcmread(get_testdata_file("CT_small.dcm"))
        ds.PatientName, ds.PatientID = "Vandermolen^Harriet", "77123"
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        for tag, vr, raw in elements:
            raw += b" " * (len(raw) % 2)
            ds._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(raw), raw, 0, False, True)
        source, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
        ds.save_as(source, enforce_file_format=True)
        if not preamble:  # read by pydicom instead of copied
            source.write_bytes(source.read_bytes()[132:])
        header = HeaderCleaner(PSEUDONYMS, "P1", ds.PatientID, Profile(pixels=PixelMode.KEEP))
        SeriesCleaner(header).write([source], [target])
        return target.read_bytes(), dcmread(target)


HIDDEN = {
    "after a date": (0x00080022, "DA", b"20200105 Quastenflosser"),
    "after a date and time": (0x0008002A, "DT", b"20200105120000.0+0100Quastenflosser"),
    "time": (0x00080032, "TM", b"120000 Quastenflosser"),
    "decimal": (0x00180060, "DS", b"Quastenflosser"),
    "integer": (0x00181151, "IS", b"Quastenflosser"),
    "age": (0x00101010, "AS", b"Quastenflosser"),
    "term": (0x00180022, "CS", b"Frau Dr. Quastenflosser"),
    "UID of a kind": (0x00080062, "UI", b"1.2.Quastenflosser"),
    "UID below the standard's root": (0x00200052, "UI", b"1.2.840.10008.Quastenflosser"),
}


@pytest.mark.parametrize("place", HIDDEN)
@pytest.mark.parametrize("preamble", [True, False])
def test_what_has_not_the_form_of_its_kind_goes(place, preamble, tmp_path):
    raw, _ = written(tmp_path, preamble=preamble, elements=[HIDDEN[place]])
    assert b"Quastenflosser" not in raw


def test_the_end_of_a_range_of_dates_goes(tmp_path):
    raw, ds = written(tmp_path, elements=[(0x00080021, "DA", b"20200105-20200107")])
    assert b"20200107" not in raw and len(ds.SeriesDate) == 8


@pytest.mark.parametrize(
    "value, moved",
    [
        ("20200105", "20200104"),
        ("20200105120000.123456+0100", "20200104120000.123456+0100"),
        ("2020010512", "2020010412"),
        ("20200105-0500", "20200104-0500"),
        ("2020.01.05", "20200104"),
        ("20200105\nHarriet", "20200104"),
    ],
)
def test_a_date_keeps_its_time_and_nothing_else(value, moved):
    assert DateShift(1).value(value) == moved


def test_numbers_and_terms_that_meet_an_identifier_by_chance_stay(tmp_path):
    _, ds = written(
        tmp_path, PatientID="2000", AccessionNumber="1024", StudyID="3000", StationName="SKYRA",
        ManufacturerModelName="Skyra fit", RepetitionTime="2000", WindowWidth="1024", ExposureTime="3000",
        ScanOptions=["HELICAL MODE", "SAT_GEMS"], BodyPartExamined="HEAD",
        elements=[(0x00181150, "IS", b"12.5"), (0x00181201, "TM", b"101500\\111500.5"), (0x00189074, "DT", b"")],
    )  # fmt: skip
    assert (ds.RepetitionTime, ds.WindowWidth, ds.ManufacturerModelName) == (2000, 1024, "Skyra fit")
    assert list(ds.ScanOptions) == ["HELICAL MODE", "SAT_GEMS"]
    assert list(ds.TimeOfLastCalibration) == ["101500", "111500.5"]
    assert ds.get_item("ExposureTime").value.strip() == b"12.5"


def test_one_kind_of_value_does_not_decide_for_another(tmp_path):
    raw, ds = written(tmp_path, elements=[(0x00180022, "CS", b"ABCDE"), (0x00180060, "DS", b"ABCDE")])
    assert ds.ScanOptions == "ABCDE" and raw.count(b"ABCDE") == 1


@pytest.mark.parametrize(
    "age, pooled",
    [("045Y", "045Y"), ("090Y", "090Y"), ("104Y", "090Y"), ("95Y", "090Y"), ("95", "090Y"), ("1100M", "090Y"),
     ("018M", "018M"), ("999D", "999D"), ("", ""), ("old", None)],
)  # fmt: skip
def test_ages_are_pooled_however_they_are_written(age, pooled):
    assert pooled_age(age) == pooled


def test_a_root_does_not_make_a_standard_uid():
    assert is_standard_uid("1.2.840.10008.5.1.4.1.1.2")
    assert not is_standard_uid("1.2.840.10008.77.19440302")


def test_two_short_names_beside_each_other_are_a_name():
    identity = Identity(names=frozenset({"li", "wu"}))
    for text in ("CT HEAD LI WU", "LI^WU", "wu_li", "LI, WU"):
        assert identity.spans(text), text
    assert not identity.spans("CT HEAD LI") and not identity.spans("wu")
