"""Keyed pseudonyms: stable for who holds the key, unlinkable without it.

BLAKE2b in its keyed mode (RFC 7693) with a separate personalisation per purpose, so that a patient number
that equals a file name gets unrelated pseudonyms. The key is a random file in the user's data folder,
readable by its owner only, and never stands in a cohort.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from vesalius.core.errors import UsageError
from vesalius.privacy.vault import Secret, open_vault, vault_path
from vesalius.store.files import put_once

KEY_BYTES = 32
LONGEST_SHIFT_DAYS = 3650


def key_path() -> Path:
    """Where the key of this user stands."""
    from platformdirs import user_data_path

    return user_data_path("vesalius") / "pseudonyms.key"


def load_key(path: Path | None = None) -> bytes:
    """The user's key, from the vault where there is one; a random one is made (mode 0600) where there is none.

    Raises:
        UsageError: the file is not a key, or the vault does not open.
    """
    if path is None and not key_path().exists() and vault_path().exists():
        return open_vault(vault_path(), Secret.of(None), "pseudonym key").key
    path = path or key_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _make_key(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise UsageError(
            "This is not a pseudonym key.",
            remedy="Restore the key from a copy; without it pseudonyms cannot be repeated.",
            file=path,
        )
    return key


def _make_key(path: Path) -> None:
    """Put a random key there, whole or not at all; one that another process puts there meanwhile stays."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # of mode 0600
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        put_once(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def existing_key() -> bytes:
    """The user's key, where there is one; never a new one, which would open nothing and find nobody.

    Raises:
        UsageError: there is none.
    """
    if not key_path().exists() and not vault_path().exists():
        raise UsageError(
            "The key that this cohort was made with is not here.",
            remedy="Restore the key or the vault from a copy; without it nothing can be recovered.",
            file=key_path().parent,
        )
    return load_key()


@dataclass(frozen=True)
class Pseudonyms:
    """Everything that is derived from the key. Its representation never shows the key."""

    key: bytes = field(repr=False)

    def _digest(self, purpose: str, value: str, size: int = 16) -> bytes:
        person = purpose.encode()[:16]
        return hashlib.blake2b(value.encode(), key=self.key, digest_size=size, person=person).digest()

    def patient(self, identifier: str) -> str:
        """Pseudonym of a patient: "P" and 16 hexadecimal digits."""
        return "P" + self._digest("patient", identifier, 8).hex()

    def case(self, patient: str, visit: str) -> str:
        """Pseudonym of a visit of a patient."""
        return "C" + self._digest("case", f"{patient}\n{visit}", 8).hex()

    def image(self, content: str) -> str:
        """Pseudonym of an image, from what it contains and what it was called."""
        return "I" + self._digest("image", content, 8).hex()

    def source(self, name: str) -> str:
        """Pseudonym of the name of a file or folder."""
        return "S" + self._digest("source", name, 12).hex()

    def uid(self, uid: str) -> str:
        """A UID in the 2.25 form (DICOM PS3.5 B.2) that stands for `uid`."""
        number = int.from_bytes(self._digest("uid", uid, 16), "big")
        return f"2.25.{number}"

    def shift_days(self, patient: str) -> int:
        """Whole days by which this patient's dates move into the past: 1 to 3650, the same for all of them."""
        return self.shift_of(self.patient(patient))

    def shift_of(self, pseudonym: str) -> int:
        """`shift_days` of the patient who has this pseudonym, for what comes in by a table without the identifier."""
        return 1 + int.from_bytes(self._digest("shift", pseudonym, 8), "big") % LONGEST_SHIFT_DAYS
