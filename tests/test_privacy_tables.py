"""Tables pass the same door: dates move, text is cleaned, and what names anybody stays out."""

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vesalius as vs
from making import study
from vesalius.core.progress import Silent
from vesalius.privacy.pseudonyms import Pseudonyms, load_key
from vesalius.privacy.table_dates import is_date
from vesalius.privacy.tables import Kind, Table

KEY = Pseudonyms(b"1" * 32)
FORMATS = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d", "%d-%m-%Y", "%B %d, %Y", "%d %b %Y",
           "%Y-%m-%dT%H:%M:%S", "%d.%m.%Y %H:%M", "%Y/%m/%d")  # fmt: skip


def table(**columns):
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Table.of(rows, [name for name in ("file", "pid") if name in columns]), rows


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=25)
@given(days=st.lists(st.dates(date(1990, 1, 1), date(2030, 1, 1)), min_size=2, max_size=6))
def test_dates_in_any_writing_move_by_the_patients_shift(form, days):
    days = [*days, date(2020, 1, 25)]  # leaves no choice which number is the day
    looked, rows = table(visit=[day.strftime(form) for day in days])
    assert looked.kept == {"visit": Kind.DATE}
    for day, row in zip(days, rows, strict=True):
        moved = looked.covariates(row, KEY, "P1")["visit"]
        before = datetime.strptime(day.strftime(form), form)
        written = form.replace("%b", "%B") if len(moved) > 11 else form  # May is short for nothing
        assert before - datetime.strptime(moved, written) == timedelta(days=KEY.shift_of("P1"))


def test_the_shift_is_that_of_the_headers():
    assert KEY.shift_days("0815") == KEY.shift_of(KEY.patient("0815"))


def test_what_is_no_date_is_taken_for_none():
    for text in ("12", "3.5", "1/2", "stage 3", "2020", "10:30", "T2", "1.2.3", "may", "seen on 2020-01-02"):
        assert not is_date(text)
    for text in ("2020-01-02", "Tue, 3 Mar 2020", "03/2020", "2020-01-02 10:30:11", "3 mars 2020"):
        assert is_date(text)


def test_a_cell_that_is_no_date_among_dates_is_left_out():
    looked, rows = table(visit=["2020-01-02", "2020-02-02", "2020-03-02", "2020-04-02", "unknown"])
    assert looked.covariates(rows[-1], KEY, "P1") == {}
    assert "2020" not in looked.covariates(rows[0], KEY, "P1")["visit"]


def test_free_text_is_cleaned_of_what_the_row_knows_and_stays_readable():
    looked, rows = table(
        file=["a", "b"], pid=["MRN7781234", "MRN7785678"], name=["Kowalska, Anna", "Oldman, Gary"],
        note=["Mrs Kowalska (MRN7781234), seen 14/03/2020 by Dr. Vogel, 93 years, known Wilson disease, cough",
              "Oldmann Gary walks well; tel. 030 1234567; anna@example.org, next visit 25/03/2020"],
    )  # fmt: skip
    assert looked.kept == {"note": Kind.TEXT} and set(looked.refused) == {"file", "pid", "name"}
    texts = [str(looked.covariates(row, KEY, "P1")["note"]) for row in rows]
    for gone in ("Kowalska", "7781234", "2020", "Vogel", "93", "Oldman", "1234567", "anna@", "Gary"):
        assert not any(gone in text for text in texts), gone
    assert "Wilson disease, cough" in texts[0] and "walks well" in texts[1]


def test_old_ages_are_pooled():
    looked, rows = table(age=["89", "90", "104"], height=["95", "100", "105"])
    assert [looked.covariates(row, KEY, "P")["age"] for row in rows] == [89.0, 90.0, 90.0]
    assert looked.covariates(rows[2], KEY, "P")["height"] == 105.0


def test_what_names_somebody_stays_out_with_a_reason():
    looked, _ = table(
        file=[f"a{n}" for n in range(12)], surname=["x"] * 12, dob=["1950-01-01"] * 12, birth_date=["1950-01-01"] * 12,
        phone=["030 1234"] * 12, referring_physician=["Dr. X"] * 12, code=[f"word{n}" for n in range(12)],
        other=[f"{n:010d}" for n in range(12)], scan_date=["43831"] * 12, birth_weight=["3400"] * 12, sex=["F"] * 12,
    )  # fmt: skip
    assert set(looked.kept) == {"birth_weight", "sex"}
    assert all(looked.refused.values())


def test_a_birth_date_is_hidden_also_where_text_repeats_it():
    looked, rows = table(dob=["13.05.1950"] * 2, note=["born on 13.05.1950 in the spring of that year"] * 2)
    assert looked.covariates(rows[0], KEY, "P")["note"] == "born on *** in the spring of that year"


def test_nothing_of_the_columns_that_name_reaches_the_cohort(tmp_path):
    images, _ = study(tmp_path, 4)
    csv = tmp_path / "t.csv"
    csv.write_text(
        "file,who,visit,surname,finding\n"
        + "".join(f"case_0{n},CANARYPAT{n},2{n}.03.2020,Canarysson{n},Canarysson{n} has a node in the left lobe\n"
                  for n in range(4))
    )  # fmt: skip
    vs.ingest(images, into=tmp_path / "study", table=csv, key="file", patient="who")
    progress = Silent()
    cohort = vs.label(tmp_path / "study", table=csv, key="file", patient="who", progress=progress)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "study").rglob("*") if path.is_file())
    for canary in (b"CANARYPAT", b"Canarysson", b"case_0", b"03.2020"):
        assert canary not in stored
    assert progress.figures["kinds"] == {"visit": "date", "finding": "text"}
    assert set(progress.figures["columns_left_out"]) == {"file", "who", "surname"}
    key = Pseudonyms(load_key())
    for case in cohort:
        seen = datetime.strptime(str(case.covariates["visit"]), "%d.%m.%Y").date()
        number = (seen + timedelta(days=key.shift_of(case.patient)) - date(2020, 3, 20)).days
        assert key.patient(f"CANARYPAT{number}") == case.patient
        assert case.covariates["finding"] == "*** has a node in the left lobe"
