"""Taking a patient out of a cohort folder, so that no byte of the patient's images, truth or rows remains.

The order makes it safe to be killed and run again: the tombstone is entered first, so that the patient cannot
come in again meanwhile; then files go; the rows that name them go last; then the database is written anew.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesalius.core.errors import StoreError
from vesalius.core.identity import seen_hash
from vesalius.store.database import connect, database_path, transaction
from vesalius.store.files import flush_folder
from vesalius.store.sealed import seal_of

FORGOTTEN = "forgotten"  # key in `meta`: JSON list of the pseudonyms of withdrawn patients
_SHARES = ("shares", "share_patients")  # where data went to is kept: whoever has it must be told
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".svg", ".webp", ".gif", ".pdf"})
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Belongings:
    """What a cohort holds of a patient, by pseudonyms.

    Args:
        patient: the patient.
        cases, images: ids of the patient's visits and images.
        sources: keys of the names that the images came with and no other patient's did.
    """

    patient: str
    cases: tuple[str, ...]
    images: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every pseudonym that stands for the patient or something of the patient."""
        return (self.patient, *self.cases, *self.images)


def belongings(folder: Path, patient: str) -> Belongings:
    """What the database knows of a patient."""
    of_patient = "SELECT images.id FROM images JOIN cases ON cases.id = case_id WHERE patient {} ?"
    mine, others = of_patient.format("="), of_patient.format("!=")
    keys = f"SELECT DISTINCT key FROM sources WHERE image_id IN ({mine}) AND key NOT IN "  # noqa: S608
    keys += f"(SELECT key FROM sources WHERE image_id IN ({others}))"  # noqa: S608
    with transaction(folder) as connection:
        cases = _column(connection, "SELECT id FROM cases WHERE patient = ?", [patient])
        images = _column(connection, mine, [patient])
        objects = "SELECT objects.id FROM objects JOIN cases ON cases.id = case_id WHERE cases.patient = ?"
        images += _column(connection, objects, [patient])
        return Belongings(
            patient, tuple(cases), tuple(images), tuple(_column(connection, keys, [patient, patient]))
        )  # fmt: skip


def forgotten(folder: Path) -> tuple[str, ...]:
    """Pseudonyms of the patients that were withdrawn from the cohort."""
    with transaction(folder) as connection:
        return tuple(_tombstones(connection))


def bury(folder: Path, patient: str) -> bool:
    """Enter the tombstone; False where it stood there already."""
    with transaction(folder) as connection:
        connection.execute("BEGIN IMMEDIATE")
        known = _tombstones(connection)
        if patient in known:
            return False
        _put_tombstones(connection, [*known, patient])
    return True


def readmit(folder: Path, patient: str) -> bool:
    """Take the tombstone away; False where there is none."""
    with transaction(folder) as connection:
        connection.execute("BEGIN IMMEDIATE")
        known = _tombstones(connection)
        if patient not in known:
            return False
        _put_tombstones(connection, [entry for entry in known if entry != patient])
    return True


def erase_files(folder: Path, found: Belongings) -> int:
    """Remove the patient's images and labels, and folders that an interrupted run left without a row."""
    with transaction(folder) as connection:
        others = set(_column(connection, "SELECT id FROM cases WHERE patient != ?", [found.patient]))
    removed = 0
    for part in ("images", "labels"):
        for place in _entries(folder / part):
            if place.name not in others:
                removed += sum(path.is_file() for path in [place, *place.rglob("*")])
                remove(place)
        flush_folder(folder / part)
    return removed


def erase_disposable(folder: Path) -> None:
    """Empty the cache, which was prepared from all patients together, and the work of unfinished fits."""
    for place in _entries(folder / "cache"):
        remove(place)
    for place in _entries(folder / "models"):
        if place.name.startswith("."):
            remove(place)


def erase_rivals(folder: Path, found: Belongings) -> list[str]:
    """Remove the rivals that hold images of the patient, or do not say whose they hold; their names."""
    removed = []
    for place in _entries(folder / "models"):
        if not place.name.startswith("rival-"):
            continue
        seen = _json(folder, place / "rival.json").get("values", {}).get("card", {}).get("patients_seen")
        if not seen or seen_hash(found.patient) in seen:
            remove(place)
            removed.append(place.name)
    return removed


