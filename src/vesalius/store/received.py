"""Whether a cohort folder that came from elsewhere is one: nothing in it is trusted before."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from vesalius.core.errors import StoreError
from vesalius.store.database import SCHEMA, VERSION, database_path

_PATH = re.compile(r"(?:images|labels)/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+(?:\.nii\.gz|\.png)?")
_BAD = "Do not use it, and ask its sender."


def check_received(folder: Path, files: frozenset[str]) -> None:
    """Refuse a database that does more than hold rows, or whose rows lead out of the folder.

    Args:
        folder: what was received.
        files: "/"-separated names of all verified files in it.

    Raises:
        StoreError: saying what is wrong.
    """
    path = database_path(folder)
    if path.name not in files:
        raise StoreError("The share holds no cohort.", remedy=_BAD)
    folders = {name.rsplit("/", 1)[0] for name in files if "/" in name}
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                raise StoreError("The cohort in the share has another version.", remedy="Update Vesalius.")
            if _shape(connection) - _expected():
                raise StoreError("The database of the share holds more than a cohort's tables.", remedy=_BAD)
            if connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                raise StoreError("The database of the share is damaged.", remedy=_BAD)
            names = [row[0] for row in connection.execute("SELECT path FROM images UNION SELECT path FROM labels")]
    except sqlite3.DatabaseError as error:
        raise StoreError("The database of the share is damaged.", remedy=_BAD) from error
    for name in names:
        if not isinstance(name, str) or not _PATH.fullmatch(name) or name not in files | folders:
            raise StoreError("The database of the share names files that did not come with it.", remedy=_BAD)


def finish_received(folder: Path) -> None:
    """Make it a cohort folder as any other: its places, and nobody but the owner can read it."""
    for part in ("images", "labels", "cache", "models", "reports"):
        (folder / part).mkdir(exist_ok=True)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    folder.chmod(0o700)


def _shape(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """(type, name, statement) of everything that the database defines, without its own indexes."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {(row[0], row[1], " ".join(str(row[2]).split())) for row in rows}


def _expected() -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return _shape(connection)
