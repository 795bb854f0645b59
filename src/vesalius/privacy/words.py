"""Words that may look like a patient's name and are none: terms of medicine and acquisition, and eponyms.

`words.toml` holds the lists. That they help is measured by `vesalius privacy-check`: its hard negatives
(eponyms, anatomy and techniques beside patients with such names) are lost without them.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_LIGATURES = str.maketrans({"ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa"})


@dataclass(frozen=True)
class Words:
    """The lists, folded.

    Args:
        terms: everyday terms of imaging; one that equals a name alone is kept unless more of the name stands
            beside it.
        eponyms: names that diseases and signs are called by.
        after, before: what follows or precedes an eponym where it means the disease.
        titles: what precedes a name, such as Dr or Frau.
        places: words of institutions' names that many share.
    """

    terms: frozenset[str]
    eponyms: frozenset[str]
    after: frozenset[str]
    before: frozenset[str]
    titles: tuple[str, ...]
    places: frozenset[str]


@cache
def words() -> Words:
    """The lists of `words.toml`."""
    data = tomllib.loads(files("vesalius.privacy").joinpath("words.toml").read_text(encoding="utf-8"))
    folded = {name: frozenset(fold(word) for word in text.split()) for name, text in data.items() if name != "titles"}
    return Words(titles=tuple(data["titles"].split()), **folded)


@cache
def vocabulary() -> frozenset[str]:
    """Every word of DICOM's own attribute names and of `terms` and `eponyms`: no misspelling of a name."""
    from pydicom._dicom_dict import DicomDictionary

    names = (entry[2] for entry in DicomDictionary.values())
    found = {fold(word) for name in names for word in re.findall(r"[A-Za-z]{4,}", name)}
    return frozenset(found) | words().terms | words().eponyms | words().after


def fold(word: str) -> str:
    """Small letters without marks: Müller and MULLER are the same."""
    plain = unicodedata.normalize("NFKD", word.casefold().translate(_LIGATURES))
    return "".join(character for character in plain if not unicodedata.combining(character))


def spellings(word: str) -> set[str]:
    """The folded forms that a name may be written in: Müller as muller and mueller."""
    return {fold(word), fold(unicodedata.normalize("NFC", word.casefold()).translate(_UMLAUTS))}
