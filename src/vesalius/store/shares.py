"""What was shared with whom, kept in the cohort, so that a withdrawal can be passed on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from vesalius.store.database import transaction

_TABLES = (
    "CREATE TABLE IF NOT EXISTS shares (id TEXT PRIMARY KEY, time TEXT NOT NULL, recipients TEXT NOT NULL,"
    " digest TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS share_patients (share TEXT NOT NULL, patient TEXT NOT NULL,"
    " PRIMARY KEY (share, patient))",
)


def put_share(folder: Path, digest: str, time: str, recipients: Sequence[str], patients: Iterable[str]) -> str:
    """Remember a share; its id, which is the beginning of its digest.

    Args:
        folder: the cohort that it was made of.
        digest: SHA-256 of the encrypted file, in hexadecimal.
        time: when, ISO 8601.
        recipients: public keys that can open it.
        patients: pseudonyms of the patients in it.
    """
    name = digest[:16]
    with transaction(folder) as connection:
        for table in _TABLES:
            connection.execute(table)
        row = (name, time, json.dumps(list(recipients)), digest)
        connection.execute("INSERT OR REPLACE INTO shares VALUES (?, ?, ?, ?)", row)
        connection.executemany(
            "INSERT OR IGNORE INTO share_patients VALUES (?, ?)", [(name, patient) for patient in patients]
        )
    return name
