"""The copy of a cohort that goes into a share: what a recipient needs, and nothing that links further than that.

Left out are the keyed pseudonyms of file names, the quarantine, the audit trail, shares, models, reports and cache.
What headers tell of the patient leaves wherever `minimise` made it coarser, and stands with the covariates instead.
"""

from __future__ import annotations

import shutil
import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Covariate
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid, reorient
from vesalius.core.progress import Progress
from vesalius.imaging.duplicates import perceptual_hash
from vesalius.privacy.face_files import Cleaned, Seen
from vesalius.privacy.faces import Defaced
from vesalius.privacy.minimise import Minimised
from vesalius.store.cohort import readable
from vesalius.store.database import create, database_path
from vesalius.store.sealed import SUFFIX, seal_of

PREFIX = "dicom."
_NUMBERS = ("PatientAge", "PatientSize", "PatientWeight")
_WORDS = ("PatientSex", "EthnicGroup", "SmokingStatus", "PregnancyStatus", "PatientSexNeutered")
# Told of one patient in sentences of its own: never coarse, so always left out.
_ALWAYS_GONE = (
    "AdditionalPatientHistory", "Allergies", "MedicalAlerts", "PatientComments", "PatientState", "SpecialNeeds",
    "Occupation", "AdmittingDiagnosesDescription", "LastMenstrualDate", "ReasonForStudy",
)  # fmt: skip
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_TABLES = ("cases", "images", "instances", "labels", "findings", "assessed", "classes", "split", "duplicates")
_META = ("name", "ignore", "split_given", "split_how")

# (id of an image, what `face_files.Seen` is told): called for images that lost their face
SeenImage = Callable[[str, Array, Grid, Defaced], None]


@dataclass(frozen=True)
class Copied:
    """What was copied: counts, images without their face, and images that were left out because of one.

    Args:
        patients: pseudonyms.
        faces: in words, what was done about the face of how many images; empty where faces were kept.
    """

    cases: int
    patients: tuple[str, ...]
    images: int
    labels: int
    defaced: int
    left_out: int
    faces: Mapping[str, int]


def header_covariates(folder: Path) -> dict[str, dict[str, Covariate]]:
    """What DICOM headers tell of the patient of each case: numbers and words, called `dicom.PatientAge` and so on."""
    import pydicom

    found: dict[str, dict[str, Covariate]] = {}
    seal = seal_of(folder)
    with closing(sqlite3.connect(database_path(folder))) as connection:
        rows = connection.execute("SELECT case_id, path FROM images ORDER BY id").fetchall()
    for case, name in rows:
        place = folder / name
        if not place.is_dir():
            continue
        first = min(place.iterdir(), default=None)
        if first is None:
            continue
        with warnings.catch_warnings(), readable(first.with_name(first.name.removesuffix(SUFFIX)), seal) as file:
            warnings.simplefilter("ignore")
            head = pydicom.dcmread(file, specific_tags=[*_NUMBERS, *_WORDS], stop_before_pixels=True)
            for keyword in (*_NUMBERS, *_WORDS):
                value = _covariate(keyword, str(head.get(keyword, "") or "").strip())
                if value is not None:
                    found.setdefault(case, {}).setdefault(PREFIX + keyword, value)
    return found


def copy_cohort(
    folder: Path,
    into: Path,
    minimised: Minimised,
    progress: Progress,
    *,
    remove_faces: bool = True,
    seen: SeenImage | None = None,
) -> Copied:
    """Write the copy into a new folder.

    Args:
        folder: the cohort.
        into: does not exist yet.
        minimised: its covariates.
        progress: told how far the work is, and which images are left out.
        remove_faces: take the faces out of MR and CT of the head; an image where that is in doubt is left out.
        seen: told of images that lost their face.

    Raises:
        UnusableInput: an image does not decode.
    """
    with closing(sqlite3.connect(database_path(folder))) as source:
        source.row_factory = sqlite3.Row
        meta = dict(source.execute("SELECT key, value FROM meta").fetchall())
        create(into, meta["name"])
        images = source.execute(
            "SELECT images.*, patient FROM images JOIN cases ON cases.id = case_id ORDER BY images.id"
        ).fetchall()
        labels = [tuple(row) for row in source.execute("SELECT image_id, path FROM labels ORDER BY path")]
    places: dict[str, list[sqlite3.Row]] = {}
    for row in images:
        places.setdefault(row["path"], []).append(row)
    hashes: dict[str, bytes] = {}
    told: dict[str, str] = {}
    doubtful: set[str] = set()
    for name, rows in progress.track(places.items(), "Copying images", len(places)):
        _copy_image(folder / name, into / name, _gone(rows[0]["patient"], minimised))
        if not remove_faces:
            continue
        show = partial(seen, rows[0]["id"]) if seen is not None else None
        try:
            cleaned, changed = _without_faces(folder / name, into / name, show)
        except UnusableInput as error:
            _remove(into / name)
            doubtful |= {row["id"] for row in rows}
            for row in rows:
                progress.set_aside(row["id"], error.what, "Share it with --faces keep, or deface it first.")
            continue
        told |= {row["id"]: cleaned.told[row["volume"]] for row in rows}
        hashes |= {row["id"]: changed[row["volume"]] for row in rows if row["volume"] in changed}
    kept = [row for row in images if row["id"] not in doubtful]
    labels = [(image, path) for image, path in labels if image not in doubtful]
    for _, path in labels:
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, into / path)
    if (folder / "roles.toml").exists():
        shutil.copyfile(folder / "roles.toml", into / "roles.toml")
    _copy_database(folder, into, minimised, hashes, sorted(doubtful))
    cases, patients = {row["case_id"] for row in kept}, tuple(sorted({row["patient"] for row in kept}))
    counts = dict(Counter(told.values()).most_common())
    return Copied(len(cases), patients, len(kept), len(labels), len(hashes), len(doubtful), counts)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _gone(patient: str, minimised: Minimised) -> frozenset[str]:
    """Keywords that leave the headers of a patient."""
    keep = set() if patient in minimised.suppressed else {*minimised.untouched, *minimised.plan.plain}
    keep |= set(minimised.plan.sensitive)
    return frozenset(_ALWAYS_GONE) | {key for key in (*_NUMBERS, *_WORDS) if PREFIX + key not in keep}


