"""The reader before a share, for DICOM: is every attribute gone that the file's own de-identification says is gone?

The file states which options of PS3.15 Annex E were applied (De-identification Method Code Sequence, PS3.16 CID
7050); the table of that annex says what each allows to stay.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydicom

from vesalius.formats.dicom_values import damaged
from vesalius.privacy.leaks_text import Known, days_in, suspicious

_OPTIONS = {
    "113110": "retain_uids", "113109": "retain_device", "113112": "retain_institution",
    "113108": "retain_patient_characteristics", "113106": "retain_full_dates", "113107": "retain_modified_dates",
    "113105": "clean_descriptors", "113104": "clean_structured_content", "113103": "clean_graphics",
}  # fmt: skip
_SAFE_PRIVATE = "113111"
_FREE = frozenset({"LO", "LT", "SH", "ST", "UT", "UC", "PN", "AE", "CS", "UR"})
_OF_KIND = re.compile(r"ClassUID|SyntaxUID|SchemeUID|ContextUID|MappingResourceUID|SOPClasses")
# What the Basic Profile takes away although it tells a kind of device, not which device it was.
_KINDS = frozenset({0x00500020, 0x0016004F, 0x00160050, 0x0016004E, 0x300A0216, 0x0018100B})
_DUMMIES = frozenset({"", "none", "removed", "***", "anonymized", "anonymous", "000y", "0", "about:blank"})
_PIXELS = frozenset({0x7FE00010, 0x7FE00008, 0x7FE00009})
_STANDARD = ("1.2.840.10008.", "2.25.")


@dataclass
class DicomReader:
    """Reads the DICOM files of one cohort; texts repeat in every slice, so what was seen is remembered.

    Args:
        known: what the owner can recognise.
        tolerated: attributes that the site's profile keeps, as tags.
        private: private attributes that the site's profile keeps: (group, low byte, creator).
    """

    known: Known
    tolerated: frozenset[int] = frozenset()
    private: frozenset[tuple[int, int, str]] = frozenset()
    _seen: dict[tuple[str, str, date | None], set[str]] = field(default_factory=dict)
    _clean: set[tuple[str, int, bytes, _Rules]] = field(default_factory=set)

    def leaks(self, path: Path, patient: str | None) -> Iterator[tuple[str, str]]:
        """(attribute, kind) of everything in a file that should not be there.

        Args:
            path: the file.
            patient: pseudonym that its name and number must be; None where that is not known.
        """
        try:
            dataset = pydicom.dcmread(path, force=True)
            yield from self._whole(dataset, path, patient)
        except damaged():
            yield "the file", "a header that cannot be read, so that nobody can vouch for it"

    def _whole(self, dataset: Any, path: Path, patient: str | None) -> Iterator[tuple[str, str]]:
        if str(dataset.get("PatientIdentityRemoved", "")) != "YES":
            yield "PatientIdentityRemoved", "no statement that identity was removed"
        for keyword in ("PatientName", "PatientID"):
            if patient is not None and str(dataset.get(keyword, "")) != patient:
                yield keyword, "not the pseudonym of this cohort"
        with path.open("rb") as file:
            if file.read(128).strip(b"\0"):
                yield "preamble", "bytes that do not belong there"
        codes = {str(item.get("CodeValue", "")) for item in dataset.get("DeidentificationMethodCodeSequence", [])}
        columns = tuple(sorted(_OPTIONS[code] for code in codes if code in _OPTIONS))
        modified = str(dataset.get("LongitudinalTemporalInformationModified", ""))
        days = [day for key in _DAYS for day in days_in(str(dataset.get(key, "")))]
        latest = None if modified == "REMOVED" else max(days, default=date.min)
        rules = _Rules(columns, _SAFE_PRIVATE in codes, latest, patient)
        yield from self._items(dataset.file_meta, rules, "")
        yield from self._items(dataset, rules, "")

    def _items(self, dataset: Any, rules: _Rules, path: str) -> Iterator[tuple[str, str]]:
        for place in sorted(dataset.keys()):
            raw = dataset.get_item(place)
            tag = int(place)
            key = (path, tag, raw.value, rules) if _repeats(raw, tag) else None
            if tag in _PIXELS or (key is not None and key in self._clean):
                continue
            element = dataset[place]
            name = f"{path}{element.keyword or f'({tag >> 16:04x},{tag & 0xFFFF:04x})'}"
            odd = tag >> 16 & 1
            kind = self._private_kind(element, dataset, rules) if odd else self._public_kind(element, rules)
            if kind:
                yield name, kind
            elif element.VR == "SQ":
                for item in element.value or ():
                    yield from self._items(item, rules, f"{name} > ")
            else:
                kinds = self._value_kinds(element, rules)
                if key is not None and not kinds:
                    self._clean.add(key)
                for found in sorted(kinds):
                    yield name, found

    def _public_kind(self, element: Any, rules: _Rules) -> str:
        tag = int(element.tag)
        row = table().get(f"{tag:08x}")
        if tag >> 24 in (0x50, 0x60) and "clean_graphics" not in rules.columns:
            return "an overlay or curve"
        if row is None or tag in self.tolerated or tag in _KINDS or element.is_empty:
            return ""
        if any(row[column] for column in rules.columns):
            return ""
        if row["basic"] == "X" or (row["basic"] == "Z" and element.VR not in ("SQ", "UI")):
            standing = (element.VR == "SQ" and len(element.value) > 0) or str(element.value).lower() not in _DUMMIES
            own = rules.patient is not None and str(element.value) == rules.patient
            return "an attribute that must be gone" if standing and not own else ""
        return ""

    def _private_kind(self, element: Any, dataset: Any, rules: _Rules) -> str:
        tag = int(element.tag)
        if (tag & 0xFFFF) <= 0xFF:
            return ""
        creator = dataset.get((tag >> 16 << 16) | (tag >> 8 & 0xFF))
        key = (tag >> 16, tag & 0xFF, str(creator.value).strip(" \0") if creator is not None else "")
        if key in self.private or (rules.private and key in safe_private()):
            return ""
        return "a private attribute that is not known to be safe"

    def _value_kinds(self, element: Any, rules: _Rules) -> set[str]:
        value, tag = element.value, int(element.tag)
        if element.VR == "UI":
            if _OF_KIND.search(element.keyword or "") or "retain_uids" in rules.columns:
                return set()
            uids = [str(one) for one in (value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value])]
            return {"a UID that was not replaced"} if any(u and not u.startswith(_STANDARD) for u in uids) else set()
        if isinstance(value, bytes):
            return self._in_bytes(value)
        text = str(value if value is not None else "")
        if not text.strip() or text == rules.patient:
            return set()
        if element.VR == "PN":
            return set() if text.lower().strip("^=") in _DUMMIES else {"the name of a person"}
        if element.VR in ("DA", "DT"):
            return {"a birth date"} if tag == 0x00100030 else set()
        free = element.VR in _FREE
        key = (element.VR if free else "", text, rules.latest)
        if key not in self._seen:
            found = self.known.in_text(text)
            if free:
                found |= suspicious(text, numbers=element.VR in ("LO", "LT", "ST", "UT"), latest=rules.latest)
            self._seen[key] = found
        return self._seen[key]

    def _in_bytes(self, data: bytes) -> set[str]:
        if len(data) > 1 << 20:
            return set()
        runs = [run.decode("latin-1") for run in re.findall(rb"[\x20-\x7e\xa0-\xff]{6,}", data)]
        found: set[str] = set()
        for run in runs:
            found |= self.known.in_text(run) | suspicious(run, numbers=False)
        return found - {"a name"}


@dataclass(frozen=True)
class _Rules:
    """What one file says that was done to it."""

    columns: tuple[str, ...]
    private: bool
    latest: date | None
    patient: str | None


def _repeats(raw: Any, tag: int) -> bool:
    """Whether an element may be remembered undecoded: a public one with a short value, as it stands in the file."""
    short = isinstance(raw.value, bytes) and len(raw.value) <= _LONGEST_REMEMBERED
    return short and raw.is_raw and raw.VR != "SQ" and not tag >> 16 & 1


_LONGEST_REMEMBERED = 256
_DAYS = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime")


@cache
def table() -> Mapping[str, Mapping[str, str]]:
    """The rows of Table E.1-1 by tag in eight lower-case hexadecimal digits."""
    text = files("vesalius.privacy").joinpath("profile.csv").read_text(encoding="utf-8")
    return {row["tag"]: row for row in csv.DictReader(text.splitlines())}


@cache
def safe_private() -> frozenset[tuple[int, int, str]]:
    """(group, low byte, creator) of Table E.3.10-1."""
    text = files("vesalius.privacy").joinpath("safe_private.csv").read_text(encoding="utf-8")
    return frozenset(
        (int(row["group"], 16), int(row["element"][2:], 16), row["private_creator"])
        for row in csv.DictReader(text.splitlines())
    )
