"""The forms of values that are no free text (PS3.5 6.2): times, ages, numbers, defined terms, UIDs.

What stands in such an element and has another form may be anything, a name or a telephone number included.
"""

from __future__ import annotations

import re

from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]

POOLED_FROM_YEARS = 90
_POOLED_FROM_MONTHS = 12 * POOLED_FROM_YEARS
_PADDING = " \0"
_TIME = re.compile(r"(?:[01]\d|2[0-3])(?::?[0-5]\d(?::?[0-6]\d(?:\.\d{1,9})?)?)?")
_NUMBER = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?")
_TERM = re.compile(r"[A-Z0-9_ ]{1,16}")
_AGE = re.compile(r"(\d{1,4}) ?([DWMYdwmy]?)")
_UID = re.compile(r"[\d.]{1,64}")
_FORMS = {"TM": _TIME, "DS": _NUMBER, "IS": _NUMBER, "CS": _TERM, "UI": _UID}


def has_form(vr: str, value: str) -> bool:
    """Whether one value of TM, DS, IS, CS or UI has the form of its kind, or is empty."""
    value = value.strip(_PADDING)
    return not value or _FORMS[vr].fullmatch(value) is not None


def pooled_age(age: str) -> str | None:
    """An age with 90 years and over as 090Y, also where it is not written to the letter; None where it is no age."""
    age = age.strip(_PADDING)
    match = _AGE.fullmatch(age)
    if match is None:
        return None if age else ""
    number, unit = int(match[1]), match[2].upper()
    old = number >= (_POOLED_FROM_MONTHS if unit == "M" else POOLED_FROM_YEARS) and unit in ("", "M", "Y")
    return f"{POOLED_FROM_YEARS:03d}Y" if old else age


def is_standard_uid(uid: str) -> bool:
    """Whether the standard itself gave this UID (PS3.6 annex A); its root alone proves nothing."""
    return uid in UID_dictionary
