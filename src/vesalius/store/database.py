"""The SQLite file of a cohort: its tables, its version, and how it is opened.

One transaction per image or label, so that a kill loses at most the one being written. Everything in it is
de-identified: names of files and patients occur as keyed pseudonyms only.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from vesalius.core.errors import StoreError
from vesalius.store.files import put_once

VERSION = 3
_PARTS = ("images", "labels", "cache", "models", "reports")
_NEW = ".cohort.sqlite.new"  # and the number of the process that makes it
_KEPT_EVERY = 0.5  # seconds between flushes of what `held` collects
_PATIENCE = 10.0  # seconds that another process is waited for

SCHEMA = """
CREATE TABLE IF NOT EXISTS cases (id TEXT PRIMARY KEY, patient TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY,
    case_id TEXT NOT NULL REFERENCES cases(id),
    role TEXT NOT NULL, modality TEXT NOT NULL, channels INTEGER NOT NULL,
    grid TEXT NOT NULL,             -- JSON of core.grid.Grid
    path TEXT NOT NULL,             -- below the cohort folder; a file, or the folder of a DICOM series
    volume INTEGER NOT NULL,        -- which of the volumes that lie at `path`
    hash BLOB NOT NULL,             -- perceptual hash of the canonical volume
    attributes TEXT NOT NULL        -- JSON: acquisition attributes that survive de-identification
);
CREATE INDEX IF NOT EXISTS images_by_case ON images(case_id);
CREATE TABLE IF NOT EXISTS sources (
    key TEXT NOT NULL, image_id TEXT NOT NULL REFERENCES images(id), rank INTEGER NOT NULL,
    PRIMARY KEY (key, image_id));   -- keyed pseudonyms of names: 0 the whole name, 1 without suffix, 2 last part
CREATE TABLE IF NOT EXISTS instances (uid TEXT NOT NULL, image_id TEXT NOT NULL REFERENCES images(id),
    PRIMARY KEY (uid, image_id));   -- pseudonymous SOP Instance UIDs
CREATE TABLE IF NOT EXISTS objects (    -- DICOM objects beside images: reports, outlines, plans, waveforms
    id TEXT PRIMARY KEY, case_id TEXT NOT NULL REFERENCES cases(id), path TEXT NOT NULL, kind TEXT NOT NULL,
    patient TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
    image_id TEXT PRIMARY KEY REFERENCES images(id),
    path TEXT NOT NULL, digest TEXT NOT NULL,
    voxels TEXT NOT NULL            -- JSON: voxel count per value
);
CREATE TABLE IF NOT EXISTS findings (          -- points and boxes in an image's own index space
    image_id TEXT NOT NULL REFERENCES images(id), number INTEGER NOT NULL,
    name TEXT NOT NULL, kind TEXT NOT NULL,     -- "point" or "box"
    centre TEXT NOT NULL, size TEXT NOT NULL,   -- JSON: three numbers; a point's radius, or null
    attributes TEXT NOT NULL,                   -- JSON
    PRIMARY KEY (image_id, number));
CREATE TABLE IF NOT EXISTS assessed (image_id TEXT PRIMARY KEY REFERENCES images(id));
    -- images that were looked over for places: no finding there means that there is none
