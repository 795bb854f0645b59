"""The audit trail of a cohort: who did what, when, on how many cases; hash-chained, signed, without identifiers.

Each line of `audit.jsonl` holds the SHA-256 of the line before it and an Ed25519 signature (RFC 8032) by a key
that is derived from the pseudonym key. The database remembers the last line, so that a cut tail shows too.

The signing key is kept beside the pseudonym key, so that reading a cohort out is recorded also where the vault is
closed; nothing leads from it back to the pseudonym key.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vesalius.core.errors import StoreError
from vesalius.privacy.pseudonyms import key_path, load_key
from vesalius.privacy.vault import vault_path
from vesalius.store.database import database_path, transaction
from vesalius.store.files import write_bytes

_NAME = "audit.jsonl"
_HEAD = "audit_head"
_START = "0" * 64


@dataclass(frozen=True)
class Verdict:
    """What verifying an audit trail gave.

    Args:
        entries: lines that hold.
        broken: number of the first line that does not hold, from 1; 0 where all do.
        reason: what is wrong with it.
        own: whether all lines are signed with the key at hand.
    """

    entries: int
    broken: int = 0
    reason: str = ""
    own: bool = True


def record(folder: Path, key: bytes, what: str, *, cases: int, figures: Mapping[str, int] | None = None) -> None:
    """Append one entry, flushed to the disk; other processes wait for it.

    Args:
        folder: the cohort.
        key: the pseudonym key, from which the signing key is derived.
        what: the verb, such as "ingest".
        cases: how many cases it was about.
        figures: further counts.
    """
    _append(folder, _signer(key), what, cases, figures or {})


def enter(folder: Path, what: str, *, cases: int, figures: Mapping[str, int] | None = None) -> None:
    """`record` with this user's own signing key, for every verb that reads a cohort out; before it gives anything.

    Raises:
        StoreError: the entry cannot be written, so nothing may be read out.
        UsageError: there is a vault, and no signing key yet, and the vault does not open.
    """
    if not database_path(folder).exists():
        return  # cases that were built in memory
    try:
        _append(folder, own_signer(), what, cases, figures or {})
    except (OSError, sqlite3.OperationalError) as error:
        raise StoreError(
            "The audit trail of the cohort cannot be written, and what is read out must be recorded.",
            remedy="Make the cohort's folder writable, or copy it.", file=folder,
        ) from error  # fmt: skip


def own_signer() -> Any:
    """This user's Ed25519 signing key, made from the pseudonym key where there is one, else by chance."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = _seed_path()
    if not path.is_file():
        known = key_path().exists() or vault_path().exists()
        write_bytes(path, _seed(load_key()) if known else secrets.token_bytes(32), mode=0o600)
    return Ed25519PrivateKey.from_private_bytes(path.read_bytes())


def own_public_key() -> str | None:
    """In hexadecimal; None where this user has not signed anything yet."""
    if not _seed_path().is_file() and not key_path().exists():
        return None
    return str(own_signer().public_key().public_bytes_raw().hex())


def _append(folder: Path, signer: Any, what: str, cases: int, figures: Mapping[str, int]) -> None:
    path = folder / _NAME
    with transaction(folder) as connection:
        connection.execute("BEGIN IMMEDIATE")
        lines = path.read_bytes().splitlines() if path.exists() else []
        entry: dict[str, Any] = {
            "number": len(lines) + 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": getpass.getuser(),
            "what": what,
            "cases": cases,
            "figures": dict(figures),
            "before": hashlib.sha256(lines[-1]).hexdigest() if lines else _START,
            "signed_by": signer.public_key().public_bytes_raw().hex(),
        }
        entry["signature"] = signer.sign(_canonical(entry)).hex()
        line = json.dumps(entry, sort_keys=True).encode()
        with path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_HEAD, hashlib.sha256(line).hexdigest()))


def verify(folder: Path, key: bytes | None = None, *, public: str | None = None) -> Verdict:
    """Check every line, its place in the chain, its signature, and that none is missing at the end.

    Args:
        folder: the cohort.
        key: the pseudonym key, to tell whether the entries are one's own; None to leave that out.
        public: or the public signing key, in hexadecimal.
    """
    path = folder / _NAME
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    before, own = _START, True
    mine = public or (_signer(key).public_key().public_bytes_raw().hex() if key is not None else "")
    for number, ended in enumerate(lines, start=1):
        line = ended.removesuffix(b"\n")
        reason, signed_by = _problem(line, number, before) if line != ended else ("its end was changed", "")
        if reason:
            return Verdict(number - 1, number, reason, own)
        own = own and (not mine or signed_by == mine)
        before = hashlib.sha256(line).hexdigest()
    with transaction(folder) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (_HEAD,)).fetchone()
    if (row[0] if row else _START) != before:
        return Verdict(len(lines), len(lines) + 1, "entries are missing at the end", own)
    return Verdict(len(lines), own=own)


def _problem(line: bytes, number: int, before: str) -> tuple[str, str]:
    """(what is wrong with a line or "", the public key that signed it)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        entry = json.loads(line)
        signature, signed_by = bytes.fromhex(entry.pop("signature")), str(entry["signed_by"])
        if entry["number"] != number or entry["before"] != before:
            return "it does not follow the entry before it", signed_by
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed_by)).verify(signature, _canonical(entry))
        if json.dumps({**entry, "signature": signature.hex()}, sort_keys=True).encode() != line:
            return "it was written by another program", signed_by
    except InvalidSignature:
        return "its signature does not fit its words", ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return "it is no entry of an audit trail", ""
    return "", signed_by


def _canonical(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True).encode()


def _signer(key: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(_seed(key))


def _seed(key: bytes) -> bytes:
    return hashlib.blake2b(b"audit", key=key, digest_size=32, person=b"signing").digest()


def _seed_path() -> Path:
    return key_path().with_name("audit.key")
