"""De-identifying a DICOM header in place (PS3.15 Annex E), sequences at any depth included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ImplicitVRLittleEndian

from vesalius.privacy.profile import METHODS, Action, rule_for
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.privacy.text import Known, clean_text

_TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_DUMMY = {
    "AE": "NONE", "AS": "000Y", "CS": "NONE", "DS": "0", "IS": "0", "DA": "19000101", "DT": "19000101000000", "TM":
    "000000", "LO": "NONE", "LT": "NONE", "SH": "NONE", "ST": "NONE", "UT": "NONE", "UC": "NONE",
}  # fmt: skip
_DELIMITERS = 0xFFFE
_STANDARD_UIDS = "1.2.840.10008."
_IDENTIFYING = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName",
    "PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "AccessionNumber", "StudyID",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "PhysiciansOfRecord",
    "RequestingPhysician", "NameOfPhysiciansReadingStudy", "InstitutionName", "InstitutionAddress", "MilitaryRank",
    "PatientBirthDate",
)  # fmt: skip
_OLDEST_YEARS = 89  # ages above are pooled as 90


@dataclass(frozen=True)
class HeaderCleaner:
    """De-identifies the headers of one patient.

    Args:
        pseudonyms: the keyed pseudonyms.
        patient: pseudonym that takes the place of name and identifier.
        identifier: the identified patient key, from which the date shift is derived.
    """

    pseudonyms: Pseudonyms
    patient: str
    identifier: str

    def clean(self, dataset: pydicom.FileDataset) -> None:
        """Rewrite the dataset and its file meta information in place; pixel data is not touched."""
        values = [str(dataset.get(keyword, "") or "") for keyword in _IDENTIFYING]
        known = Known.of([*values, self.identifier])
        self._clean_items(dataset, known)
        dataset.PatientName = self.patient
        dataset.PatientID = self.patient
        dataset.PatientIdentityRemoved = "YES"
        dataset.LongitudinalTemporalInformationModified = "MODIFIED"
        dataset.DeidentificationMethod = "Vesalius, DICOM PS3.15 Annex E"
        dataset.DeidentificationMethodCodeSequence = Sequence([_code(*method) for method in METHODS])
        dataset.preamble = b"\0" * 128
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = UID(str(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)))
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta = meta

    def _clean_items(self, dataset: Dataset, known: Known) -> None:
        for tag in list(dataset.keys()):
            if tag.group == _DELIMITERS:  # what strays after the pixel data
                del dataset[tag]
                continue
            element = dataset[tag]
            rule = rule_for(int(tag))
            if rule is None:
                self._clean_unlisted(element, known)
            elif rule.action is Action.REMOVE or (rule.action is Action.UID and element.VR not in ("UI", "SQ")):
                del dataset[tag]
            else:
                self._apply(rule.action, element, known)

    def _clean_unlisted(self, element: DataElement, known: Known) -> None:
        if element.VR == "SQ":
            self._apply(Action.KEEP, element, known)
        elif element.VR in ("DA", "DT"):
            self._apply(Action.CLEAN, element, known)
        elif element.VR == "UI":
            self._apply(Action.UID, element, known)
        elif element.VR == "PN":
            element.value = ""
        elif element.VR in _TEXT:
            self._apply(Action.CLEAN, element, known)
        elif element.VR == "UN":
            element.value = b""

    def _apply(self, action: Action, element: DataElement, known: Known) -> None:
        if element.VR == "SQ":
            if action in (Action.EMPTY, Action.DUMMY):
                element.value = Sequence()
            else:
                for item in element.value:
                    self._clean_items(item, known)
        elif element.VR == "UI":
            element.value = _each(element.value, self._uid)
        elif action is Action.EMPTY or element.VR == "PN" or element.is_empty:
            element.value = b"" if isinstance(element.value, bytes) else ""
        elif action is Action.DUMMY:
            element.value = _DUMMY.get(element.VR, b"" if isinstance(element.value, bytes) else "")
        elif element.VR in ("DA", "DT"):
            element.value = _each(element.value, self._date)
        elif element.VR == "AS":
            element.value = _each(element.value, _pool_age)
        elif element.VR in _TEXT:
            element.value = _each(element.value, lambda text: clean_text(text, known))

    def _uid(self, uid: str) -> str:
        return uid if not uid or uid.startswith(_STANDARD_UIDS) else self.pseudonyms.uid(uid)

    def _date(self, text: str) -> str:
        """DA or DT with its day moved and its time of day kept; what is not a date becomes empty."""
        digits = re.match(r"(\d{4})(\d{2})(\d{2})(.*)", text.replace(".", "", 2) if text[4:5] == "." else text)
        if digits is None:
            return ""
        year, month, day, rest = digits.groups()
        try:
            moved = date(int(year), int(month), int(day)) - timedelta(days=self.pseudonyms.shift_days(self.identifier))
        except (ValueError, OverflowError):
            return ""
        return f"{moved:%Y%m%d}".zfill(8) + rest


def _each(value: object, change: object) -> object:
    """`change` applied to a value or to each of several, as text."""
    assert callable(change)
    if isinstance(value, (list, tuple, pydicom.multival.MultiValue)):
        return [change(str(part)) for part in value]
    return change(str(value))


def _pool_age(age: str) -> str:
    if re.fullmatch(r"\d{3}Y", age) and int(age[:3]) > _OLDEST_YEARS:
        return "090Y"
    return age


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
