"""Cleaning free text: only the span that identifies is replaced, the rest stays readable."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

REPLACED = "***"

_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"[\w.+-]+@[\w-]+\.[\w.-]+",  # e-mail
        r"(?:https?://|www\.)\S+",
        r"\b(?:19|20)\d{2}[-./]?(?:0[1-9]|1[0-2])[-./]?(?:0[1-9]|[12]\d|3[01])\b",  # 2020-01-31, 20200131
        r"\b(?:0?[1-9]|[12]\d|3[01])[-./](?:0?[1-9]|1[0-2])[-./](?:19|20)?\d{2}\b",  # 31.01.2020
        r"\b(?:0?[1-9]|1[0-2])[-./](?:0?[1-9]|[12]\d|3[01])[-./](?:19|20)\d{2}\b",  # 01/31/2020
        r"(?<![\w.])\+?\d[\d ()/-]{7,}\d(?![\w.])",  # telephone and record numbers
        r"\b(?:MRN|Pat(?:ient)?[-_ ]?(?:ID|Nr|No)|DOB|SSN)\b[:#. ]*\S+",
        r"\b(?:Mrs?|Ms|Dr|Prof|Herr|Frau|Mme|Sr|Sra)\.? [A-ZÄÖÜÉ][\w'-]+(?: [A-ZÄÖÜÉ][\w'-]+)?",
    )
)


@dataclass(frozen=True)
class Known:
    """What is known of one patient from the object's own header, as a pattern; None where nothing is."""

    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, values: Iterable[str]) -> Known:
        """From names and identifiers: each part of three characters or five digits counts by itself."""
        parts: set[str] = set()
        for value in values:
            parts.update(part for part in re.split(r"[\s^=,;/\\]+", value) if len(part) >= 3)
            parts.update(re.findall(r"\d{5,}", value))
            if len(value.strip()) >= 3:
                parts.add(value.strip())
        ordered = sorted(parts, key=len, reverse=True)
        if not ordered:
            return cls(None)
        return cls(re.compile("|".join(re.escape(part) for part in ordered), re.IGNORECASE))


def clean_text(text: str, known: Known) -> str:
    """The text with every span replaced that is known of the patient or has the form of an identifier."""
    if known.pattern is not None:
        text = known.pattern.sub(REPLACED, text)
    for pattern in _PATTERNS:
        text = pattern.sub(REPLACED, text)
    return text
