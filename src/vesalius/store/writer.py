"""Writing into a cohort. Only `privacy/door.py` may import this: what comes here is de-identified."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vesalius.core.case import Covariate
from vesalius.core.finding import Box, Finding, Point
from vesalius.core.grid import Array, Grid
from vesalius.formats.nifti import write_nifti
from vesalius.store.database import transaction
from vesalius.store.files import write_beside
from vesalius.store.private import drop_private, make_private, private_folder
from vesalius.store.sealed import seal_of, sealed_path


@dataclass(frozen=True)
class NewImage:
    """A de-identified image on its way into the store; every name in it is a pseudonym.

    Args:
        sources: (pseudonym of a name, rank): 0 whole name, 1 without suffix, 2 last part without suffix.
        instances: pseudonymous SOP Instance UIDs.
        suffix: ".nii.gz" or ".png" for a file, "" for the folder of a DICOM series.
    """

    id: str
    case: str
    patient: str
    role: str
    modality: str
    channels: int
    grid: Grid
    hash: bytes
    attributes: Mapping[str, str | float]
    sources: Sequence[tuple[str, int]]
    instances: Sequence[str]
    suffix: str


def has_image(folder: Path, image_id: str) -> bool:
    """Whether the cohort holds this image already."""
    with transaction(folder) as connection:
        return connection.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)).fetchone() is not None


def beside(folder: Path, image_id: str, case: str, suffix: str) -> Path:
    """Where the files of an image are made before they are moved to their place; nothing is there yet.

    In a cohort whose files are encrypted, a private folder that is not the cohort's.
    """
    if (seal := seal_of(folder)) is not None:
        seal.lock()
        return make_private() / f"{image_id}{suffix}"
    path = folder / "images" / case / f".new-{image_id}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(path)
    return path


def drop(path: Path) -> None:
    """Remove what was made beside and is not wanted."""
    _remove(path)
    drop_private(path)


def put_image(folder: Path, image: NewImage, made: Path, volume: int) -> None:
    """Move an image's files from beside to their place, then enter the image into the database.

    A kill between the two leaves files that no row names; the next run writes them again.

    Args:
        made: the path from `beside`.
        volume: which of the volumes found there is this image.
    """
    place = folder / "images" / image.case / (image.id + image.suffix)
    _move(folder, made, place)
    with transaction(folder) as connection:
        connection.execute("INSERT OR IGNORE INTO cases VALUES (?, ?)", (image.case, image.patient))
        connection.execute(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                image.id, image.case, image.role, image.modality, image.channels, json.dumps(image.grid.as_json()),
                place.relative_to(folder).as_posix(), volume, image.hash, json.dumps(dict(image.attributes)),
            ),
        )  # fmt: skip
        rows = [(key, image.id, rank) for key, rank in image.sources]
        connection.executemany("INSERT OR IGNORE INTO sources VALUES (?, ?, ?)", rows)
        connection.executemany(
            "INSERT OR IGNORE INTO instances VALUES (?, ?)", [(uid, image.id) for uid in image.instances]
        )


def has_object(folder: Path, object_id: str) -> bool:
    """Whether the cohort holds this object already."""
    with transaction(folder) as connection:
        return connection.execute("SELECT 1 FROM objects WHERE id = ?", (object_id,)).fetchone() is not None


def put_object(folder: Path, object_id: str, case: str, patient: str, kind: str, made: Path) -> None:
    """Move a DICOM object that is no image from beside to its place, then enter it."""
    place = folder / "images" / case / f"{object_id}.dcm"
    _move(folder, made, place)
    with transaction(folder) as connection:
        connection.execute("INSERT OR IGNORE INTO cases VALUES (?, ?)", (case, patient))
        row = (object_id, case, place.relative_to(folder).as_posix(), kind, patient)
        connection.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", row)


def put_hash(folder: Path, image_id: str, digest: bytes) -> None:
    """Enter the perceptual hash of an image that came in without."""
    with transaction(folder) as connection:
        connection.execute("UPDATE images SET hash = ? WHERE id = ?", (digest, image_id))


def put_label(folder: Path, case: str, image_id: str, array: Array, grid: Grid) -> None:
    """Write a label map on its image's grid and enter it, replacing one that was there."""
    place = folder / "labels" / case / f"{image_id}.nii.gz"
    _put_map(folder, place, array, grid)
    values, counts = np.unique(array, return_counts=True)
    voxels = {str(int(value)): int(count) for value, count in zip(values, counts, strict=True)}
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    with transaction(folder) as connection:
        connection.execute(
            "INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?)",
            (image_id, place.relative_to(folder).as_posix(), digest, json.dumps(voxels)),
        )