def erase_reports(folder: Path, found: Belongings) -> list[str]:
    """Remove the reports that name the patient's cases, and pictures that name no cases at all; their names.

    A picture says nothing of whom it shows. A report that lists its cases in `cases.csv` and does not list the
    patient's stays.
    """
    removed = []
    for place in _entries(folder / "reports"):
        files = [path for path in [place, *place.rglob("*")] if path.is_file()]
        named = any(mentions(path, found.names) for path in files)
        pictures = any(path.suffix.lower() in _PICTURES for path in files)
        listed = any(path.name == "cases.csv" for path in files)
        if named or place.name.startswith(".") or (pictures and not listed):
            remove(place)
            removed.append(place.name)
    return removed


def erase_rows(folder: Path, found: Belongings) -> int:
    """Delete every row, in any table, that has one of the patient's pseudonyms in any column; how many.

    The tables are asked for their columns, so that one that is added later is not forgotten here.
    """
    connection = connect(folder)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("PRAGMA defer_foreign_keys = ON")
            removed = _delete(connection, "quarantine", "id", found.sources)
            for table in _tables(connection):
                for row in connection.execute(f"PRAGMA table_info({table})").fetchall():
                    removed += _delete(connection, table, row["name"], found.names)
    finally:
        connection.close()
    return removed


def _delete(connection: sqlite3.Connection, table: str, column: str, values: Sequence[str]) -> int:
    query = f'DELETE FROM "{table}" WHERE "{column}" = ?'  # noqa: S608
    return sum(connection.execute(query, (value,)).rowcount for value in values)


def compact(folder: Path) -> None:
    """Write the database anew, so that no deleted row stays in a free page of it."""
    connection = connect(folder)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("VACUUM")
    finally:
        connection.close()
    flush_folder(folder)


def check_gone(folder: Path, found: Belongings) -> None:
    """Look for what is left of the patient's pseudonyms, file by file.

    Raises:
        StoreError: something is; the file is named.
    """
    for path in sorted(folder.rglob("*")):
        names = found.names[1:] if path == database_path(folder) else found.names  # the tombstone is the patient
        part = path.relative_to(folder).parts
        if not path.is_file() or part[0] in ("images", "labels"):
            continue  # what is left there is of others, and holds their names only
        if names and mentions(path, names):
            raise StoreError(
                "Something of the patient is still there.",
                remedy="Remove this file, or run `vesalius forget` again while nothing else works on the cohort.",
                file=path,
            )


def mentions(path: Path, names: Sequence[str]) -> bool:
    """Whether a file's bytes or its name hold any of these words."""
    if any(name in path.name for name in names):
        return True
    wanted = [name.encode() for name in names]
    longest = max(map(len, wanted), default=0)
    with path.open("rb") as file:
        kept = b""
        while block := file.read(_BLOCK):
            if any(name in kept + block for name in wanted):
                return True
            kept = block[-longest:]
    return False


def shares_of(folder: Path, patient: str) -> list[dict[str, str]]:
    """The shares that the patient's data went into: every column of their entries, by name."""
    with transaction(folder) as connection:
        if not {"shares", "share_patients"} <= set(_all_tables(connection)):
            return []
        keys = ("patient", "share")
        columns = [row["name"] for row in connection.execute("PRAGMA table_info(share_patients)")]
        if not set(keys) <= set(columns):
            return []
        rows = connection.execute(
            "SELECT shares.* FROM share_patients JOIN shares ON shares.id = share WHERE patient IN (?, ?)",
            [patient, seen_hash(patient)],
        )
        return [{name: str(row[name]) for name in row.keys()} for row in rows]  # noqa: SIM118


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to), or a folder with everything in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _entries(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.iterdir()) if folder.is_dir() else ()


def _column(connection: sqlite3.Connection, query: str, values: Sequence[str]) -> list[str]:
    return [row[0] for row in connection.execute(query, list(values))]


def _all_tables(connection: sqlite3.Connection) -> list[str]:
    return _column(connection, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", [])


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [name for name in _all_tables(connection) if name not in _SHARES]


def _tombstones(connection: sqlite3.Connection) -> list[str]:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (FORGOTTEN,)).fetchone()
    return list(json.loads(row[0])) if row else []


def _put_tombstones(connection: sqlite3.Connection, patients: Sequence[str]) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (FORGOTTEN, json.dumps(sorted(patients))))


def _json(folder: Path, path: Path) -> dict[str, Any]:
    seal = seal_of(folder)
    try:
        found = json.loads(path.read_bytes() if seal is None else seal.read(path))
    except (OSError, ValueError, StoreError):
        return {}
    return found if isinstance(found, dict) else {}
