"""Single attributes of a DICOM file by keyword, for targets that stand in headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vesalius.core.errors import UsageError
from vesalius.formats.dicom_values import damaged, text

# What a covariate can be: defined terms, short words, numbers and ages. Names, UIDs, dates and long texts are not.
_USABLE = frozenset({"CS", "LO", "SH", "AS", "DS", "IS", "FL", "FD", "US", "SS", "UL", "SL"})
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}  # PS3.5 table 6.2-1, AS


def check_keywords(keywords: Sequence[str]) -> None:
    """Refuse what is no attribute, or none that could be a covariate.

    Raises:
        UsageError: the first such keyword, with those that are written much the same.
    """
    from difflib import get_close_matches

    from pydicom._dicom_dict import DicomDictionary
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    for keyword in keywords:
        if tag_for_keyword(keyword) is None:
            near = get_close_matches(keyword, [entry[4] for entry in DicomDictionary.values()], 3)
            remedy = f"Did you mean {' or '.join(near)}?" if near else "Write it as PS3.6 does: ViewPosition."
            raise UsageError(f"{keyword!r} is no DICOM attribute.", remedy=remedy)
        if dictionary_VR(keyword) not in _USABLE:
            remedy = "Give dates and texts by --table, where they are moved and cleaned."
            raise UsageError(f"{keyword} holds no word, number or age.", remedy=remedy)


def attributes_in(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """The attributes that a file, or the first file of a folder, has and fills; ages in years.

    Args:
        path: a DICOM file or a folder of a series.
        keywords: as PS3.6 writes them, checked by `check_keywords`.

    Returns:
        Values as text, the first of several; empty where the file is no DICOM or damaged.
    """
    from pydicom import dcmread

    from vesalius.formats.dicom_header import lenient

    file = min((part for part in path.rglob("*") if part.is_file()), default=path) if path.is_dir() else path
    with lenient():
        try:
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(keywords))
        except damaged():
            return {}
        return {keyword: filled for keyword in keywords if (filled := _filled(dataset, keyword))}


def _filled(dataset: Any, keyword: str) -> str:
    from pydicom.datadict import dictionary_VR

    found = text(dataset, keyword).split("\\")[0].strip()
    if dictionary_VR(keyword) == "AS" and found[:-1].isdigit() and found[-1] in _YEARS:
        return f"{int(found[:-1]) * _YEARS[found[-1]]:.4g}"
    return found
