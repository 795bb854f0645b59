"""Moving dates: DA and DT values, and dates written in text in the common ways of Europe and America.

Every date of a patient moves by the same number of whole days, so that intervals stay; the time of day and
the way of writing stay too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import date, timedelta

_DA = re.compile(r"(\d{4})([.-]?)(\d{2})\2(\d{2})(.*)", re.DOTALL)
# A time of day, and an offset from UTC; nothing else may follow a date in its element.
_AFTER = re.compile(r"([T ]?\d{2}(?::?\d{2}(?::?\d{2}(?:\.\d{1,9})?)?)?)?([+-](?:0\d|1[0-4]):?\d{2}|Z)?")
_PARTIAL = re.compile(r"(\d{4})(\d{2})?")

# Names of the twelve months: English, German, French, Spanish, Italian, Dutch, Portuguese, Polish, Swedish.
_CALENDARS = tuple(
    names.split()
    for names in (
        "january february march april may june july august september october november december",
        "jan feb mar apr may jun jul aug sep oct nov dec",
        "jan febr march apr may june july aug sept oct nov dec",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "jänner feber maerz apr mai jun jul aug sep okt nov dez",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "janv fevrier mars avr mai juin juil aout sept oct nov decembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "ene feb mar abr may jun jul ago sep oct nov dic",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "gen feb mar apr mag giu lug ago set ott nov dic",
        "januari februari maart april mei juni juli augustus september oktober november december",
        "jan feb mrt apr mei jun jul aug sep okt nov dec",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "jan fev mar abr mai jun jul ago set out nov dez",
        "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia",
        "januari februari mars april maj juni juli augusti september oktober november december",
    )
)
_CALENDAR_OF = {name: calendar for calendar in reversed(_CALENDARS) for name in calendar}
_NAMES = "|".join(sorted(_CALENDAR_OF, key=len, reverse=True))
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        r"(?<!\d)(?P<y>(?:18|19|20)\d{2})(?P<s>[-./ ]?)(?P<m>0[1-9]|1[0-2])(?P=s)(?P<d>0[1-9]|[12]\d|3[01])"
        r"(?=(?:[T ]?(?:[01]\d|2[0-3])(?::?[0-5]\d){1,2}(?!\d))|(?!\d))",
        r"(?<![\d.])(?P<a>0?[1-9]|[12]\d|3[01])(?P<s>[-./])(?P<b>0?[1-9]|[12]\d|3[01])(?P=s)"
        r"(?P<y>(?:18|19|20)\d{2}|(?:(?<=\d\d[-./]\d\d[-./])|(?<=\d/))\d{2})(?![\d.]\d|\d)",
        rf"(?<!\d)(?P<d>0?[1-9]|[12]\d|3[01])(?P<t1>(?:st|nd|rd|th|\.|er|º)?[- ]?(?:of |de )?)"
        rf"(?P<name>{_NAMES})(?![^\W\d_])(?P<t2>\.?,?[- ]?(?:de )?)(?P<y>(?:18|19|20)\d{{2}}|\d{{2}})(?!\d)",
        rf"(?<![^\W\d_])(?P<name>{_NAMES})(?P<t1>\.?[- ]?)(?P<after>0?[1-9]|[12]\d|3[01])"
        rf"(?P<t2>(?:st|nd|rd|th)?,?[- ]+)(?P<y>(?:18|19|20)\d{{2}})(?!\d)",
        r"(?<!\d)(?P<a>0[1-9]|[12]\d|3[01])(?P<s>)(?P<b>0[1-9]|[12]\d|3[01])(?P<y>(?:19|20)\d{2})(?!\d)",
    )
)


@dataclass(frozen=True)
class DateShift:
    """Whole days by which the dates of one patient move into the past.

    Args:
        days: 1 or more; None hides every date.
        known: dates of this patient, which decide whether 03/04/2020 is in March or April.
        hidden: dates that are not moved but hidden, such as the birth date.
        day_first: whether 03/04/2020 is in April where `known` does not tell; None goes by the separator.
    """

    days: int | None
    known: Container[date] = frozenset()
    hidden: Container[date] = frozenset()
    day_first: bool | None = None

    def value(self, text: str) -> str:
        """A DA or DT value moved, with its time of day; what is no date becomes empty (PS3.5 6.2).

        What follows a date and is no time of day, such as the end of a range, is cut off.
        """
        text = text.strip(" \0")
        match = _DA.fullmatch(text)
        if match is None:
            return self._partial(text)
        moved = self._moved(int(match[1]), int(match[3]), int(match[4]))
        after = match[5] if _AFTER.fullmatch(match[5]) else ""
        return "" if moved is None else f"{moved:%Y%m%d}".zfill(8) + after

    def in_text(self, text: str, hide: str, mark: Callable[[str], str] = str) -> str:
        """The text with each date in it moved, written as it was.

        Args:
            text: free text.
            hide: what takes the place of dates that are hidden or are no dates of a calendar.
            mark: what is done with a moved date before it is put in.
        """
        if not any(character.isdigit() for character in text):
            return text
        for form in _FORMS:
            text = form.sub(lambda match: self._replaced(match, hide, mark), text)
        return text

    def _partial(self, text: str) -> str:
        match = _PARTIAL.fullmatch(text)
        if match is None:
            return ""
        moved = self._moved(int(match[1]), int(match[2] or 7), 1)
        return "" if moved is None else f"{moved:%Y%m}"[: len(text)]

    def _moved(self, year: int, month: int, day: int) -> date | None:
        if self.days is None:
            return None
        try:
            return date(year, month, day) - timedelta(days=self.days)
        except (ValueError, OverflowError):
            return None

    def _replaced(self, match: re.Match[str], hide: str, mark: Callable[[str], str]) -> str:
        groups = match.groupdict()
        year = _year(groups["y"])
        found = [(day, month, writing) for day, month, writing in _readings(groups) if _is_date(year, month, day)]
        if not found:
            number = "s" not in groups or ("a" in groups and not groups["s"])
            return match[0] if len(groups["y"]) == 2 or (self.days is not None and number) else hide
        if self.day_first is not None:
            found.sort(key=lambda one: (one[2] is _month_first) is self.day_first)
        certain = [one for one in found if date(year, one[1], one[0]) in self.known]
        day, month, writing = (certain or found)[0]
        if any(date(year, m, d) in self.hidden for d, m, _ in found):
            return hide
        moved = self._moved(year, month, day)
        return hide if moved is None or self.days is None else mark(writing(moved, groups))


Writing = Callable[[date, dict[str, str]], str]


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _year(text: str) -> int:
    year = int(text)
    if len(text) == 4:
        return year
    return 1900 + year if year > 40 else 2000 + year


def _readings(groups: dict[str, str]) -> list[tuple[int, int, Writing]]:
    """(day, month, how to write it again), the likelier reading first."""
    if "name" in groups:
        month = _CALENDAR_OF[groups["name"].lower()].index(groups["name"].lower()) + 1
        return [(int(groups.get("after") or groups["d"]), month, _with_name)]
    if "a" not in groups:
        return [(int(groups["d"]), int(groups["m"]), _year_first)]
    first, second = int(groups["a"]), int(groups["b"])
    readings: list[tuple[int, int, Writing]] = []
    if second <= 12:
        readings.append((first, second, _day_first))
    if first <= 12:
        readings.append((second, first, _month_first))
    return readings[::-1] if groups["s"] == "/" else readings


def _width(number: int, like: str) -> str:
    return f"{number:0{2 if len(like) == 2 else 1}d}"


def _years(moved: date, like: str) -> str:
    return f"{moved.year:04d}"[-len(like) :]


def _year_first(moved: date, groups: dict[str, str]) -> str:
    return f"{moved.year:04d}{groups['s']}{moved.month:02d}{groups['s']}{moved.day:02d}"


def _day_first(moved: date, groups: dict[str, str]) -> str:
    parts = (_width(moved.day, groups["a"]), _width(moved.month, groups["b"]), _years(moved, groups["y"]))
    return groups["s"].join(parts)


def _month_first(moved: date, groups: dict[str, str]) -> str:
    parts = (_width(moved.month, groups["a"]), _width(moved.day, groups["b"]), _years(moved, groups["y"]))
    return groups["s"].join(parts)


def _with_name(moved: date, groups: dict[str, str]) -> str:
    """The month's name from the same calendar, with the same capitals."""
    old = groups["name"]
    name = _CALENDAR_OF[old.lower()][moved.month - 1]
    name = name.upper() if old.isupper() else name.capitalize() if old[0].isupper() else name
    year = _years(moved, groups["y"])
    if "after" in groups:
        return f"{name}{groups['t1']}{_width(moved.day, groups['after'])}{groups['t2']}{year}"
    return f"{_width(moved.day, groups['d'])}{groups['t1']}{name}{groups['t2']}{year}"
