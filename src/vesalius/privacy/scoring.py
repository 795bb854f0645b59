"""Scoring de-identified files against the key of a plant, by the ten actions of the MIDI-B challenge.

This is another reader: it shares no code with the de-identifier that it judges. Headers are walked with pydicom,
and every byte of every file, and of the decompressed pixels, is searched for what must not be there. Works for
the output of any program that keeps Instance Number.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from vesalius.privacy.planting import ACTIONS, Check, Key

_AROUND = 9  # pixels around a planted text in which a rectangle that hides it may end


@dataclass
class Scores:
    """Right and all checks of each action, and what failed.

    Args:
        right: checks that hold, by action.
        total: all checks, by action.
        failures: those that do not hold.
        missing: files that did not come out at all.
    """

    right: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACTIONS, 0))
    total: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACTIONS, 0))
    failures: list[Check] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of all checks that hold, from 0 to 1."""
        return sum(self.right.values()) / max(sum(self.total.values()), 1)

    def count(self, check: Check, holds: bool) -> None:
        """Enter one check."""
        self.total[check.action] += 1
        self.right[check.action] += holds
        if not holds:
            self.failures.append(check)


@dataclass(frozen=True)
class Written:
    """A de-identified file: its data set, all its text, and its bytes."""

    path: Path
    dataset: Any
    texts: str
    raw: bytes


def score(key: Key, folder: Path) -> Scores:
    """Judge every DICOM file below a folder by the key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = {_number(one): one for one in _read(folder)}
        scores = Scores()
        scores.missing = sorted(set(key.originals) - set(written))
        moved, uids, patients = _shifts(key, written), _uids(key, written), _patients(key, written)
        for check in key.checks:
            one = written.get(check.number)
            if one is None:
                holds = False
            elif check.action == "date shifted":
                holds = _date_holds(check, one, moved.get(key.patients[check.number], set()))
            elif check.action == "UID consistent":
                holds = len(uids[check.value]) == 1 and sum(uids[check.value] == other for other in uids.values()) == 1
            elif check.action == "patient ID consistent":
                holds = len(patients[check.value]) == 1 and sum(patients[check.value] & o != set()
                                                                for o in patients.values()) == 1  # fmt: skip
            elif check.action.startswith("pixels"):
                holds = _pixels_hold(check, one, key)
            else:
                holds = _text_holds(check, one)
            scores.count(check, holds)
        return scores


def search_bytes(folder: Path, words: set[str]) -> list[tuple[str, str]]:
    """(file, word) wherever a file's name, its bytes or its decompressed pixels hold one of the words."""
    forms = {
        form: word
        for word in words
        for code in ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "iso8859-5", "shift_jis", "iso2022_jp")
        for form in _encoded(word, code)
    }
    pattern = re.compile(b"|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found += [(name, word) for word in words if word in name]
        if path.is_file():
            found += [(name, forms[match]) for match in set(pattern.findall(path.read_bytes()))]
            found += [(f"{name} (pixels)", forms[match]) for match in set(pattern.findall(_pixel_bytes(path)))]
    return found


def _encoded(word: str, code: str) -> list[bytes]:
    try:
        form = word.encode(code)
    except UnicodeEncodeError:
        return []
    return [form] if len(form) >= 4 else []


def _pixel_bytes(path: Path) -> bytes:
    try:
        return bytes(pydicom.dcmread(path).pixel_array.tobytes())
    except (OSError, ValueError, AttributeError, RuntimeError, KeyError, TypeError, NotImplementedError,
            pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException):  # fmt: skip
        return b""  # no image; its bytes were searched


def _read(folder: Path) -> Iterator[Written]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        if raw[128:132] == b"DICM":
            dataset = pydicom.dcmread(path, force=True)
            yield Written(path, dataset, "\n".join(_texts(dataset)), raw)


def _texts(dataset: Any) -> Iterator[str]:
    for element in [*dataset.file_meta, *dataset]:
        if element.VR == "SQ":
            for item in element.value:
                item.file_meta = pydicom.dataset.FileMetaDataset()
                yield from _texts(item)
        elif isinstance(element.value, bytes):
            if element.tag != 0x7FE00010:
                yield element.value.decode("utf-8", "replace")
                yield element.value.decode("latin-1")
        else:
            yield str(element.value)


def _number(one: Written) -> int:
    return int(one.dataset.get("InstanceNumber") or -1)


def _value(dataset: Any, where: str) -> Any:
    for step in where.split("/"):
        if dataset is None:
            return None
        found = dataset.get(int(step, 16)) if re.fullmatch(r"[0-9a-f]{8}", step) else dataset.get(step)
        found = found.value if hasattr(found, "tag") else found
        dataset = found[0] if isinstance(found, pydicom.sequence.Sequence) and len(found) else found
    return dataset


def _text_holds(check: Check, one: Written) -> bool:
    if check.action == "text removed":
        if check.where:
            return check.value.lower() not in str(_value(one.dataset, check.where) or "").lower()
        lower = check.value.lower()
        if lower in one.texts.lower():
            return False
        return not any(
            form in one.raw for code in ("utf-8", "latin-1", "utf-16-le") for form in _encoded(check.value, code)
        )
    value = _value(one.dataset, check.where)
    if check.action == "text not null":
        return bool(str(value or "").strip())
    if check.action == "text retained":
        return check.value in str(value or "")
    if check.action == "UID changed":
        return bool(value) and str(value) != check.value and pydicom.uid.UID(str(value)).is_valid
    return _same(value, check.value)


def _same(value: Any, expected: str) -> bool:
    if value is None:
        return False
    if str(value) == expected:
        return True
    try:
        return bool(np.allclose(np.array(value, float), np.array(expected.strip("[]").split(","), float)))
    except ValueError:
        return False


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text[:8], "%Y%m%d").date()
    except ValueError:
        return None


