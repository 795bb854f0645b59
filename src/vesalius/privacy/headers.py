"""De-identifying a DICOM header in place (PS3.15 Annex E), sequences at any depth included.

Elements that stay as they are are never decoded, so that most of a header passes as the bytes that it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from vesalius.formats.dicom_values import damaged
from vesalius.privacy.dates import DateShift
from vesalius.privacy.forms import has_form, is_standard_uid, pooled_age
from vesalius.privacy.identity import Identity
from vesalius.privacy.profile import Action, Option, Profile, Rule
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.privacy.text import REPLACED, TextCleaner

_TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_LONGEST = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240}
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "US or SS", "US or SS or OW"})
_BINARY = frozenset({"OB", "OW", "OB or OW", "OD", "OF", "OL", "OV", "UN"})
_DUMMY: dict[str, Any] = {
    "AE": "NONE", "AS": "000Y", "CS": "NONE", "DS": "0", "IS": "0", "DA": "19000101", "DT": "19000101000000",
    "TM": "000000", "LO": "NONE", "LT": "NONE", "SH": "NONE", "ST": "NONE", "UT": "NONE", "UC": "NONE",
    "PN": "Anonymized", "UR": "about:blank", "US": 0, "SS": 0, "UL": 0, "SL": 0, "FL": 0.0, "FD": 0.0,
}  # fmt: skip
_DELIMITERS = 0xFFFE
# UIDs that name kinds of things, not things: they stay also where a maker's root begins them.
_CLASS_UIDS = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        "SOPClassUID", "ReferencedSOPClassUID", "RelatedGeneralSOPClassUID", "OriginalSpecializedSOPClassUID",
        "SOPClassesInStudy", "SOPClassesSupported", "CodingSchemeUID", "ContextUID", "MappingResourceUID",
        "ReferencedSOPClassUIDInFile", "ReferencedTransferSyntaxUIDInFile", "AvailableTransferSyntaxUID",
        "ReferencedRelatedGeneralSOPClassUIDInFile", "EncryptedContentTransferSyntaxUID",
        "MACCalculationTransferSyntaxUID",
    )
)  # fmt: skip
_PATIENT = frozenset({0x00100010, 0x00100020})
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_SHORTEST_NUMBER = 5  # digits of an identifier that a number may repeat; shorter ones are met by chance

Report = Callable[[str, str, str], None]


@dataclass
class HeaderCleaner:
    """De-identifies the headers of one patient.

    Args:
        pseudonyms: the keyed pseudonyms.
        patient: pseudonym that takes the place of name and identifier.
        identifier: the identified patient key, from which the date shift is derived.
        profile: what to do.
        identity: what is known of the patient beyond the header at hand.
        report: told (path of the attribute, what happens, why), for `ingest --what-if`.
    """

    pseudonyms: Pseudonyms
    patient: str
    identifier: str
    profile: Profile = field(default_factory=Profile)
    identity: Identity = field(default_factory=Identity)
    report: Report | None = None
    _text: TextCleaner | None = None
    _passed: dict[tuple[str, bytes], bool] = field(default_factory=dict)

    def clean(self, dataset: pydicom.FileDataset) -> None:
        """Rewrite the dataset and its file meta information in place; pixel data are not touched."""
        meta = _file_meta(dataset)
        if not meta.TransferSyntaxUID.is_implicit_VR and any(
            dataset.get_item(tag).VR is None for tag in list(dataset.keys())
        ):
            for _ in dataset.iterall():  # written against its own transfer syntax: every element needs its VR
                continue
        text = self.learn(dataset)
        self._clean_items(dataset, text, "")
        dataset.update(self.marks())
        dataset.preamble = b"\0" * 128
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta = meta

    def marks(self) -> Dataset:
        """What every file gets: the pseudonym, and the attributes that say what was done (PS3.15 E.1.1)."""
        marks = Dataset()
        marks.PatientName = marks.PatientID = self.patient
        marks.PatientIdentityRemoved = "YES"
        marks.LongitudinalTemporalInformationModified = _time_modified(self.profile)
        marks.DeidentificationMethod = "Vesalius, DICOM PS3.15 Annex E"
        marks.DeidentificationMethodCodeSequence = Sequence([_code(*method) for method in self.profile.methods()])
        return marks

    def learn(self, dataset: Dataset) -> TextCleaner:
        """Add what this header knows of the patient; the cleaner for texts, which then knows it all."""
        found = self.identity.joined(Identity.of(dataset, self.identifier))
        if self._text is None or found is not self.identity:
            self.identity = found
            days = self.pseudonyms.shift_days(self.identifier)
            moved = {Option.MODIFIED_DATES, Option.FULL_DATES} & self.profile.options
            if Option.FULL_DATES in moved:
                days = 0
            dates = DateShift(days if moved else None, found.dates, found.birth)
            self._text = TextCleaner(found, dates, self.uid)
            self._passed.clear()
        return self._text

    @property
    def text(self) -> TextCleaner:
        """The cleaner for texts, with what the headers so far know."""
        if self._text is None:
            self.learn(Dataset())
        assert self._text is not None
        return self._text

    def uid(self, uid: str) -> str:
        """What stands for a UID; UIDs of the standard itself, and all under Retain UIDs, stay."""
        if not uid or is_standard_uid(uid) or Option.UIDS in self.profile.options:
            return uid
        return self.pseudonyms.uid(uid)

    def _clean_items(self, dataset: Dataset, text: TextCleaner, path: str) -> None:
        creators = _creators(dataset)
        used: set[int] = set()
        for tag in list(dataset.keys()):
            number = int(tag)
            if number >> 16 & 1:
                creator = creators.get((number >> 16, (number >> 8) & 0xFF), "")
                if (number & 0xFFFF) <= 0xFF:
                    continue
                rule = private_rule(self.profile, number, creator)
                if rule.action is not Action.REMOVE:
                    used.add((number >> 16 << 16) | (number >> 8 & 0xFF))
            elif number in _PIXELS:
                continue
            else:
                rule = decide(self.profile, number)
            self.apply(rule, dataset, tag, text, path)
        for tag in [tag for tag in list(dataset.keys()) if int(tag) >> 16 & 1 and (int(tag) & 0xFFFF) <= 0xFF]:
            if int(tag) not in used:
                del dataset[tag]

    def apply(self, rule: Rule, dataset: Dataset, tag: Any, text: TextCleaner, path: str = "") -> None:
        """Do to one element of a data set what a rule says."""
        name = f"{path}{_name(int(tag))}"
        action = rule.action
        if action is Action.REMOVE:
            self._tell(name, "removed", rule.why)
            del dataset[tag]
            return
        if int(tag) in _PATIENT:
            self._tell(name, "replaced by the pseudonym", "names the patient")
            dataset[tag] = DataElement(tag, dictionary_VR(tag), self.patient)
            return
        if action is Action.KEEP and self.passes(dataset.get_item(tag), text):
            self._tell(name, "kept", rule.why)
            return
        try:
            element = dataset[tag]
            done = self._change(action, element, text, name)
        except damaged():
            done = None  # a value that does not decode cannot be vouched for
        if done is None:
            kept = _emptied(int(tag))
            self._tell(name, "emptied" if kept else "removed", "its value is damaged or repeats an identifier")
            if kept is None:
                del dataset[tag]
            else:
                dataset[tag] = kept
        else:
            self._tell(name, done, rule.why)

    def passes(self, raw: Any, text: TextCleaner) -> bool:
        """Whether an element that is kept needs no decoding: a number or time, or a term that names nobody."""
        vr = raw.VR or (dictionary_VR(raw.tag) if dictionary_has_tag(raw.tag) else "UN")
        if vr in _NUMBERS:
            return not _hides(int(raw.tag), raw.value, text)
        if vr not in ("CS", "DS", "IS", "TM") or not isinstance(raw.value, bytes):
            return False
        key = (vr, raw.value)
        if key not in self._passed:
            values = raw.value.decode("latin-1").split("\\")
            self._passed[key] = all(has_form(vr, value) and not _repeats(vr, value, text) for value in values)
        return self._passed[key]

    def _change(self, action: Action, element: DataElement, text: TextCleaner, name: str) -> str | None:
        """Change an element in place; what was done, or None where it must go."""
        vr = element.VR
        if vr == "SQ":
            return self._change_sequence(action, element, text, name)
        if vr == "UI":
            if action is Action.KEEP and not _all_formed(element):
                return None
            element.value = _each(element.value, self.uid) if action is not Action.KEEP else element.value
            return "UID replaced" if action is not Action.KEEP else "kept"
        if action is Action.UID:
            return None
        if action is Action.EMPTY:
            element.value = b"" if vr in _BINARY else None
            return "emptied"
        if action is Action.DUMMY and vr not in ("DA", "DT"):
            element.value = _DUMMY.get(vr, b"\0\0")
            return "replaced by a dummy"
        if vr in ("DA", "DT"):
            if action is Action.KEEP:
                return "kept"
            element.value = _each(element.value, text.dates.value)
            return "date shifted" if text.dates.days else "emptied" if text.dates.days is None else "kept"
        if vr in _NUMBERS and action is Action.KEEP:
            return None  # `passes` did not let it through
        if vr == "TM":
            return "kept" if _all_formed(element) else None
        if vr in _BINARY:
            return None if _names_in_bytes(_as_bytes(element.value), vr, text) else "kept"
        return _clean_value(element, text)

    def _change_sequence(self, action: Action, element: DataElement, text: TextCleaner, name: str) -> str:
        if action is Action.EMPTY:
            element.value = Sequence()
            return "emptied"
        for item in element.value:
            self._clean_items(item, text, f"{name} > ")
        return "items cleaned"

    def _tell(self, name: str, what: str, why: str) -> None:
        if self.report is not None:
            self.report(name, what, why)


_CHECKED = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "SH", "ST", "TM", "UC", "UR", "UT"})


def decide(profile: Profile, tag: int) -> Rule:
    """The rule of a public attribute, by site, table, or kind of value where neither lists it."""
    rule = profile.rule_for(tag)
    return rule if rule is not None else _unlisted(tag)


@cache
def _unlisted(tag: int) -> Rule:
    if not tag & 0xFFFF or tag >> 16 == _DELIMITERS or not dictionary_has_tag(tag):
        return Rule(Action.REMOVE, "not in the data dictionary of the standard")
    vr = dictionary_VR(tag)
    if tag in _CLASS_UIDS:
        return Rule(Action.KEEP, "names a kind, not a thing")
    if vr == "UI":
        return Rule(Action.UID, "not listed; a UID")
    if vr == "PN":
        return Rule(Action.EMPTY, "not listed; a person's name")
    if vr in ("UR", "UN"):
        return Rule(Action.REMOVE, "not listed; may hold anything")
    if vr in _TEXT or vr in ("DA", "DT", "SQ"):
        return Rule(Action.CLEAN, "not listed; text, dates and items are cleaned")
    return Rule(Action.KEEP, "not listed; a number or a defined term")


def private_rule(profile: Profile, tag: int, creator: str) -> Rule:
    """The rule of a private attribute of this creator."""
    if profile.keeps_private(tag, creator):
        return Rule(Action.CLEAN, "a safe private attribute (PS3.15 E.3.10)")
    return Rule(Action.REMOVE, "private, and not known to be safe")


def _emptied(tag: int) -> DataElement | None:
    """An element without a value, which types 2 and 3 allow; None where it must go altogether."""
    if tag >> 16 & 1 or not dictionary_has_tag(tag):
        return None
    vr = dictionary_VR(tag)
    return DataElement(tag, vr, None) if vr in _TEXT or vr in _DUMMY else None


def _hides(tag: int, value: Any, text: TextCleaner) -> bool:
    """Whether something else stands in numbers: more of them than their attribute has, or an identifier."""
    several = dictionary_VM(tag) if dictionary_has_tag(tag) else "1-n"
    if not isinstance(value, bytes):
        count = len(value) if isinstance(value, (list, pydicom.multival.MultiValue)) else 1
        return several.isdigit() and count > int(several)
    if several.isdigit():
        return len(value) > 8 * int(several)
    return text.identity.in_bytes(value)


def _creators(dataset: Dataset) -> dict[tuple[int, int], str]:
    """The creator of each private block: (group, block) to its name."""
    found = {}
    for tag in list(dataset.keys()):
        number = int(tag)
        if number >> 16 & 1 and 0x10 <= (number & 0xFFFF) <= 0xFF:
            value = dataset[tag].value
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
            found[number >> 16, number & 0xFF] = text.strip(" \0")
    return found


def _clean_value(element: DataElement, text: TextCleaner) -> str | None:
    """Clean a value of text or of a defined form; None where it repeats an identifier that has no other form."""
    if element.VR == "PN":
        element.value = None
        return "emptied"
    if element.VR == "AS":
        ages = [pooled_age(str(value)) for value in _values(element)]
        element.value = ages[0] if ages else None
        return "kept, 90 and over pooled" if None not in ages else None
    if element.VR not in _CHECKED or element.is_empty:
        return "kept"
    if element.VR in _TEXT:
        longest = _LONGEST.get(element.VR)
        cleaned = _each(element.value, lambda value: text.clean(value)[:longest])
        changed = cleaned != _each(element.value, str)
        if changed:
            element.value = cleaned
        return "text cleaned" if changed else "text kept"
    if element.VR in ("DS", "IS") and not _all_formed(element):
        return None
    if any(_repeats(element.VR, str(value), text) for value in _values(element)):
        if element.VR in ("CS", "AE"):
            element.value = REPLACED if element.VR == "AE" else "REMOVED"
            return "emptied"
        return None
    return "kept"


def _repeats(vr: str, value: str, text: TextCleaner) -> bool:
    """Whether a defined term or number repeats an identifier of the patient; a number only as a whole."""
    value = value.strip(" \0")
    if vr in ("DS", "IS"):
        return len(value) >= _SHORTEST_NUMBER and value in text.identity.digits
    if vr == "CS" and not has_form(vr, value):
        return text.clean(value) != value  # text in the place of a term
    return len(value) >= 4 and bool(text.identity.spans(value))


def _values(element: DataElement) -> list[Any]:
    several = isinstance(element.value, (list, pydicom.multival.MultiValue))
    return list(element.value) if several else [element.value or ""]


def _all_formed(element: DataElement) -> bool:
    return all(has_form(element.VR, str(value)) for value in _values(element))


def _each(value: object, change: Callable[[str], str]) -> object:
    """`change` applied to a value or to each of several, as text."""
    if isinstance(value, (list, tuple, pydicom.multival.MultiValue)):
        return [change(str(part)) for part in value]
    return change("" if value is None else str(value))


def _names_in_bytes(data: bytes, vr: str, text: TextCleaner) -> bool:
    if vr == "UN" and len(data) < 1 << 16:
        letters = data.decode("latin-1").strip(" \0")
        if letters.isprintable() and text.clean(letters) != letters:
            return True
    return text.identity.in_bytes(data)


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes(value or b"")


@cache
def _name(tag: int) -> str:
    return dictionary_keyword(tag) if dictionary_has_tag(tag) else f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


def _time_modified(profile: Profile) -> str:
    if Option.FULL_DATES in profile.options:
        return "UNMODIFIED"
    return "MODIFIED" if Option.MODIFIED_DATES in profile.options else "REMOVED"


def _file_meta(dataset: pydicom.FileDataset) -> FileMetaDataset:
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "") or "")
    if not syntax:
        implicit, little = dataset.original_encoding
        guessed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        syntax = ImplicitVRLittleEndian if implicit else guessed
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    return meta


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
