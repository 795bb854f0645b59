"""Dates in the cells of a table: which cells are dates, in which order day and month stand, and moving them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

from vesalius.privacy.dates import DateShift
from vesalius.privacy.text import REPLACED

_MARK = "\ufffc"  # stands for a date that was found; no cell of a table holds it
_REST = re.compile(
    r"(?:[T ]?\d{1,2}(?::?\d{2}){1,2}(?:[.,]\d+)?(?: ?[ap]m)?)?(?: ?Z|[ ]?[+-]\d{2}:?\d{2})?", re.IGNORECASE
)
_WEEKDAY = re.compile(r"^[^\W\d_]{2,10}\.?,? (?=\d)")
_NUMERIC = re.compile(r"^(\d{1,2})([-./])(\d{1,2})\2(\d{4}|\d{2})(?!\d)")
_MONTHS = (
    re.compile(r"(?P<y>(?:19|20)\d{2})(?P<s>[-./])(?P<m>0[1-9]|1[0-2])"),
    re.compile(r"(?P<m>0?[1-9]|1[0-2])(?P<s>[-./])(?P<y>(?:19|20)\d{2})"),
)
_MID_MONTH = 15  # the day that a month without one moves from


def is_date(text: str) -> bool:
    """Whether a cell holds one date and at most a weekday and a time of day beside it, or a month of a year."""
    text = text.strip()
    if any(form.fullmatch(text) for form in _MONTHS):
        return True
    return any(_is_dated(form) for form in (text, _WEEKDAY.sub("", text)))


def evident_order(cells: Iterable[str]) -> bool | None:
    """Whether days stand before months, where some date leaves no choice; None where none does, or they disagree."""
    found = {int(match[1]) > 12 for cell in cells if (match := _NUMERIC.match(cell.strip()))
             and (int(match[1]) > 12) != (int(match[3]) > 12)}  # fmt: skip
    return found.pop() if len(found) == 1 else None


def known_dates(cell: str, day_first: bool | None) -> set[date]:
    """The date of a cell, read in the table's order; none where the order is not known or it is no date."""
    match = _NUMERIC.match(cell.strip())
    if match is None:
        compact = re.match(r"((?:19|20)\d{2})[-./]?(\d{2})[-./]?(\d{2})", cell.strip())
        return _day(int(compact[1]), int(compact[2]), int(compact[3])) if compact else set()
    if day_first is None:
        return set()
    first, second, year = int(match[1]), int(match[3]), int(match[4])
    if len(match[4]) == 2:
        year += 1900 if year > 40 else 2000
    return _day(year, *((second, first) if day_first else (first, second)))


def moved(cell: str, shift: DateShift) -> str | None:
    """A cell that `is_date`, with its date moved and written as it was; None where it is none."""
    cell = cell.strip()
    for form in _MONTHS:
        match = form.fullmatch(cell)
        if match is not None:
            at = shift.value(f"{match['y']}{int(match['m']):02d}{_MID_MONTH}")
            year, month, mark = at[:4], at[4:6], match["s"]
            return f"{year}{mark}{month}" if cell.startswith(match["y"]) else f"{month}{mark}{year}"
    if not is_date(cell):
        return None
    bare = cell if _is_dated(cell) else _WEEKDAY.sub("", cell)  # the weekday of the moved date would be another
    return shift.in_text(bare, REPLACED)


def _is_dated(text: str) -> bool:
    marked = DateShift(1).in_text(text, "", lambda _: _MARK)
    return marked.count(_MARK) == 1 and marked.startswith(_MARK) and _REST.fullmatch(marked[1:]) is not None


def _day(year: int, month: int, day: int) -> set[date]:
    try:
        return {date(year, month, day)}
    except ValueError:
        return set()  # a cell that only looks like a date is known of nobody
