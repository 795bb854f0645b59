"""The door for tables: what of a table may enter a cohort, and in which form.

Numbers and words enter, dates move with the patient's keyed shift, free text is cleaned, ages of 90 and over are
pooled. A column that names files, patients or anybody else stays out, and the reason is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from vesalius.core.case import Covariate
from vesalius.privacy.dates import DateShift
from vesalius.privacy.identity import Identity
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.privacy.table_dates import evident_order, is_date, known_dates, moved
from vesalius.privacy.text import REPLACED, TextCleaner

POOLED_FROM_YEARS = 90.0
Row = Mapping[str, str]

# Words in a column's name that announce an identifier (PS3.15 E.1-1 and HIPAA 164.514(b)(2) name the kinds).
_IDENTIFYING = re.compile(
    r"(?:^|[^a-z])(?:(?:first|last|family|given|sur|patient|full|fore|vor|nach|middle)?[_ ]?names?|mrn|ssn|dob|address"
    r"|adresse|street|strasse|phone|telefon|fax|e-?mail|birth[_ ]?(?:date|day|place|name)"
    r"|birth$|geburts(?:tag|datum|ort|name)|date[_ ]of[_ ]birth"
    r"|postcode|post[_ ]?code|plz|zip|insurance\w*|accession\w*|(?:patient|subject|person|hospital|case|fall)"
    r"[_ ]?(?:id|nr|no|number)?|id|physician|doctor|arzt|relative|next[_ ]of[_ ]kin)(?:$|[^a-z])",
    re.IGNORECASE,
)
_NAMING = re.compile(r"name|physician|doctor|arzt|relative|kin(?:$|[^a-z])", re.IGNORECASE)
_BIRTH = re.compile(r"birth|geburt|(?:^|[^a-z])dob(?:$|[^a-z])", re.IGNORECASE)
_AGE = re.compile(r"(?:^|[^a-z])(?:age|ages|alter|edad|eta|età|leeftijd|idade|wiek)(?:$|[^a-z])", re.IGNORECASE)
_CALLED_DATE = re.compile(r"(?:^|[^a-z])(?:date|datum|fecha|data|day)(?:$|[^a-z])|date$|datum$", re.IGNORECASE)
_TEXT_WORDS = 4  # a value of this many words is a sentence rather than a name
_LONGEST_WORD = 40
_AS_NUMBER = re.compile(r"0\d{3,}|\d{8,}")  # leading zeros, or too long for a measurement in whole numbers


class Kind(StrEnum):
    """What the values of a column are."""

    NUMBER = "number"
    AGE = "age"
    WORD = "word"
    DATE = "date"
    TEXT = "text"


@dataclass(frozen=True)
class Table:
    """A table that was looked through.

    Args:
        kept: the kind of every column that may enter.
        refused: the reason why not, of the others.
        named: columns that name the patient or others; what they say is hidden wherever text repeats it.
        day_first: whether 03/04/2020 is in April here, by the dates that leave no choice.
    """

    kept: Mapping[str, Kind]
    refused: Mapping[str, str]
    named: tuple[str, ...] = ()
    day_first: bool | None = None

    @classmethod
    def of(cls, rows: Sequence[Row], left_out: Sequence[str]) -> Table:
        """Look a table through; `left_out` are the columns that name files and patients."""
        kept: dict[str, Kind] = {}
        refused: dict[str, str] = {}
        dates: list[str] = []
        for column in rows[0] if rows else ():
            values = [row[column] for row in rows if row.get(column)]
            found = "it names the file or patient" if column in left_out else _judged(column, values)
            if isinstance(found, Kind):
                kept[column] = found
                dates += values if found is Kind.DATE else []
            else:
                refused[column] = found
        named = (*left_out, *(column for column in refused if _IDENTIFYING.search(column)))
        return cls(kept, refused, tuple(dict.fromkeys(named)), evident_order(dates))

    def covariates(self, row: Row, pseudonyms: Pseudonyms, patient: str) -> dict[str, Covariate]:
        """What of a row enters.

        Args:
            row: one value per column.
            pseudonyms: the keyed pseudonyms.
            patient: pseudonym of the patient; the dates of all rows and headers of a patient move alike.
        """
        days = pseudonyms.shift_of(patient)
        births = {day for column in self.named if _BIRTH.search(column)
                  for day in known_dates(row.get(column, ""), self.day_first)}  # fmt: skip
        shift = DateShift(days, hidden=births, day_first=self.day_first)
        cleaner = TextCleaner(_identity(row, self.named, births), shift, pseudonyms.uid)
        found = {column: _value(row.get(column, ""), kind, cleaner) for column, kind in self.kept.items()}
        return {column: value for column, value in found.items() if value is not None}


def as_covariate(text: str) -> Covariate | None:
    """A number where the text is one, the text itself otherwise, None where it is empty."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _value(text: str, kind: Kind, cleaner: TextCleaner) -> Covariate | None:
    """One cell as it enters; None where it is empty, or a date that cannot be moved, so that none stays by mistake."""
    if kind is Kind.DATE:
        result = moved(text, cleaner.dates)
        return None if result is None or REPLACED in result else result
    value = as_covariate(text)
    if isinstance(value, str):
        return cleaner.clean(value)
    return min(value, POOLED_FROM_YEARS) if kind is Kind.AGE and value is not None else value


def _identity(row: Row, named: Sequence[str], births: set[date]) -> Identity:
    """What the row knows of its patient: names and numbers that must not come back in its text."""
    told = [(column, row[column]) for column in named if row.get(column)]
    names = {word for column, value in told if _NAMING.search(column) for word in Identity.words_of(value)}
    return Identity(frozenset(names), frozenset(value for _, value in told), birth=frozenset(births))


def _judged(column: str, values: Sequence[str]) -> Kind | str:
    """The kind of a column's values, or the reason why the column stays out."""
    if _BIRTH.search(column) and all(not _is_number(value) or is_date(value) for value in values):
        return "its name announces a date of birth"
    if _IDENTIFYING.search(column):
        return "its name announces an identifier"
    if not values:
        return "it is empty"
    dated = sum(is_date(value) for value in values)
    if dated and dated >= 0.8 * len(values):
        return Kind.DATE
    if all(_is_number(value) for value in values):
        return _judged_numbers(column, values)
    if any(len(value) > _LONGEST_WORD or len(value.split()) >= _TEXT_WORDS for value in values) or dated:
        return Kind.TEXT
    if len(values) > 10 and len(set(values)) > len(values) / 2:
        return "most of its words occur only once, so that they could name somebody"
    return Kind.AGE if _AGE.search(column) else Kind.WORD


def _judged_numbers(column: str, values: Sequence[str]) -> Kind | str:
    if _CALLED_DATE.search(column):
        return "its name announces dates, but its numbers cannot be moved as such"
    if len(values) > 1 and len(set(values)) == len(values) and any(_AS_NUMBER.fullmatch(value) for value in values):
        return "its numbers look like those of records or telephones"
    return Kind.AGE if _AGE.search(column) else Kind.NUMBER


def _is_number(text: str) -> bool:
    return isinstance(as_covariate(text), float)