CREATE TABLE IF NOT EXISTS classes (value INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS covariates (case_id TEXT NOT NULL REFERENCES cases(id), name TEXT NOT NULL, value,
    PRIMARY KEY (case_id, name));
CREATE TABLE IF NOT EXISTS split (patient TEXT PRIMARY KEY, part TEXT NOT NULL, fold INTEGER);
CREATE TABLE IF NOT EXISTS duplicates (first TEXT NOT NULL, second TEXT NOT NULL, PRIMARY KEY (first, second));
CREATE TABLE IF NOT EXISTS quarantine (id TEXT PRIMARY KEY, reason TEXT NOT NULL, remedy TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def database_path(folder: Path) -> Path:
    """Where a cohort's database stands."""
    return folder / "cohort.sqlite"


def create(folder: Path, name: str) -> None:
    """Make an empty cohort folder, readable by its owner only; an existing cohort is left as it is.

    Raises:
        StoreError: the folder holds other files already.
    """
    if database_path(folder).exists():
        return
    if folder.exists() and not all(_is_begun(entry) for entry in folder.iterdir()):
        if database_path(folder).exists():
            return  # another process has made it meanwhile
        raise StoreError("This folder is not a cohort and is not empty.", remedy="Name a new folder.", file=folder)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for part in _PARTS:
        (folder / part).mkdir(exist_ok=True)
    beside = folder / f"{_NEW}{os.getpid()}"
    beside.unlink(missing_ok=True)
    connection = sqlite3.connect(beside)
    connection.executescript(f"BEGIN;{SCHEMA}COMMIT;")  # one flush of the disk for all tables
    connection.execute("INSERT INTO meta VALUES ('name', ?)", (name,))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.commit()
    connection.close()
    put_once(beside, database_path(folder))


def _is_begun(entry: Path) -> bool:
    """Whether this is what a run leaves that was killed before the cohort was made, or that is making it now."""
    if entry.name in _PARTS:
        return entry.is_dir() and not any(entry.iterdir())
    return entry.name.startswith(_NEW) or entry.name == "cohort.sqlite-journal"


def connect(folder: Path) -> sqlite3.Connection:
    """Open a cohort's database.

    Raises:
        StoreError: there is no cohort, it is damaged, or a newer program wrote it.
    """
    path = database_path(folder)
    if not path.is_file():
        raise StoreError(
            "There is no cohort here.",
            remedy="Make one with `vesalius ingest SOURCE --into COHORT`.",
            file=folder,
        )
    connection = sqlite3.connect(path, timeout=60.0)
    connection.row_factory = sqlite3.Row
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreError(
            "The cohort's database is damaged.", remedy="Restore cohort.sqlite, or ingest into a new folder.",
            file=path,
        ) from error  # fmt: skip
    if 0 < version < VERSION:  # later versions only added tables
        connection.executescript(SCHEMA)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    elif version != VERSION:
        connection.close()
        raise StoreError(
            f"The cohort has version {version}; this program reads version {VERSION}.",
            remedy="Use the program that wrote it, or ingest into a new folder.",
            file=path,
        )
    return connection


@contextmanager
def transaction(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are kept together when the block ends, or dropped together if it fails."""
    shared = _held.get()
    if shared is not None and shared.folder == folder:
        with shared.block() as connection:
            yield connection
        return
    connection = connect(folder)
    try:
        with connection:
            yield connection
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise _busy(folder) from error
        raise
    finally:
        connection.close()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let the transactions within share a connection and reach the disk together, twice a second and at the end.

    A kill loses what half a second entered; files without a row are written again by the next run. The cohort
    belongs to this process meanwhile: half a second may last as long as one image takes.

    Raises:
        StoreError: another process holds it.
    """
    with (folder / ".held").open("ab") as lock:
        _lock(lock, folder)
        connection = connect(folder)
        before = _held.set(_Held(folder, connection))
        try:
            yield
        finally:
            _held.reset(before)
            connection.commit()
            connection.close()


def _lock(file: IO[bytes], folder: Path) -> None:
    """Take a lock; workers of a run that was killed a moment ago may keep it for some seconds yet."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if time.monotonic() > until:
                raise _busy(folder) from error
            time.sleep(0.1)


def _busy(folder: Path) -> StoreError:
    return StoreError(
        "Another process is writing into this cohort.", remedy="Wait until it is done, and run this again.", file=folder
    )


class _Held:
    """A connection that several transactions share, each a savepoint of one that is open longer."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder, self._connection = folder, connection
        connection.isolation_level = None  # transactions begin and end here alone
        self._depth, self._kept = 0, time.monotonic()

    @contextmanager
    def block(self) -> Iterator[sqlite3.Connection]:
        """A part whose changes are dropped if it fails."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN")
        self._connection.execute("SAVEPOINT part")
        self._depth += 1
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK TO part")
            raise
        finally:
            self._depth -= 1
            self._connection.execute("RELEASE part")
            if self._depth == 0 and time.monotonic() - self._kept > _KEPT_EVERY:
                self._connection.execute("COMMIT")
                self._kept = time.monotonic()


_held: ContextVar[_Held | None] = ContextVar("held", default=None)
