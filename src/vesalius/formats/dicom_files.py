"""Collect DICOM files by series while walking, so that a series may lie in any order and in many folders.

The headers wait in an anonymous SQLite database, which SQLite keeps in a few megabytes of memory, spills into
a file without a name and deletes when closed (sqlite.org/inmemorydb.html, "Temporary Databases"). So memory
does not grow with the number of files: the bound is the headers of the largest single series, about 3 KB a
slice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vesalius.formats.dicom_header import Header


@dataclass(frozen=True)
class Series:
    """The slices of one series.

    Args:
        headers: in order of path.
        folder: the deepest folder that holds them all.
        alone: whether no other series lies directly in that folder.
    """

    headers: tuple[Header, ...]
    folder: Path
    alone: bool


class SeriesIndex:
    """Headers in, series out, in order of path."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.execute("PRAGMA cache_size = -8000")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE slices (series TEXT, folder TEXT, path TEXT, header TEXT)")
        self._database.execute("CREATE INDEX by_series ON slices (series, path)")
        self._database.execute("CREATE INDEX by_folder ON slices (folder, series)")

    def add(self, header: Header) -> None:
        """Take up one file."""
        folder = str(Path(header.path).parent)
        series = header.series or f"in {folder}"
        row = (series, folder, header.path, json.dumps(header.as_json()))
        self._database.execute("INSERT INTO slices VALUES (?, ?, ?, ?)", row)

    def series(self) -> Iterator[Series]:
        """Each series once, ordered by its first path."""
        query = "SELECT series, MIN(path) AS start FROM slices GROUP BY series ORDER BY start"
        for key, _ in self._database.execute(query):
            rows = self._database.execute(
                "SELECT folder, header FROM slices WHERE series = ? ORDER BY path", (key,)
            ).fetchall()
            folders = {folder for folder, _ in rows}
            alone = all(self._series_in(folder) == 1 for folder in folders)
            headers = tuple(Header.from_json(json.loads(header)) for _, header in rows)
            yield Series(headers, _common(sorted(folders)), alone)

    def _series_in(self, folder: str) -> int:
        query = "SELECT COUNT(DISTINCT series) FROM slices WHERE folder = ?"
        return int(self._database.execute(query, (folder,)).fetchone()[0])

    def close(self) -> None:
        """Delete the database."""
        self._database.close()


def _common(folders: list[str]) -> Path:
    first, last = Path(folders[0]), Path(folders[-1])
    if first == last:
        return first
    parts = [a for a, b in zip(first.parts, last.parts, strict=False) if a == b]
    while Path(*parts) not in (*first.parents, first) or Path(*parts) not in (*last.parents, last):
        parts.pop()
    return Path(*parts)
