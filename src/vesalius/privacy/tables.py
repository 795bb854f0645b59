"""What of a table may enter a cohort: numbers and short repeated words, never what names or dates anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vesalius.core.case import Covariate

# Words in a column's name that announce an identifier (PS3.15 E.1-1 and HIPAA 164.514(b)(2) name the kinds).
_IDENTIFYING = re.compile(
    r"(?:^|[^a-z])(?:(?:first|last|family|given|sur|patient|full)?[_ ]?name|mrn|ssn|dob|address|street|phone|e-?mail"
    r"|birth\w*|postcode|zip|insurance\w*|accession\w*|(?:patient|subject|person|hospital)[_ ]?(?:id|nr|no|number)?"
    r"|id|date|comments?|notes?|remarks?)(?:$|[^a-z])",
    re.IGNORECASE,
)
_DATE = re.compile(r"^\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[ T].*)?$|^(?:19|20)\d{6}$")
_LONGEST_WORD = 40
_MOST_WORDS = 4


def safe_columns(rows: Sequence[Mapping[str, str]], left_out: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The columns that may enter, and the others with the reason why not.

    A column may enter when all its values are numbers, or short words that repeat; a column of words of
    which most occur once could name somebody.
    """
    kept: list[str] = []
    refused: dict[str, str] = {}
    for column in rows[0] if rows else ():
        values = [row[column] for row in rows if row.get(column)]
        reason = "it names the file or patient" if column in left_out else _reason(column, values)
        if reason:
            refused[column] = reason
        else:
            kept.append(column)
    return kept, refused


def as_covariate(text: str) -> Covariate | None:
    """A number where the text is one, the text itself otherwise, None where it is empty."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _reason(column: str, values: Sequence[str]) -> str:
    if _IDENTIFYING.search(column):
        return "its name announces an identifier"
    if not values:
        return "it is empty"
    if any(_DATE.match(value) for value in values):
        return "it holds dates"
    if all(isinstance(as_covariate(value), float) for value in values):
        return ""
    if any(len(value) > _LONGEST_WORD or len(value.split()) > _MOST_WORDS for value in values):
        return "it holds free text"
    if len(values) > 10 and len(set(values)) > len(values) / 2:
        return "most of its words occur only once"
    return ""