def _copy_image(source: Path, target: Path, gone: frozenset[str]) -> None:
    import pydicom

    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir()
    for file in sorted(source.iterdir()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(file)
            if _take_out(dataset, gone):
                dataset.save_as(target / file.name, enforce_file_format=True)
            else:
                shutil.copyfile(file, target / file.name)


def _take_out(dataset: Any, gone: frozenset[str]) -> bool:
    """Remove attributes at any depth (Patient's Sex, of type 2, is emptied); whether there were any."""
    found = False
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        keyword = _keyword(int(tag))
        if keyword in gone:
            if keyword == "PatientSex":
                found = found or bool(raw.value)
                dataset[tag].value = ""
            else:
                del dataset[tag]
                found = True
        elif raw.VR == "SQ" or (raw.VR is None and dataset[tag].VR == "SQ"):
            for item in dataset[tag].value:
                found = _take_out(item, gone) or found
    return found


def _keyword(tag: int) -> str:
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag)


def _covariate(keyword: str, text: str) -> Covariate | None:
    if not text:
        return None
    if keyword == "PatientAge":
        return float(text[:-1]) * _YEARS[text[-1]] if text[:-1].isdigit() and text[-1] in _YEARS else None
    if keyword in _NUMBERS:
        try:
            return float(text)
        except ValueError:
            return None
    return text


def _copy_database(
    folder: Path, into: Path, minimised: Minimised, hashes: Mapping[str, bytes], left_out: Sequence[str]
) -> None:
    with closing(sqlite3.connect(database_path(into))) as connection:
        connection.execute("ATTACH ? AS old", (str(database_path(folder)),))
        with connection:
            there = {row[0] for row in connection.execute("SELECT name FROM old.sqlite_master WHERE type = 'table'")}
            for name in (name for name in _TABLES if name in there):
                connection.execute(f"INSERT INTO main.{name} SELECT * FROM old.{name}")  # noqa: S608
            for key in _META:
                connection.execute(
                    "INSERT OR REPLACE INTO main.meta SELECT key, value FROM old.meta WHERE key = ?", (key,)
                )
            rows = [(case, name, value) for case, values in minimised.values.items() for name, value in values.items()]
            shown = [row for row in rows if not (row[1].startswith(PREFIX) and row[1] in minimised.untouched)]
            connection.executemany("INSERT INTO main.covariates VALUES (?, ?, ?)", shown)
            connection.executemany(
                "UPDATE main.images SET hash = ? WHERE id = ?", [(hash_, name) for name, hash_ in hashes.items()]
            )
            for name in left_out:
                for table in ("instances", "labels", "findings", "assessed"):
                    connection.execute(f"DELETE FROM main.{table} WHERE image_id = ?", (name,))  # noqa: S608
                connection.execute("DELETE FROM main.images WHERE id = ?", (name,))
            without = "(SELECT id FROM main.cases WHERE id NOT IN (SELECT case_id FROM main.images))"
            connection.execute(f"DELETE FROM main.covariates WHERE case_id IN {without}")  # noqa: S608
            connection.execute(f"DELETE FROM main.cases WHERE id IN {without}")  # noqa: S608
            connection.execute("DELETE FROM main.split WHERE patient NOT IN (SELECT patient FROM main.cases)")
        connection.execute("DETACH old")
        connection.execute("VACUUM")


def _without_faces(source: Path, place: Path, seen: Seen | None) -> tuple[Cleaned, dict[int, bytes]]:
    """Take the faces out of a copied image; what was done, and the new perceptual hash of each changed volume.

    Raises:
        UnusableInput: a face cannot be removed with certainty, or not without changing more.
    """
    from vesalius.formats.find import find_scans
    from vesalius.formats.scan import Scan
    from vesalius.privacy.face_files import remove_from_image

    cleaned = remove_from_image(place, seen)
    hashes: dict[int, bytes] = {}
    if not cleaned.removed:
        return cleaned, hashes
    before, after = ([scan for scan in find_scans(one) if isinstance(scan, Scan)] for one in (source, place))
    for number, face in cleaned.removed.items():
        old, new = before[number].pixels.read(), after[number].pixels.read()
        if not (new.shape == old.shape and np.array_equal(new[:, ~face], old[:, ~face], equal_nan=True)):
            raise UnusableInput(
                "The face of an image cannot be taken out without changing more.", remedy="Share with --faces keep."
            )
        hashes[number] = perceptual_hash(reorient(new, *after[number].grid.canonical()[1:]))
    return cleaned, hashes
