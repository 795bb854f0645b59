"""The data card of a share: what is in it, what was done to it, and what may be done with it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from vesalius.privacy.minimise import Minimised
from vesalius.privacy.share_copy import Copied
from vesalius.store.database import database_path
from vesalius.store.files import write_json, write_text

STATUS = "pseudonymised (GDPR Art. 4(5)), not anonymous"


def write_card(
    folder: Path, copied: Copied, minimised: Minimised, *, faces: str, accepted: Sequence[str], licence: str
) -> dict[str, Any]:
    """Write `data_card.json` and `data_card.md` into the copy of a cohort; the figures.

    Args:
        folder: the copy.
        copied: what was copied.
        minimised: what became of the covariates.
        faces: "remove" or "keep".
        accepted: kinds of findings that the sender took for harmless.
        licence: of the data; "" where none was given.
    """
    figures = {
        "status": STATUS,
        "licence": licence or "not stated: ask the sender",
        "cases": copied.cases,
        "patients": len(copied.patients),
        "images": copied.images,
        "labels": copied.labels,
        "left_out": copied.left_out,
        **_contents(folder),
        "de_identification": _methods(folder),
        "faces": {"asked": faces, "images_defaced": copied.defaced, "images": dict(copied.faces)},
        "checked": "by another reader than the de-identifier: headers, text, file names, text in a sample of pixels",
        "accepted_findings": list(accepted),
        "minimised": minimised.as_json(),
    }
    write_json(folder / "data_card.json", figures)
    write_text(folder / "data_card.md", _page(figures))
    return figures


def _contents(folder: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(database_path(folder))) as connection:

        def counted(query: str) -> dict[str, int]:
            return dict(Counter(str(row[0]) for row in connection.execute(query)).most_common())

        return {
            "modalities": counted("SELECT modality FROM images"),
            "roles": counted("SELECT role FROM images"),
            "classes": [row[0] for row in connection.execute("SELECT name FROM classes ORDER BY value")],
            "covariates": [row[0] for row in connection.execute("SELECT DISTINCT name FROM covariates ORDER BY 1")],
        }


def _methods(folder: Path) -> list[str]:
    """What the DICOM headers say was done (PS3.16 CID 7050)."""
    import pydicom

    first = next((path for path in sorted((folder / "images").rglob("*.dcm"))), None)
    if first is None:
        return ["plain files: pixels and geometry, nothing else"]
    head = pydicom.dcmread(first, stop_before_pixels=True)
    items = head.get("DeidentificationMethodCodeSequence", [])
    return [f"{item.get('CodeValue', '')} {item.get('CodeMeaning', '')}" for item in items]


def _page(figures: dict[str, Any]) -> str:
    told = figures["minimised"]
    lines = [
        "# Data card", "",
        f"These data are **{figures['status']}**. Licence: {figures['licence']}.", "",
        f"- {figures['images']} images of {figures['cases']} cases of {figures['patients']} patients,"
        f" {figures['labels']} with masks",
        f"- modalities: {_list(figures['modalities'])}",
        f"- roles: {_list(figures['roles'])}",
        f"- classes: {', '.join(figures['classes']) or 'none'}",
        f"- covariates: {', '.join(figures['covariates']) or 'none'}",
        f"- faces: {figures['faces']['asked']}; {figures['faces']['images_defaced']} images defaced,"
        f" {figures['left_out']} left out because a face could not be removed with certainty",
        *(f"  - {count} images: {what}" for what, count in figures["faces"]["images"].items()),
        f"- checked {figures['checked']}",
        f"- findings that the sender took for harmless: {', '.join(figures['accepted_findings']) or 'none'}", "",
        "## De-identification", "",
        *(f"- {method}" for method in figures["de_identification"]), "",
        "Dates were moved into the past by a number of days of each patient's own. Pseudonyms are keyed: who sent",
        "this can name a pseudonym's patient, and whoever has another share of the same cohort can join the two.", "",
        "## Covariates", "",
        f"k-anonymity: {told['k']} (asked for {told['k_asked']}; {told['k_before']} before), counted in patients,",
        f"in {told['classes']} classes. l-diversity: {_list(told['l']) or 'no sensitive covariate was named'}.", "",
        "| quasi-identifier | what was done |", "|---|---|",
        *(f"| {name} | {title} |" for name, title in told["quasi_identifiers"].items()), "",
        f"Left out of all of these: {told['patients_suppressed']} patients."
        f" Loss (Iyengar 2002, 0 to 1): {told['loss']}; search: {told['search']}.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _list(counts: dict[str, Any]) -> str:
    return json.dumps(counts)[1:-1].replace('"', "")
