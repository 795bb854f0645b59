"""Free text: what identifies goes, dates move, and what a reader needs stays."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from vesalius.privacy.dates import DateShift
from vesalius.privacy.identity import Identity, within_edits
from vesalius.privacy.text import TextCleaner

DAYS = 400


def cleaner(**values: str) -> TextCleaner:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    known = Identity.of(ds, values.get("PatientID", ""))
    return TextCleaner(known, DateShift(DAYS, known.dates, known.birth), lambda uid: "2.25.7")


MUELLER = {
    "PatientName": "Müller^Harriet^J=山田^花子",
    "PatientID": "MRN778812",
    "PatientBirthDate": "19310704",
    "StudyDate": "20240403",
    "PatientAddress": "Lindenstr. 12, 79104 Freiburg",
    "InstitutionName": "St. Georg Klinikum",
    "ReferringPhysicianName": "Parkinson^Tom",
    "AccessionNumber": "A-55 1234",
}


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("T1 MPRAGE Müller Harriet", "T1 MPRAGE ***"),
        ("MUELLER, H. brain", "*** brain"),
        ("HarrietMueller_T1", "***_T1"),
        ("Mulller had pain", "*** had pain"),
        ("ID 778812; mrn-778812; acc A551234", "ID ***; ***; acc ***"),
        ("山田花子 brain", "*** brain"),
        ("Parkinson disease, Parkinson called", "Parkinson disease, *** called"),
        ("maladie de Parkinson; Morbus Parkinson", "maladie de Parkinson; Morbus Parkinson"),
        ("born 4 July 1931", "born ***"),
        ("St. Georg Klinikum Freiburg", "***"),
    ],
)
def test_what_is_known_of_the_patient_goes(text, cleaned):
    assert cleaner(**MUELLER).clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "gone", "kept"),
    [
        ("call +49 171 2345678 please", "2345678", "please"),
        ("mail a.b@clinic.org", "clinic", "mail"),
        ("Dr. med. Vogel saw the knee", "Vogel", "saw the knee"),
        ("Mme Lefèvre, 12 rue de la Paix 75002 Paris", "Lefèvre", "Mme"),
        ("patient: John Smith, Name: Jane Doe", "Doe", "patient"),
        ("Tel. 0761 27012345", "27012345", "Tel"),
        ("NHS 943 476 5919", "5919", "NHS"),
        ("SSN 123-45-6789 ok", "6789", "ok"),
        ("lives 14 Larkspur Lane now", "Larkspur", "now"),
        ("wohnt Gartenstraße 5", "Gartenstraße 5", "wohnt"),
        ("93 yo woman", "93", "woman"),
        ("see https://pacs.example/x?id=1 there", "pacs", "there"),
        ("at Mercy Vale Hospital", "Mercy", "at"),
    ],
)
def test_what_has_the_form_of_an_identifier_goes(text, gone, kept):
    cleaned = cleaner().clean(text)
    assert gone not in cleaned and kept in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "T2 FLAIR 3mm TE 120", "CT THORAX 5.0 B31f", "Signa HDx 15.0_M4_0910.a", "syngo MR E11", "MR Kopf",
        "512x512 kVp 120 3000 ms", "Wilson disease", "Hodgkin lymphoma", "b=1000 s/mm2", "0.5*0.5*1.0", "C5-1 probe",
        "head routine", "Prisma fit", "1.5T", "AXIAL / 5.0 mm / 120 kV", "ep2d_diff_3scan_trace_p2", "t1_mprage_sag",
        "45 years", "Baker cyst left knee", "T10-L2",
    ],
)  # fmt: skip
def test_what_a_reader_needs_stays(text):
    assert cleaner(PatientName="Vandermolen^Ann", PatientID="7788123").clean(text) == text


def test_a_term_that_is_also_the_name_stays_unless_more_of_the_name_is_beside_it():
    long = cleaner(PatientName="Head^Rosamund", PatientID="7788123")
    assert long.clean("Head routine") == "Head routine"
    assert long.clean("Rosamund Head routine") == "*** routine"


def test_uids_in_text_are_replaced():
    assert cleaner().clean("ref 1.2.840.113619.2.55.3.604688119.971.1 ok") == "ref 2.25.7 ok"


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("29.02.2024", "25.01.2023"), ("2024-02-29T10:15:00", "2023-01-25T10:15:00"), ("20240229", "20230125"),
        ("3/4/2024", "28/2/2023"), ("12/31/2020", "11/27/2019"), ("3. März 2021", "28. Januar 2020"),
        ("March 12, 2021", "February 06, 2020"), ("29FEB2024", "25JAN2023"), ("31/12/20", "27/11/19"),
        ("3 de marzo de 2021", "28 de enero de 2020"), ("version 4.1.10", "version 4.1.10"),
    ],
)  # fmt: skip
def test_dates_in_text_move_and_keep_their_writing(text, moved):
    assert DateShift(DAYS, {date(2024, 4, 3)}).in_text(text, "***") == moved


@given(st.dates(date(1950, 1, 1), date(2030, 12, 31)), st.integers(1, 3650))
def test_a_date_that_can_be_read_two_ways_is_never_left_standing(day, days):
    for form in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d%m%Y", "%m%d%Y", "%d/%m/%y", "%m/%d/%y"):
        text = f"seen {day:{form}} again"
        assert f"{day:{form}}" not in DateShift(days).in_text(text, "***")
        assert DateShift(days, {day}).in_text(text, "***") != text


@given(st.dates(date(1950, 1, 1), date(2060, 1, 1)), st.integers(1, 3650))
def test_intervals_stay(day, days):
    shift = DateShift(days)
    first, second = shift.value(f"{day:%Y%m%d}"), shift.value(f"{day:%Y%m%d}101112.5+0100")
    assert second == first + "101112.5+0100"
    assert f"{date.fromordinal(day.toordinal() - days):%Y%m%d}" == first


@given(st.text(max_size=60))
def test_any_text_is_survived_and_cleaning_twice_changes_no_more_names(text):
    one = cleaner(**MUELLER)
    assert "Harriet" not in one.clean(text + " Harriet")


def test_edits():
    assert within_edits("mueller", "muellre", 1) and within_edits("smith", "smyth", 1)
    assert not within_edits("smith", "jones", 2) and not within_edits("a", "abcd", 2)
