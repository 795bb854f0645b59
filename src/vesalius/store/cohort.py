"""Reading a cohort folder into the core's nouns. Nothing here decodes a pixel before it is asked to."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesalius.core.case import Case, Covariate
from vesalius.core.cohort import Cohort, Label, Split
from vesalius.core.errors import StoreError
from vesalius.core.finding import Box, Finding, Mask, Point
from vesalius.core.grid import Array, Grid
from vesalius.core.image import Image, Kind
from vesalius.formats.vocabulary import code_for
from vesalius.store.database import transaction
from vesalius.store.sealed import Seal, seal_in

# What of the database is images and truth, for the cohort's digest; at least two columns each, for the order.
_CONTENT = (
    ("images", "id, case_id"),
    ("labels", "image_id, digest"),
    ("classes", "value, name"),
    ("findings", "image_id, number, name, kind, centre, size, attributes"),
    ("assessed", "image_id, 1"),
)


@dataclass(frozen=True)
class StoredImage:
    """Pixels of an image in a cohort folder: a file, or the folder of a DICOM series."""

    path: Path
    volume: int
    seal: Seal | None = None

    def read(self) -> Array:
        """(channels, i, j, k), real-world values.

        Raises:
            StoreError: the stored file is gone or damaged, or encrypted with another key.
        """
        from vesalius.formats.find import find_scans
        from vesalius.formats.scan import Scan

        with readable(self.path, self.seal) as path:
            scans = [scan for scan in find_scans(path) if isinstance(scan, Scan)]
            if self.volume < len(scans):
                return scans[self.volume].pixels.read()
        raise StoreError(
            "A stored image is gone or damaged.", remedy="Delete it and ingest its source again.", file=self.path
        )


@dataclass(frozen=True)
class StoredLabel:
    """A label map of a cohort folder."""

    path: Path
    seal: Seal | None = None

    def read(self) -> Array:
        """(i, j, k), integers.

        Raises:
            StoreError: the stored file is damaged, or encrypted with another key.
        """
        from vesalius.formats.labels import read_label

        with readable(self.path, self.seal) as path:
            return read_label(path)[0]


def readable(path: Path, seal: Seal | None) -> AbstractContextManager[Path]:
    """A stored file or folder as it can be read: itself, or a plain copy of what is encrypted that is gone afterwards.

    Args:
        path: as the database names it.
        seal: of the cohort, where it is encrypted.
    """
    return seal.opened(path) if seal is not None else nullcontext(path)


def open_cohort(folder: str | Path) -> Cohort:
    """The cohort that stands in a folder.

    Raises:
        StoreError: there is none, it is damaged, or a newer program wrote it.
    """
    folder = Path(folder)
    with transaction(folder) as connection:
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        labels = tuple(
            Label(row["value"], row["name"], code_for(row["name"]))
            for row in connection.execute("SELECT * FROM classes ORDER BY value")
        )
        cases = _cases(connection, folder, labels, seal_in(folder, meta))
        return Cohort(
            name=meta["name"],
            folder=folder,
            cases=cases,
            split=_split(connection, meta),
            labels=labels,
            ignore=int(meta["ignore"]) if "ignore" in meta else None,
            digest=_digest(connection),
            meta=meta,
        )


def quarantine(folder: str | Path) -> list[dict[str, str]]:
    """What was set aside: pseudonym of the source, reason, remedy."""
    with transaction(Path(folder)) as connection:
        return [dict(row) for row in connection.execute("SELECT * FROM quarantine ORDER BY id")]


def image_hashes(folder: str | Path) -> dict[str, tuple[str, str, bytes]]:
    """Case, patient and perceptual hash of every image, by image."""
    with transaction(Path(folder)) as connection:
        rows = connection.execute(
            "SELECT images.id, case_id, patient, hash FROM images JOIN cases ON cases.id = case_id ORDER BY images.id"
        )
        return {row["id"]: (row["case_id"], row["patient"], row["hash"]) for row in rows}


def image_attributes(folder: str | Path) -> dict[str, dict[str, str | float]]:
    """The acquisition attributes that survived de-identification, by image."""
    with transaction(Path(folder)) as connection:
        rows = connection.execute("SELECT id, attributes FROM images ORDER BY id")
        return {row["id"]: json.loads(row["attributes"]) for row in rows}


def label_voxels(folder: str | Path) -> dict[str, dict[int, int]]:
    """Voxels per value of every label map, by case."""
    with transaction(Path(folder)) as connection:
        rows = connection.execute("SELECT case_id, voxels FROM labels JOIN images ON images.id = image_id")
        return {row[0]: {int(value): count for value, count in json.loads(row[1]).items()} for row in rows}


def sources(folder: str | Path) -> dict[str, list[str]]:
    """Images by the pseudonym of each name of their source."""
    found: dict[str, list[str]] = defaultdict(list)
    with transaction(Path(folder)) as connection:
        for row in connection.execute("SELECT key, image_id FROM sources ORDER BY image_id"):
            found[row["key"]].append(row["image_id"])
    return found


def _cases(
    connection: sqlite3.Connection, folder: Path, labels: tuple[Label, ...], seal: Seal | None
) -> tuple[Case, ...]:
    images: dict[str, list[Image]] = defaultdict(list)
    findings: dict[str, list[Finding]] = defaultdict(list)
    covariates: dict[str, dict[str, Covariate]] = defaultdict(dict)
    masks = {row["image_id"]: row for row in connection.execute("SELECT * FROM labels")}
    places = _places(connection)
    looked_over = {row["image_id"] for row in connection.execute("SELECT image_id FROM assessed")} | masks.keys()
    assessed: dict[str, set[str]] = defaultdict(set)
    for row in connection.execute("SELECT * FROM images ORDER BY role, id"):
        grid = Grid.from_json(json.loads(row["grid"]))
        pixels = StoredImage(folder / row["path"], row["volume"], seal)
        images[row["case_id"]].append(
            Image(row["id"], grid, row["role"], Kind.INTENSITY, row["modality"], row["channels"], pixels)
        )
        if row["id"] in masks:
            findings[row["case_id"]] += _masks(row, grid, StoredLabel(folder / masks[row["id"]]["path"], seal), labels)
        findings[row["case_id"]] += places.get(row["id"], [])
        if row["id"] in looked_over:
            assessed[row["case_id"]].add(row["id"])
    for row in connection.execute("SELECT * FROM covariates ORDER BY name"):
        covariates[row["case_id"]][row["name"]] = row["value"]
    return tuple(
        Case(
            row["id"],
            row["patient"],
            tuple(images[row["id"]]),
            tuple(findings[row["id"]]),
            covariates[row["id"]],
            frozenset(assessed[row["id"]]),
        )
        for row in connection.execute("SELECT * FROM cases ORDER BY id")
        if row["id"] in images  # a visit may have brought reports alone
    )


def _masks(image: sqlite3.Row, grid: Grid, pixels: StoredLabel, labels: tuple[Label, ...]) -> list[Finding]:
    place = Image(image["id"], grid, image["role"], Kind.LABEL, image["modality"], 1, pixels)
    return [Finding(label.name, place=Mask(place, label.value), code=label.code) for label in labels]


def _places(connection: sqlite3.Connection) -> dict[str, list[Finding]]:
    """Points and boxes by image."""
    found: dict[str, list[Finding]] = defaultdict(list)
    for row in connection.execute("SELECT * FROM findings ORDER BY image_id, number"):
        i, j, k = json.loads(row["centre"])
        size = json.loads(row["size"])
        point = row["kind"] == "point"
        place = Point(row["image_id"], (i, j, k), size) if point else Box(row["image_id"], (i, j, k), tuple(size))
        found[row["image_id"]].append(Finding(row["name"], place=place, attributes=json.loads(row["attributes"])))
    return found


def _split(connection: sqlite3.Connection, meta: dict[str, Any]) -> Split | None:
    rows = connection.execute("SELECT * FROM split ORDER BY patient").fetchall()
    if not rows:
        return None
    pairs = connection.execute("SELECT first, second FROM duplicates ORDER BY first, second").fetchall()
    return Split(
        parts={row["patient"]: row["part"] for row in rows},
        folds={row["patient"]: row["fold"] for row in rows if row["fold"] is not None},
        given=meta.get("split_given") == "1",
        how=meta.get("split_how", ""),
        duplicates=tuple((row[0], row[1]) for row in pairs),
    )


def _digest(connection: sqlite3.Connection) -> str:
    """Content hash of images and truth: the images' ids are keyed hashes of their content."""
    digest = hashlib.sha256()
    for table, columns in _CONTENT:
        for row in connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2"):  # noqa: S608
            digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()