def put_places(folder: Path, image_id: str, findings: Sequence[Finding]) -> None:
    """Enter the points and boxes of an image in place of those that were there; none says that there is none."""
    rows = []
    for number, finding in enumerate(findings):
        place = finding.place
        if isinstance(place, Point):
            kind, size = "point", json.dumps(place.radius)
        elif isinstance(place, Box):
            kind, size = "box", json.dumps(place.size)
        else:
            raise ValueError("a place in the store is a point or a box")
        rows.append(
            (image_id, number, finding.name, kind, json.dumps(place.centre), size, json.dumps(dict(finding.attributes)))
        )
    with transaction(folder) as connection:
        connection.execute("DELETE FROM findings WHERE image_id = ?", (image_id,))
        connection.execute("INSERT OR IGNORE INTO assessed VALUES (?)", (image_id,))
        connection.executemany("INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def put_classes(folder: Path, names: Mapping[int, str], ignore: int | None) -> None:
    """Enter what the values of the label maps mean."""
    with transaction(folder) as connection:
        connection.executemany("INSERT OR REPLACE INTO classes VALUES (?, ?)", list(names.items()))
        if ignore is not None:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('ignore', ?)", (str(ignore),))


def put_covariates(folder: Path, case: str, values: Mapping[str, Covariate]) -> None:
    """Enter covariates of a case."""
    with transaction(folder) as connection:
        rows = [(case, name, value) for name, value in values.items()]
        connection.executemany("INSERT OR REPLACE INTO covariates VALUES (?, ?, ?)", rows)


def put_split(
    folder: Path,
    parts: Mapping[str, str],
    folds: Mapping[str, int],
    *,
    given: bool,
    how: str,
    duplicates: Iterable[tuple[str, str]],
) -> None:
    """Enter the split in one transaction."""
    with transaction(folder) as connection:
        connection.execute("DELETE FROM split")
        connection.execute("DELETE FROM duplicates")
        rows = [(patient, part, folds.get(patient)) for patient, part in parts.items()]
        connection.executemany("INSERT INTO split VALUES (?, ?, ?)", rows)
        connection.executemany("INSERT INTO duplicates VALUES (?, ?)", list(duplicates))
        meta = [("split_given", str(int(given))), ("split_how", how)]
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta)


def put_quarantine(folder: Path, key: str, reason: str, remedy: str) -> None:
    """Remember that an input was set aside: its pseudonym, the cause and the remedy, no pixels, no names."""
    with transaction(folder) as connection:
        connection.execute("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)", (key, reason, remedy))


def lift_quarantine(folder: Path, key: str) -> None:
    """Forget that an input was set aside, because it is in now."""
    with transaction(folder) as connection:
        connection.execute("DELETE FROM quarantine WHERE id = ?", (key,))


def find_images(folder: Path, keys: Sequence[str]) -> list[sqlite3.Row]:
    """Images whose source has the first of these pseudonyms that any image has."""
    with transaction(folder) as connection:
        for key in keys:
            rows = connection.execute(
                "SELECT DISTINCT images.* FROM sources JOIN images ON images.id = sources.image_id WHERE key = ?",
                (key,),
            ).fetchall()
            if rows:
                return rows
    return []


def find_images_of_instances(folder: Path, uids: Sequence[str]) -> list[sqlite3.Row]:
    """Images that hold any of these pseudonymous SOP Instance UIDs."""
    found: dict[str, sqlite3.Row] = {}
    with transaction(folder) as connection:
        for uid in uids:
            for row in connection.execute(
                "SELECT images.* FROM instances JOIN images ON images.id = instances.image_id WHERE uid = ?",
                (uid,),
            ):
                found[row["id"]] = row
    return list(found.values())


def _move(folder: Path, made: Path, place: Path) -> None:
    """Put what was made where it belongs, encrypted where the cohort is."""
    seal = seal_of(folder)
    if seal is None:
        _remove(place)
        made.rename(place)
        return
    _remove(place)
    _remove(sealed_path(place))
    seal.close_tree(made, place)
    drop(made)


def _put_map(folder: Path, place: Path, array: Array, grid: Grid) -> None:
    seal = seal_of(folder)
    if seal is None:
        write_beside(place, lambda path: write_nifti(path, array, grid))
        return
    with private_folder(array.nbytes) as private:
        write_nifti(private / place.name, array, grid)
        seal.close_tree(private / place.name, place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
