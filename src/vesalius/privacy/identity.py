"""What is known of one patient from headers: names, numbers, addresses and dates, and where text repeats them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, cached_property, lru_cache
from typing import Any

from vesalius.privacy.words import fold, spellings, vocabulary, words

_NUMBERS = (
    "PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "ServiceEpisodeID",
    "MedicalRecordLocator", "PatientInsurancePlanCodeSequence", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest", "PatientTelephoneNumbers", "ReferringPhysicianTelephoneNumbers",
    "PerformedProcedureStepID", "DeviceSerialNumber", "StationName", "IssuerOfPatientID", "RequestedProcedureID",
    "ClinicalTrialSubjectID", "ScheduledProcedureStepID", "MilitaryRank", "PersonTelephoneNumbers",
)  # fmt: skip
_PLACES = (
    "PatientAddress", "InstitutionName", "InstitutionAddress", "ReferringPhysicianAddress", "PersonAddress",
    "InstitutionalDepartmentName", "CountryOfResidence", "RegionOfResidence", "RequestingService",
)  # fmt: skip
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate", "AdmittingDate")
_TELLING = frozenset((*_NUMBERS, *_PLACES, *_DATES, "PatientBirthDate"))
_LARGE = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_WORD = re.compile(r"[^\W\d_]+")
_SEPARATORS = r"[-\s./_]?"
_INITIAL_GAP = re.compile(r"[\s.,'’-]{0,3}$")
_NAME_GAP = re.compile(r"[\s.,^_'’-]{1,3}")


@dataclass(frozen=True)
class Identity:
    """What names this patient.

    Args:
        names: folded words of the names of the patient and of everybody else in the header.
        numbers: identifiers, telephone numbers, station and serial number, as written.
        places: addresses and institutions, as written.
        birth: birth dates.
        dates: other dates of the patient.
    """

    names: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    birth: frozenset[date] = frozenset()
    dates: frozenset[date] = frozenset()

    @classmethod
    def of(cls, dataset: Any, key: str = "") -> Identity:
        """From a data set, sequences included but for functional groups; `key` is the patient's identified key."""
        found: dict[str, set[Any]] = {"names": set(), "numbers": {key}, "places": set(), "birth": set(), "dates": set()}
        for element in _elements(dataset):
            values = [str(value) for value in _values(element.value)]
            if element.VR == "PN":
                found["names"].update(_names(values))
            elif element.keyword in _NUMBERS:
                found["numbers"].update(values)
            elif element.keyword in _PLACES:
                found["places"].update(values)
            elif element.keyword == "PatientBirthDate":
                found["birth"].update(_dates(values))
            elif element.keyword in _DATES:
                found["dates"].update(_dates(values))
        if re.search(r"[\^|]", key):
            found["names"].update(_names(key.split("|")[:1]))
        return cls(**{name: frozenset(value for value in values if value) for name, values in found.items()})

    @staticmethod
    def words_of(name: str) -> set[str]:
        """The folded words of a name as `names` holds them, titles and particles left out."""
        return _names([name])

    def joined(self, other: Identity) -> Identity:
        """What either knows; the same object where the other knows nothing new."""
        union = Identity(
            self.names | other.names, self.numbers | other.numbers, self.places | other.places,
            self.birth | other.birth, self.dates | other.dates,
        )  # fmt: skip
        return self if union == self else union

    def spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of every place in the text that repeats something of this."""
        found = [match.span() for pattern in self._patterns for match in pattern.finditer(text)]
        return found + self._name_spans(text)

    def in_bytes(self, data: bytes) -> bool:
        """Whether raw bytes hold a number or a whole name, in Latin, UTF-8 or UTF-16 letters of any case."""
        if not data or self._bytes is None:
            return False
        return self._bytes.search(data) is not None

    @cached_property
    def digits(self) -> frozenset[str]:
        """The identifiers, and the long runs of digits in them."""
        runs = (run for number in self.numbers for run in re.findall(r"\d{5,}", number))
        return frozenset({number.strip() for number in self.numbers} | set(runs))

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        found = [*map(_number_pattern, self.numbers), *map(_place_pattern, self.places)]
        return [pattern for pattern in found if pattern is not None]

    @cached_property
    def _bytes(self) -> re.Pattern[bytes] | None:
        wanted = {name for name in self.names if len(name) >= 5 and name not in words().terms}
        wanted |= {number.strip() for number in self.numbers if len(number.strip()) >= 5}
        forms = {re.escape(word.encode(code)) for word in wanted for code in ("utf-8", "utf-16-le", "utf-16-be")}
        return re.compile(b"|".join(sorted(forms)), re.IGNORECASE) if forms else None

    def _name_spans(self, text: str) -> list[tuple[int, int]]:
        if not self.names:
            return []
        found = [(match.span(), match[0]) for match in _WORD.finditer(text)]
        sure = [self._matches(word) for _, word in found]
        known = [fold(word) in self.names for _, word in found]
        for number in range(len(found) - 1):
            if known[number] and known[number + 1] and _adjacent(found, number, number + 1, text, _NAME_GAP):
                sure[number] = sure[number + 1] = True  # two short names together, such as LI WU
        for number, ((_, end), word) in enumerate(found):
            if sure[number] and fold(word) in words().eponyms and _means_disease(found, number, text, end):
                sure[number] = False
        spans = []
        for number, (span, word) in enumerate(found):
            if not sure[number]:
                continue
            beside = [n for n in (number - 1, number + 1) if 0 <= n < len(found) and _adjacent(found, number, n, text)]
            if fold(word) in words().terms and not any(sure[n] for n in beside):
                continue
            spans.append(span)
            initials = [found[n][0] for n in beside if len(found[n][1]) == 1 and self._initial(found[n][1])]
            spans += [(start, end + (text[end : end + 1] == ".")) for start, end in initials]
        return spans

    def _initial(self, letter: str) -> bool:
        return letter.isupper() and any(name.startswith(fold(letter)) for name in self.names)

    def _matches(self, word: str) -> bool:
        """Whether a word is one of the names, a misspelling, or grown together with others."""
        folded = fold(word)
        if folded in self.names:
            return len(folded) > 2 or not word.isascii() or word.istitle()
        if len(folded) < 5:
            return not word.isascii() and any(name in folded for name in self.names if not name.isascii())
        if folded in vocabulary():
            return False
        for name in self.names:
            if len(name) >= 5 and name in folded:
                return True
            if len(name) >= 5 and abs(len(name) - len(folded)) <= 2 and name not in words().eponyms:
                allowed = 1 if min(len(name), len(folded)) < 9 else 2
                if within_edits(folded, name, allowed):
                    return True
        return False


def within_edits(first: str, second: str, allowed: int) -> bool:
    """Whether so many insertions, deletions, replacements and swaps of neighbours turn one into the other."""
    if abs(len(first) - len(second)) > allowed:
        return False
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(second, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (one != other))
            if i > 1 and j > 1 and one == second[j - 2] and first[i - 2] == other:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > allowed:
            return False
    return row[-1] <= allowed


def _elements(dataset: Any) -> Iterator[Any]:
    for tag in list(dataset.keys()):
        if not tells(int(tag), dataset.get_item(tag).VR):
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _elements(item)
        else:
            yield element


@cache
def tells(tag: int, vr: str | None) -> bool:
    """Whether an element may name the patient: a name, a number, a place, a date, or a sequence of such.

    Args:
        tag: its tag.
        vr: its value representation as it stands in the file, or None.
    """
    from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR

    known = dictionary_has_tag(tag)
    keyword = dictionary_keyword(tag) if known else ""
    kind = vr if vr not in (None, "UN") else dictionary_VR(tag) if known else ""
    return (kind in ("SQ", "PN") or keyword in _TELLING) and keyword not in _LARGE


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") or hasattr(value, "family_name"):
        return [value]
    return list(value)


def _names(values: Iterable[str]) -> set[str]:
    return {
        form
        for value in values
        for word in [*_WORD.findall(value), *(part.replace("'", "") for part in re.split(r"[\^=\s,]+", value))]
        for form in spellings(word)
        if (len(form) >= 2 or not form.isascii()) and form.isalpha() and form not in _NO_NAMES
    }


_NO_NAMES = frozenset({"dr", "mr", "mrs", "ms", "md", "phd", "jr", "sr", "prof", "von", "van", "de", "la", "anonymous",
                       "anonymized", "anon", "unknown", "none", "test", "patient", "name"})  # fmt: skip


def _dates(values: Iterable[str]) -> set[date]:
    found = set()
    for value in values:
        try:
            found.add(datetime.strptime(value.strip()[:10].replace(".", "")[:8], "%Y%m%d").date())
        except ValueError:
            continue  # a malformed date is known of nobody
    return found


@lru_cache(maxsize=4096)  # stations, institutions and doctors' telephones are the same for many patients
def _number_pattern(number: str) -> re.Pattern[str] | None:
    forms = _number_forms(number.strip())
    return re.compile("|".join(forms), re.IGNORECASE) if forms else None


@lru_cache(maxsize=4096)
def _place_pattern(place: str) -> re.Pattern[str] | None:
    forms = _place_forms(place.strip())
    return re.compile("|".join(forms), re.IGNORECASE) if forms else None


def _number_forms(number: str) -> list[str]:
    """Patterns for an identifier: with or without separators where it is long, as a whole word where short."""
    bare = re.sub(r"[\W_]+", "", number)
    if len(bare) < 4 or (len(bare) < 5 and not any(character.isdigit() for character in bare)):
        return []
    if fold(bare) in vocabulary():
        return []
    if len(bare) < 6:
        return [rf"(?<![^\W_]){re.escape(number)}(?![^\W_])"]
    loose = _SEPARATORS.join(re.escape(character) for character in bare)
    forms = [rf"(?<!\d){loose}(?!\d)" if bare[0].isdigit() and bare[-1].isdigit() else loose]
    return forms + [rf"(?<!\d){digits}(?!\d)" for digits in re.findall(r"\d{5,}", number) if digits != bare]


def _place_forms(place: str) -> list[str]:
    """Patterns for an address or institution: as a whole, and its telling words and numbers."""
    if len(place) < 4:
        return []
    whole = r"\W+".join(re.escape(part) for part in re.findall(r"\w+", place))
    if not whole:
        return []
    parts = [
        word
        for word in re.findall(r"[^\W_]+", place)
        if (len(word) >= 5 or (word.isdigit() and len(word) >= 4))
        and fold(word) not in words().places
        and fold(word) not in vocabulary()
    ]
    return [whole, *(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])" for part in parts)]


Found = list[tuple[tuple[int, int], str]]


def _adjacent(found: Found, one: int, other: int, text: str, gap: re.Pattern[str] = _INITIAL_GAP) -> bool:
    low, high = sorted((one, other))
    return gap.fullmatch(text[found[low][0][1] : found[high][0][0]]) is not None


def _means_disease(found: Found, number: int, text: str, end: int) -> bool:
    """Whether an eponym at this place means the disease: `Wilson disease`, `Morbus Parkinson`, `Crohn's`."""
    following = [fold(word) for _, word in found[number + 1 : number + 4]]
    if following[:1] == ["s"]:
        following = following[1:]
    if following and (following[0] in words().after or (following[0] in words().eponyms and len(following) > 1
                      and following[1] in words().after)):  # fmt: skip
        return True
    preceding = [fold(word) for _, word in found[max(number - 2, 0) : number]]
    if preceding[-1:] == ["m"]:
        return text[: found[number][0][0]].rstrip().endswith("M.")
    linked = preceding[-1:] and preceding[-1] in ("de", "di", "van", "von", "da")
    return bool(preceding) and (preceding[0] if linked else preceding[-1]) in words().before
