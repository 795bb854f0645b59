"""Cleaning free text: only the span that identifies is replaced, dates are moved, the rest stays readable."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from vesalius.privacy.dates import DateShift
from vesalius.privacy.identity import Identity
from vesalius.privacy.words import fold, words

REPLACED = "***"
_MOST_REMEMBERED = 20_000
_MARKS, _MOST_MARKS = 0xE000, 6000
_UPPER = "A-ZÀ-ÖØ-ÞŁŚŻŹĆČŠŽ"
_NAME = rf"[{_UPPER}][^\W\d_]+(?:['’-][^\W\d_]+)*"

# What has the form of an identifier whoever the patient is. Groups called `keep` stay.
_RULES = tuple(
    re.compile(rule, flags)
    for rule, flags in (
        (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", 0),
        (r"(?:https?|ftp)://\S+|\bwww\.\S+", re.IGNORECASE),
        # labelled names and numbers
        (r"(?P<keep>\b(?:MRN|PID|Pat(?:ient)?[-_. ]?(?:ID|Nr|No|Name)?|DOB|geb\.?|née? le|nato il|SSN|NHS|PESEL|BSN|NIR"
         r"|Fallnr|Fallnummer|Versichertennr|Acc(?:ession)?(?: ?(?:No|Nr|number))?|Order(?: ?No)?)\s*[:#=]\s*)"
         r"(?:[\w./-]*\d[\w./-]*)", re.IGNORECASE),
        (rf"(?P<keep>\b(?i:patient(?:in)?(?: name)?|name|nom|nombre|nome|naam|paciente|paziente|patiënt|pacjent"
         rf"|operator|technologist|radiologist|physician|mtra|referred by|reported by|seen by|dictated by|signed by"
         rf"|reviewed by|befundet von|überwiesen von|vidé par|informado por)\s*[:=]?\s+|(?i:name|patient)[:=])"
         rf"(?:{_NAME})(?:(?:,\s?|\s|\^)(?!\w+\s?[:=]){_NAME}){{0,2}}", 0),
        # telephone, fax, record and insurance numbers
        (r"(?:(?<=\s)|^|(?<=[(:,;]))\+\d{1,3}[\d ()/.-]{6,}\d", 0),
        (r"(?P<keep>\b(?:tel|phone|fon|fax|mobil|mobile|cell|handy|tél|telefono|teléfono)\w*\.?\s*[:.]?\s*)"
         r"\(?\d[\d ()/.-]{4,}\d", re.IGNORECASE),
        (r"(?<![\w.])\(?\d{3}\)?[- .]\d{3}[- .]\d{4}(?![\w.])|(?<![\w.])0\d{2,5}[-/ ]\d{4,}(?![\w.])", 0),
        (r"(?<![\w.-])\d{3}-\d{2}-\d{4}(?![\w-])|(?<![\w.])\d{3} \d{3} \d{4}(?![\w.])", 0),
        (r"(?<![\w.-])(?:[A-Z]{1,4}-?)?\d{7,}(?![\w.])", 0),
        # addresses
        (r"\b\d{1,5}[a-z]?,?\s+(?:[A-Z][\w'’.-]+\s+){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard"
         r"|Blvd|Court|Square|Way)\b\.?", 0),
        (r"\b[A-ZÄÖÜ][\wäöüß-]*(?:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse|ufer|straat|laan|gracht|gatan|vägen)"
         r"\s*\d+\s?[a-z]?\b", 0),
        (r"\b\d{1,4},?\s+(?:bis\s+)?(?:rue|avenue|boulevard|place|chemin|allée|impasse)(?:\s+[^\W\d][\w'’-]*){1,4}",
         re.IGNORECASE),
        (r"\b(?:calle|avenida|avda|plaza|paseo|via|viale|piazza|corso|rua|ulica|ul\.)\s+(?:[\w'’.-]+\s+){1,4}\d{1,4}\b",
         re.IGNORECASE),
        (r"\b(?:D|A|CH|F|NL|B|I|E|DK|S|PL)-\d{4,5}(?:\s+[A-ZÄÖÜ][\wäöüß-]+)?", 0),
        (r"\b\d{5}(?:-\d{4})?\s+[A-ZÄÖÜ][a-zäöüß]{2,}(?:\s[A-Z][a-z]+)?\b|\b[A-Z][a-z]+,?\s+[A-Z]{2}\s+\d{5}\b", 0),
        (r"\b[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}\b|\b\d{4}\s[A-Z]{2}\b(?=\s+[A-Z][a-z])", 0),
        (rf"\b(?:{_NAME}\s+){{1,3}}(?:Hospital|Clinic|Klinik|Klinikum|Krankenhaus|Spital|Medical Cent(?:er|re)"
         rf"|Ziekenhuis)\b|\b(?i:h[oô]pital|clinique|ospedale|clínica|clinica|hospital) (?:(?:de|di|du|la|le|San|Santa"
         rf"|St\.?|universitario)\s+)*{_NAME}(?:[ -]{_NAME})?", 0),
    )
)  # fmt: skip
_UID = re.compile(r"(?<![\w.])[0-2](?:\.(?:0|[1-9]\d*)){5,}(?![\w.]|\.\d)")
_OLD = re.compile(
    r"(?<!\d)0?(?:9\d|1[0-2]\d)(?P<unit>[ -]?(?:years?|yrs?|y/?o|jahre?|ans|años|anni|jaar|anos|lat|år)\b|[ -]?[Yy]\b)",
    re.IGNORECASE,
)


@dataclass
class TextCleaner:
    """Cleans the texts of one patient; texts repeat in every slice, so what was cleaned is remembered.

    Args:
        identity: what is known of the patient.
        dates: how the patient's dates move.
        uid: the replacement of a UID.
    """

    identity: Identity
    dates: DateShift
    uid: Callable[[str], str]
    _done: dict[str, str] = field(default_factory=dict)

    def clean(self, text: str) -> str:
        """The text with every span replaced that is known of the patient or has the form of an identifier."""
        if len(text) < 2:
            return text
        if text not in self._done:
            if len(self._done) > _MOST_REMEMBERED:
                self._done.clear()
            self._done[text] = self._cleaned(text)
        return self._done[text]

    def _cleaned(self, text: str) -> str:
        marks: list[str] = []

        def mark(replaced: str) -> str:
            """One private-use character in place of what is done, so that no later rule finds it again."""
            marks.append(replaced)
            return chr(_MARKS + len(marks) - 1) if len(marks) <= _MOST_MARKS else REPLACED

        text = re.sub(f"[{chr(_MARKS)}-{chr(_MARKS + _MOST_MARKS)}]", "", text)
        text = _UID.sub(lambda match: mark(self.uid(match[0])), text)
        text = _hide(text, self.identity.spans(text))
        text = self.dates.in_text(text, REPLACED, mark)
        text = _hide(text, _titled(text))
        for rule in _RULES:
            text = rule.sub(lambda match: (match.groupdict().get("keep") or "") + REPLACED, text)
        text = _OLD.sub(lambda match: f"90+{match['unit']}", text)
        return "".join(marks[ord(c) - _MARKS] if 0 <= ord(c) - _MARKS < len(marks) else c for c in text)


def _hide(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with these spans replaced; neighbours that only a separator parts become one."""
    joined: list[list[int]] = []
    for start, end in sorted(spans):
        if joined and (start <= joined[-1][1] or re.fullmatch(r"[\s^,=_.]{0,2}", text[joined[-1][1] : start])):
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    for start, end in reversed(joined):
        text = text[:start] + REPLACED + text[end:]
    return text


def _titled(text: str) -> list[tuple[int, int]]:
    """Names that follow a title: `Dr. Vogel`, `Mme Lefèvre`, `Frau Dr. Klein`; never a term or an eponym's disease."""
    spans = []
    for match in _TITLED.finditer(text):
        name = match["name"]
        first = fold(re.split(r"\W", name)[0])
        abbreviation = re.split(r"\W", match[0])[0].upper() in _ALSO_WORDS
        if not abbreviation or first not in words().terms:
            spans.append(match.span("name"))
    return spans


_ALSO_WORDS = ("MR", "M", "PR", "FR", "PD", "PAN", "SR", "MS", "HR")  # titles that mean something else too
_TITLE = "|".join(sorted((re.escape(title) for title in words().titles), key=len, reverse=True))
_TITLED = re.compile(
    rf"(?<![^\W\d_])(?:(?:{_TITLE})\.?\s+)+(?:(?:med|h\. ?c|habil|rer)\.\s*)*"
    rf"(?P<name>(?:(?:van|von|de|der|den|la|di|da|zu|[{_UPPER}]\.)\s+)*{_NAME}"
    rf"(?:\s+(?:(?:van|von|de|der|la|di|da)\s+)?{_NAME})?)"
)
