"""A site's own profile: a TOML file that tightens or relaxes the standard one, checked before it is used.

[options]                       # options of PS3.15 E.3, each true or false
retain_institution_identity = true
[attributes]                    # single attributes by keyword or tag
remove = ["PatientWeight"]
empty = []
clean = ["StationName"]
keep = ["(0018,1008)"]
[private]
keep = ["0019,xx10,SIEMENS MR HEADER"]   # group, element with its block left open, creator
[pixels]
text = "strict"                 # keep, clean or strict
secondary = false               # let secondary captures in, cleaned
faces = "keep"                  # keep, or remove from MR and CT of the head
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vesalius.core.errors import UsageError
from vesalius.privacy.profile import Action, FaceMode, Option, PixelMode, Profile

DEFAULT_TOML = """\
# What the door does to headers and pixels, where it departs from the defaults.
# The defaults and every option stand in docs/privacy.md; contradictions are refused.

[options]

[attributes]

[pixels]
text = "clean"
"""
_LISTS = {"remove": Action.REMOVE, "empty": Action.EMPTY, "clean": Action.CLEAN, "keep": Action.KEEP}
_SECTIONS = {"options", "attributes", "private", "pixels"}
_PRIVATE = re.compile(r"^([0-9a-fA-F]{4}),[xX]{2}([0-9a-fA-F]{2}),(.+)$")
# Whatever a site wishes, these name the patient, or lead to the object that does.
_NEVER_KEPT = ("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName",
               "PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "IssuerOfPatientID")  # fmt: skip


def load_profile(toml_text: str) -> Profile:
    """The standard profile with a site's changes.

    Raises:
        UsageError: it is not TOML, names something unknown, or contradicts itself; all problems are told.
    """
    try:
        data = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The privacy profile is not valid TOML: {error}.") from error
    problems: list[str] = [f"there is no section [{name}]" for name in sorted(set(data) - _SECTIONS)]
    profile = Profile()
    profile = _with_options(profile, _table(data, "options", problems), problems)
    profile = _with_attributes(profile, _table(data, "attributes", problems), problems)
    profile = _with_private(profile, _table(data, "private", problems), problems)
    profile = _with_pixels(profile, _table(data, "pixels", problems), problems)
    if problems:
        raise UsageError(
            "The privacy profile cannot be used: " + "; ".join(problems) + ".", remedy="Correct the TOML file."
        )
    return profile


def _table(data: Mapping[str, Any], name: str, problems: list[str]) -> Mapping[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        problems.append(f"[{name}] is not a table")
        return {}
    return found


def _with_options(profile: Profile, table: Mapping[str, Any], problems: list[str]) -> Profile:
    chosen = set(profile.options)
    for name, on in table.items():
        if name not in set(Option):
            known = ", ".join(option.value for option in Option)
            problems.append(f"there is no option {name} (there are {known})")
        elif not isinstance(on, bool):
            problems.append(f"{name} is neither true nor false")
        elif on:
            chosen.add(Option(name))
        else:
            chosen.discard(Option(name))
    if {Option.FULL_DATES, Option.MODIFIED_DATES} <= chosen:
        problems.append("retain_full_dates and retain_modified_dates exclude each other; switch one off")
    return replace(profile, options=frozenset(chosen))


def _with_attributes(profile: Profile, table: Mapping[str, Any], problems: list[str]) -> Profile:
    actions: dict[str, Action] = {}
    for name, names in table.items():
        if name not in _LISTS or not isinstance(names, list):
            problems.append(f"[attributes] takes lists called {', '.join(_LISTS)}, not {name}")
            continue
        for written in names:
            tag = _tag(str(written))
            if tag is None:
                problems.append(f"there is no public attribute {written}")
            elif tag in actions and actions[tag] is not _LISTS[name]:
                problems.append(f"{written} stands in two lists")
            elif _LISTS[name] is Action.KEEP and tag in {_tag(keyword) for keyword in _NEVER_KEPT}:
                problems.append(f"{written} names the patient and is never kept")
            else:
                actions[tag] = _LISTS[name]
    return replace(profile, attributes=actions)


def _with_private(profile: Profile, table: Mapping[str, Any], problems: list[str]) -> Profile:
    kept = set()
    for name, entries in table.items():
        if name != "keep" or not isinstance(entries, list):
            problems.append(f"[private] takes a list called keep, not {name}")
            continue
        for entry in entries:
            match = _PRIVATE.match(str(entry).strip())
            if match is None or int(match[1], 16) % 2 == 0:
                problems.append(f"{entry} is no private attribute (write group,xxelement,creator)")
            else:
                kept.add((int(match[1], 16), int(match[2], 16), match[3].strip()))
    return replace(profile, private=frozenset(kept))


def _with_pixels(profile: Profile, table: Mapping[str, Any], problems: list[str]) -> Profile:
    for name in sorted(set(table) - {"text", "secondary", "faces"}):
        problems.append(f"[pixels] knows text, secondary and faces, not {name}")
    text, secondary = table.get("text", profile.pixels.value), table.get("secondary", profile.secondary)
    if text not in set(PixelMode):
        problems.append("[pixels] text is keep, clean or strict")
        text = profile.pixels.value
    if not isinstance(secondary, bool):
        problems.append("[pixels] secondary is true or false")
        secondary = profile.secondary
    faces = table.get("faces", profile.faces.value)
    if faces not in set(FaceMode):
        problems.append("[pixels] faces is keep or remove")
        faces = profile.faces.value
    if secondary and text == PixelMode.KEEP:
        problems.append("secondary captures are let in only with their text cleaned; text may not be keep")
    return replace(profile, pixels=PixelMode(text), secondary=secondary, faces=FaceMode(faces))


def _tag(written: str) -> str | None:
    """Eight lower-case hexadecimal digits of a keyword, or of a tag as `0018,1008` or `(0018,1008)`."""
    from pydicom.datadict import dictionary_has_tag, tag_for_keyword

    found = tag_for_keyword(written)
    if found is None:
        digits = written.strip("() ").replace(",", "").lower()
        if not re.fullmatch(r"[0-9a-f]{8}", digits) or not dictionary_has_tag(int(digits, 16)):
            return None
        return digits
    return f"{found:08x}"
