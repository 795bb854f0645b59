"""Rules by which a text is suspicious, whoever the patient is; and what the owner of the key can recognise in it.

This is the reader before a share. It shares no rule and no word list with the de-identifier that it judges: it
only knows forms (e-mail, telephone, labelled numbers, titled names) and, from key and vault, what was there before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache

_UPPER = "A-ZÀ-ÖØ-ÞŁŚŻŹĆČŠŽ"
_LOWER = "a-zà-öø-ÿłśżźćčšžąęńß"
_CAPITALISED = rf"[{_UPPER}][{_LOWER}]{{2,}}"
_LABELS = (
    r"MRN|PID|SSN|NHS|PESEL|BSN|DOB|D\.O\.B\.?|pat(?:ient)?[ ._-]?(?:id|nr|no|number)|geb(?:oren|\.)?|born|née?(?: le)?"
    r"|nato il|fecha de nacimiento|versichertennr|fallnr|fallnummer|acc(?:ession)?[ ._-]?(?:no|nr|number)?"
)
FORMS: dict[str, re.Pattern[str]] = {
    "an e-mail address": re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]*\w"),
    "a telephone number": re.compile(
        r"(?<![\w.])\+\d{1,3}[ /(-][\d ()/-]{6,}\d"
        r"|\b(?i:tel|phone|telephone|telefon|fax|mobile?|cell|handy|tél|teléfono)\b\.?:?\s*\(?\+?\d[\d ()/.-]{5,}\d"
        r"|(?<![\w.-])\(\d{3}\) ?\d{3}-\d{4}(?!\w)|(?<![\w.-])\d{3}[-.]\d{3}[-.]\d{4}(?![\w.])"
    ),
    "a number of a person": re.compile(
        rf"(?i:\b(?:{_LABELS})\s?[:=#]\s?)[A-Za-z]{{0,4}}[-/.]?\d[\w./-]{{2,}}|(?<![\w.-])\d{{3}}-\d{{2}}-\d{{4}}(?![\w-])"
    ),
    "a name with a title": re.compile(
        rf"\b(?:Dr|Prof|Herr|Frau|Mme|Mlle|Monsieur|Madame|Mrs|Ms|Mr|Señora?|Sra?|Sig|Signora?|Mevrouw|Dhr|Pani)\.?\s+"
        rf"(?:(?:Dr|med)\.\s*)*(?:(?:van|von|de|der|di|da|la)\s+)*{_CAPITALISED}"
    ),
    "a labelled name": re.compile(
        rf"\b(?i:patient(?:en)?[ _]?name|name of patient|pt name|nom du patient|nombre|paziente|patiënt|pacjent)\s*[:=]"
        rf"\s*[{_UPPER}][\w'-]{{2,}}"
    ),
    "a name": re.compile(rf"(?<![\w^])[{_UPPER}][^\W\d_]{{2,}}\^[{_UPPER}][^\W\d_]+"),
    "an address": re.compile(
        rf"\b\d{{1,4}}[a-z]?,? {_CAPITALISED} (?:Street|St|Avenue|Ave|Road|Rd|Lane|Drive|Boulevard)\b"
        rf"|\b{_CAPITALISED}(?:straße|strasse|str\.|gasse|weg|straat|laan|gatan) ?\d{{1,4}}\b"
        rf"|\b(?:rue|calle|via|ulica) (?:\w+ ){{0,3}}{_CAPITALISED} \d{{1,4}}\b"
    ),
}
WEB = re.compile(r"\b(?:https?://|ftp://|www\.)[^\s\"'<>]+", re.IGNORECASE)
LONG_NUMBER = re.compile(r"(?<![\w.,+-])[A-Z]{0,4}-?\d{7,}(?![\w.,])")
_DATES = (
    re.compile(r"(?<![\d.])(?P<y>(?:19|20)\d\d)(?P<s>[-/.]?)(?P<m>\d\d)(?P=s)(?P<d>\d\d)(?!\d)"),
    re.compile(r"(?<![\d.])(?P<d>\d{1,2})(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<y>(?:19|20)\d\d)(?!\d)"),
)
_UID = re.compile(r"(?<![\w.])[012](?:\.(?:0|[1-9]\d*)){4,}(?![\w.])")
_WORD = re.compile(r"[^\s^=,;:\"'<>()\[\]{}|\\]{3,}")
_TOLERANCE = timedelta(days=400)  # an appointment may lie after the study
_LONGEST = 1 << 22


@dataclass(frozen=True)
class Known:
    """What the owner of a cohort knows of what was there before. Its representation shows none of it.

    Args:
        words: identified keys of patients, from the vault.
        patient, source, uid: the keyed pseudonym of a text; None without the key.
        patients, sources, instances: the pseudonyms that are in the cohort.
    """

    words: frozenset[str] = field(default=frozenset(), repr=False)
    patient: Callable[[str], str] | None = field(default=None, repr=False)
    source: Callable[[str], str] | None = field(default=None, repr=False)
    uid: Callable[[str], str] | None = field(default=None, repr=False)
    patients: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    instances: frozenset[str] = frozenset()

    def __hash__(self) -> int:
        return id(self)

    def in_text(self, text: str) -> set[str]:
        """Kinds of what is recognised in a text."""
        found = set()
        low = text.lower()
        if any(_stands(word.lower(), low) for word in self.words):
            found.add("the original identifier of a patient")
        if self.patient is None or self.source is None or self.uid is None:
            return found
        whole = text.strip(" \0")
        for word in {whole, *_WORD.findall(text[:_LONGEST])}:
            found |= self._recognised(word)
        for match in _UID.finditer(text[:_LONGEST]):
            if not match[0].startswith(("1.2.840.10008.", "2.25.")) and self.uid(match[0]) in self.instances:
                found.add("the original UID of an image")
        return found

    @lru_cache(maxsize=200_000)  # noqa: B019 - one of these lives as long as one check
    def _recognised(self, word: str) -> frozenset[str]:
        assert self.patient is not None and self.source is not None
        found = set()
        if len(word) >= 3 and self.patient(word) in self.patients:
            found.add("the original identifier of a patient")
        if _telling(word) and self.source(word) in self.sources:
            found.add("the original name of a file")
        return frozenset(found)


def suspicious(text: str, *, numbers: bool = True, web: bool = True, latest: date | None = date.min) -> set[str]:
    """Kinds of what has the form of an identifier.

    Args:
        text: to look at.
        numbers: long numbers count.
        web: web addresses count.
        latest: a date that lies well after this day was not moved into the past; None where no date may stand;
            `date.min` to leave dates out.
    """
    text = text[:_LONGEST]
    found = {kind for kind, form in FORMS.items() if form.search(text)}
    if web and WEB.search(text):
        found.add("a web address")
    bare = _UID.sub(" ", text)
    days = [] if latest == date.min else list(days_in(bare))
    if days and (latest is None or max(days) > latest + _TOLERANCE):
        found.add("a date" if latest is None else "a date that was not moved")
    if numbers:
        for match in LONG_NUMBER.finditer(bare):
            if not (len(match[0]) in (8, 14) and next(days_in(match[0][:8]), None)):
                found.add("a long number")
    return found


def days_in(text: str) -> Iterator[date]:
    """Every date that is written out in a text, where day and month may be either way round."""
    for form in _DATES:
        for match in form.finditer(text):
            year, month, day = int(match["y"]), int(match["m"]), int(match["d"])
            for m, d in ((month, day), (day, month)):
                try:
                    yield date(year, m, d)
                    break
                except ValueError:
                    continue


def _telling(word: str) -> bool:
    """Whether the name of a file could only be a name: a word that is also said of images tells nothing."""
    return len(word) >= 6 and any(c.isdigit() for c in word) and any(c.isalpha() for c in word)


def _stands(word: str, text: str) -> bool:
    """Whether a word stands in a text, not as a part of a longer word or number."""
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        before, after = text[start - 1 : start], text[end : end + 1]
        if not (before.isalnum() and word[0].isalnum()) and not (after.isalnum() and word[-1].isalnum()):
            return True
        start = text.find(word, start + 1)
    return False
