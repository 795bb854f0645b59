"""BIDS: sub-<label>/ses-<label>/<kind>/sub-..._<suffix>.nii.gz, masks as derivatives with the suffix dseg.

Source: Brain Imaging Data Structure 1.10, sections on MRI data and on segmentations among derivatives.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from vesalius.core.cohort import Cohort
from vesalius.core.progress import Progress
from vesalius.formats.layout import Entry, Layout, write_volume

_SUFFIX_OF_ROLE = {"T1": "T1w", "T2": "T2w", "FLAIR": "FLAIR", "PD": "PDw", "T1c": "T1w", "CT": "ct", "PET": "pet"}
_ROLE_OF_SUFFIX = {"T1w": "T1", "T2w": "T2", "FLAIR": "FLAIR", "PDw": "PD", "ct": "CT", "pet": "PET"}
_PIPELINE = "vesalius"


def read(folder: Path) -> Layout | None:
    """The anatomical images of a BIDS folder and the dseg masks of its derivatives, or None."""
    if not (folder / "dataset_description.json").is_file():
        return None
    masks = {_entities(path): path for path in sorted(folder.glob("derivatives/**/*_dseg.nii.gz"))}
    entries = []
    for image in sorted(folder.glob("sub-*/**/*.nii.gz")):
        suffix = image.name.removesuffix(".nii.gz").rpartition("_")[2]
        if suffix not in _ROLE_OF_SUFFIX:
            continue
        subject, session, acquisition = _entities(image)
        role = "T1c" if suffix == "T1w" and "_ce-" in image.name else _ROLE_OF_SUFFIX[suffix]
        name = image.relative_to(folder).as_posix().removesuffix(".nii.gz")
        mask = masks.pop((subject, session, acquisition), None)
        entries.append(Entry(image, name, role, subject, f"{subject} {session}", mask))
    return Layout("BIDS", tuple(entries), _classes(folder))


def write(cohort: Cohort, folder: Path, progress: Progress) -> None:
    """Write the cohort as BIDS; what has no BIDS suffix is written with its role as acquisition of a T1w name."""
    for case in progress.track(cohort.cases, "Exporting", len(cohort)):
        stem = f"sub-{case.patient}_ses-{case.id}"
        place = Path(f"sub-{case.patient}") / f"ses-{case.id}" / "anat"
        for image in case.images:
            name = _name(stem, image.role, image.modality)
            write_volume(folder / place / f"{name}.nii.gz", image.read(), image.grid)
            if case.label_image is not None and case.label_image.id == image.id:
                mask = folder / "derivatives" / _PIPELINE / place / f"{name.rpartition('_')[0]}_dseg.nii.gz"
                write_volume(mask, case.label_image.read(), image.grid)
    description = {"Name": cohort.name, "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (folder / "dataset_description.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    derived = folder / "derivatives" / _PIPELINE
    derived.mkdir(parents=True, exist_ok=True)
    derived_description = {**description, "DatasetType": "derivative", "GeneratedBy": [{"Name": "Vesalius"}]}
    (derived / "dataset_description.json").write_text(json.dumps(derived_description, indent=2), encoding="utf-8")
    with (folder / "participants.tsv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([["participant_id"], *([f"sub-{p}"] for p in cohort.patients)])
    with (derived / "desc-classes_dseg.tsv").open("w", encoding="utf-8", newline="") as file:
        rows = [["index", "name"], *([str(entry.value), entry.name] for entry in cohort.labels)]
        csv.writer(file, delimiter="\t").writerows(rows)


def _name(stem: str, role: str, modality: str) -> str:
    acquisition = "" if role in _SUFFIX_OF_ROLE else f"_acq-{re.sub(r'[^A-Za-z0-9]', '', role) or 'image'}"
    contrast = "_ce-contrast" if role == "T1c" else ""
    return f"{stem}{acquisition}{contrast}_{_SUFFIX_OF_ROLE.get(role, 'ct' if modality == 'CT' else 'T1w')}"


def _entities(path: Path) -> tuple[str, str, str]:
    """Subject, session and the acquisition that tells images of one session apart."""
    found = dict(part.split("-", 1) for part in path.name.split("_") if "-" in part)
    return found.get("sub", ""), found.get("ses", ""), found.get("acq", "") + found.get("ce", "")


def _classes(folder: Path) -> dict[int, str]:
    for table in sorted(folder.glob("derivatives/**/*dseg.tsv")):
        with table.open(encoding="utf-8", newline="") as file:
            return {
                int(row["index"]): row["name"] for row in csv.DictReader(file, delimiter="\t") if row["index"] != "0"
            }
    return {}