def _shifts(key: Key, written: dict[int, Written]) -> dict[str, set[int]]:
    """The days by which each patient's study dates moved; there must be one, and not none."""
    shifts: dict[str, set[int]] = defaultdict(set)
    for check in key.checks:
        if check.where == "StudyDate" and check.action == "date shifted" and check.number in written:
            old, new = _day(check.value), _day(str(written[check.number].dataset.get("StudyDate") or ""))
            shifts[key.patients[check.number]].add((old - new).days if old and new else 0)
    return shifts


def _date_holds(check: Check, one: Written, shifts: set[int]) -> bool:
    if len(shifts) != 1 or 0 in shifts:
        return False
    (days,) = shifts
    value = str(_value(one.dataset, check.where) or "")
    if "|" in check.value:
        text, form = check.value.split("|")
        old = _day(text)
        if old is None:
            return False
        return date.fromordinal(old.toordinal() - days).strftime(form) in value and old.strftime(form) not in value
    old, new = _day(check.value), _day(value)
    return bool(old and new and (old - new).days == days and value[8:] == check.value[8:])


def _uids(key: Key, written: dict[int, Written]) -> dict[str, set[str]]:
    """Every replacement that each UID got, over all files."""
    found: dict[str, set[str]] = defaultdict(set)
    for check in key.checks:
        if check.action == "UID consistent" and check.number in written:
            found[check.value].add(str(_value(written[check.number].dataset, check.where) or ""))
    return found


def _patients(key: Key, written: dict[int, Written]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for number, one in written.items():
        if number in key.patients:
            found[key.patients[number]].add(str(one.dataset.get("PatientID") or ""))
    return found


def _pixels_hold(check: Check, one: Written, key: Key) -> bool:
    before, after = pydicom.dcmread(key.originals[check.number]).pixel_array, _pixels(one)
    if after is None or before.shape[:2] != after.shape[:2]:
        return False
    if check.action == "pixels hidden":
        return _is_hidden(check, before, after)
    top, left, bottom, right = check.box
    if not bottom:
        return bool(np.array_equal(before, after))
    outside = np.ones(before.shape, bool)
    film = int(one.dataset.get("NumberOfFrames") or 1) > 1
    area = (slice(max(top - _AROUND, 0), bottom + _AROUND), slice(max(left - _AROUND, 0), right + _AROUND))
    outside[(slice(None), *area) if film else area] = False
    return bool(np.array_equal(before[outside], after[outside]))


def _pixels(one: Written) -> Any:
    try:
        return one.dataset.pixel_array
    except (AttributeError, ValueError, RuntimeError, NotImplementedError, KeyError):
        return None


def _is_hidden(check: Check, before: Any, after: Any) -> bool:
    """Whether no trace of the letters is left: what was brightest in the box no longer differs from the rest."""
    top, left, bottom, right = check.box
    if before.ndim == 4 or (before.ndim == 3 and before.shape[-1] != 3):
        before, after = before[int(check.where)], after[int(check.where)]
    old, new = before[top:bottom, left:right].astype(float), after[top:bottom, left:right].astype(float)
    if old.ndim == 3:
        old, new = old.max(axis=2), new.max(axis=2)
    if np.ptp(new) == 0:
        return True
    letters = old == old.max()
    correlation = np.corrcoef(letters.ravel(), new.ravel())[0, 1]
    return bool(not np.isfinite(correlation) or abs(correlation) < 0.2)
