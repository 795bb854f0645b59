"""SNOMED CT codes for the names that users give to structures, from the dictionary that pydicom ships."""

from __future__ import annotations

import re
from functools import cache

from vesalius.core.finding import Code

_SPELLINGS = {"grey": "gray", "tumour": "neoplasm", "tumor": "neoplasm", "oedema": "edema"}
_SHORT = {"csf": "cerebrospinal fluid", "gm": "gray matter", "wm": "white matter"}


@cache
def code_for(name: str) -> Code | None:
    """The SNOMED CT concept whose keyword in DICOM's context groups is this name, or None.

    `code_for("grey matter")` is 389081007, Gray Matter.
    """
    from pydicom.sr.codedict import codes

    words = re.split(r"[\s_-]+", _SHORT.get(name.strip().lower(), name.strip().lower()))
    keyword = "".join(_SPELLINGS.get(word, word).capitalize() for word in words)
    if not keyword.isidentifier():
        return None
    try:
        concept = getattr(codes.SCT, keyword)
    except (AttributeError, RuntimeError):  # unknown, or the keyword stands for several concepts
        return None
    return Code(concept.value, "SCT", concept.meaning)
