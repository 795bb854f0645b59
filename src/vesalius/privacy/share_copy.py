"""The copy of a cohort that goes into a share: what a recipient needs, and nothing that links further than that.

Left out are the keyed pseudonyms of file names, the quarantine, the audit trail, shares, models, reports and cache.
What headers tell of the patient leaves wherever `minimise` made it coarser, and stands with the covariates instead.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Covariate
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid, reorient
from vesalius.core.progress import Progress
from vesalius.imaging.duplicates import perceptual_hash
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

# (array (i, j, k), grid, modality) -> voxels of the face as (i, j, k) of bool, or None where the image shows no head
FindFace = Callable[[Array, Grid, str], Array | None]


@dataclass(frozen=True)
class Copied:
    """What was copied: counts, images without their face, and images that were left out because of one.

    Args:
        patients: pseudonyms.
    """

    cases: int
    patients: tuple[str, ...]
    images: int
    labels: int
    defaced: int
    left_out: int


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
    folder: Path, into: Path, minimised: Minimised, progress: Progress, *, find_face: FindFace | None
) -> Copied:
    """Write the copy into a new folder.

    Args:
        folder: the cohort.
        into: does not exist yet.
        minimised: its covariates.
        progress: told how far the work is.
        find_face: finds the face in an image of a head; None to keep faces.

    Raises:
        UnusableInput: an image does not decode, or its face cannot be taken out of its pixel data.
    """
    with closing(sqlite3.connect(database_path(folder))) as source:
        source.row_factory = sqlite3.Row
        meta = dict(source.execute("SELECT key, value FROM meta").fetchall())
        create(into, meta["name"])
        images = source.execute(
            "SELECT images.*, patient FROM images JOIN cases ON cases.id = case_id ORDER BY images.id"
        ).fetchall()
        labels = [tuple(row) for row in source.execute("SELECT image_id, path FROM labels ORDER BY path")]
    hashes: dict[str, bytes] = {}
    doubtful: dict[str, str] = {}
    for row in progress.track(images, "Copying images", len(images)):
        if not (into / row["path"]).exists():
            _copy_image(folder / row["path"], into / row["path"], _gone(row["patient"], minimised))
        try:
            changed = _without_face(into, row, find_face) if find_face is not None else None
        except UnusableInput as error:
            doubtful[row["path"]] = error.what
            progress.set_aside(row["id"], error.what, "It is left out; share it with --faces keep, or deface it first.")
        else:
            hashes |= {row["id"]: changed} if changed is not None else {}
    for name in doubtful:
        _remove(into / name)
    kept = [row for row in images if row["path"] not in doubtful]
    names = {row["id"] for row in kept}
    labels = [(name, path) for name, path in labels if name in names]
    for _, path in labels:
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, into / path)
    if (folder / "roles.toml").exists():
        shutil.copyfile(folder / "roles.toml", into / "roles.toml")
    _copy_database(folder, into, minimised, hashes, [row["id"] for row in images if row["path"] in doubtful])
    cases, patients = {row["case_id"] for row in kept}, tuple(sorted({row["patient"] for row in kept}))
    return Copied(len(cases), patients, len(kept), len(labels), len(hashes), len(images) - len(kept))


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


def _without_face(into: Path, row: sqlite3.Row, find_face: FindFace) -> bytes | None:
    """Take the face out of a copied image; its new perceptual hash, or None where it shows none."""
    from vesalius.formats.find import find_scans
    from vesalius.formats.scan import Scan

    grid = Grid.from_json(json.loads(row["grid"]))
    if row["channels"] != 1 or min(grid.shape) < 2:
        return None
    place = into / row["path"]
    scans = [scan for scan in find_scans(place) if isinstance(scan, Scan)]
    scan = scans[row["volume"]]
    array = scan.pixels.read()
    face = find_face(array[0], grid, row["modality"])
    if face is None or not face.any():
        return None
    if place.is_dir():
        _hide_in_dicom(scan, face)
    else:
        _hide_in_nifti(place, array, face, grid)
    scan = [found for found in find_scans(place) if isinstance(found, Scan)][row["volume"]]
    after = scan.pixels.read()
    if not np.array_equal(after[:, ~face], array[:, ~face], equal_nan=True):
        raise UnusableInput(
            "The face of an image cannot be taken out without changing more.", remedy="Share with --faces keep."
        )
    return perceptual_hash(reorient(after, *grid.canonical()[1:]))


def _hide_in_nifti(path: Path, array: Array, face: Array, grid: Grid) -> None:
    import nibabel

    from vesalius.formats.nifti import write_nifti

    kind = nibabel.load(path).get_data_dtype()  # type: ignore[attr-defined]
    changed = array[0].copy()
    changed[face] = changed[~face].min()
    path.unlink()
    write_nifti(path, changed.astype(kind), grid)


def _hide_in_dicom(scan: Any, face: Array) -> None:
    """Set the voxels of the face to the least value of their frame, in the stored pixel data of each file."""
    import pydicom

    by_file: dict[str, list[tuple[int, int]]] = {}
    for k, source in enumerate(scan.pixels.sources):
        if face[:, :, k].any():
            by_file.setdefault(str(source.path), []).append((source.index, k))
    for path, frames in by_file.items():
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress(generate_instance_uid=False)
        if dataset.BitsAllocated not in (8, 16, 32) or int(dataset.get("SamplesPerPixel") or 1) != 1:
            raise UnusableInput("The face of an image of a rare kind.", remedy="Share with --faces keep.")
        sign = "i" if dataset.PixelRepresentation else "u"
        order = "<" if dataset.original_encoding[1] is not False else ">"
        raw = bytearray(dataset.PixelData)
        kind = np.dtype(f"{order}{sign}{dataset.BitsAllocated // 8}")
        shape = (max(int(dataset.get("NumberOfFrames") or 1), 1), int(dataset.Rows), int(dataset.Columns))
        pixels = np.frombuffer(raw, kind, count=int(np.prod(shape))).reshape(shape)
        for index, k in frames:
            pixels[index][face[:, :, k].T] = pixels[index].min()
        dataset.PixelData = bytes(raw)
        dataset.RecognizableVisualFeatures = "NO"
        dataset.save_as(path, enforce_file_format=True)
