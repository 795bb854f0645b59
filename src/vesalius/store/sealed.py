"""Files encrypted at rest: AES-256-GCM by chunk (NIST SP 800-38D), one data key per cohort.

A sealed file is a magic line, 32 random bytes, the length of what is in it, and chunks of 1 MiB with 16 bytes of
tag each. The key of a file follows from the cohort's data key and the random bytes, so that no pair of key and
nonce ever comes twice; the nonce is the chunk's number. Each tag also covers the head of the file and the file's
place in the cohort, so that a changed byte, a cut or swapped chunk, and a file put in another's place are all
found, and named. The data key stands in the cohort, itself encrypted with the user's pseudonym key.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vesalius.core.errors import StoreError, UsageError
from vesalius.store.files import write_beside, write_bytes
from vesalius.store.private import private_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ENCRYPTION = "encryption"  # key in the database's table `meta`
SUFFIX = ".sealed"
CHUNK = 1 << 20
_MAGIC = b"VESALIUS SEALED 1\n"
_TAG = 16
_HEAD = len(_MAGIC) + 32 + 8
_SEALED = ("images", "labels")  # parts of a cohort that are not disposable
_RESTORE = "Restore it from a copy, or remove it and ingest its source again."

_ask: list[Callable[[], bytes]] = []  # who knows the user's key: `privacy` does, which stands above
_known: dict[str, bytes] = {}  # data keys that were unwrapped in this process


def ask_for_key(source: Callable[[], bytes]) -> None:
    """Say where the user's pseudonym key comes from when a sealed file is first read."""
    _ask[:] = [source]


def new_encryption(user_key: bytes) -> str:
    """A new data key, wrapped with the user's key: what `meta` keeps."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, data_key = secrets.token_bytes(12), secrets.token_bytes(32)
    wrapped = AESGCM(_wrapping_key(user_key)).encrypt(nonce, data_key, _MAGIC)
    return json.dumps({"cipher": "AES-256-GCM", "nonce": nonce.hex(), "key": wrapped.hex()}, sort_keys=True)


@dataclass(frozen=True)
class Seal:
    """How the files of one cohort are opened and closed. The key itself is asked for when it is first needed.

    Args:
        folder: the cohort.
        wrapped: what `meta` keeps.
    """

    folder: Path
    wrapped: str = field(repr=False)

    def lock(self) -> None:
        """Make sure that the key is at hand, before long work begins.

        Raises:
            StoreError: it is not the key that the cohort was made with, or the entry was changed.
            UsageError: there is no key.
        """
        self._data_key()

    def write(self, path: Path, data: bytes, *, at: Path | None = None) -> None:
        """Seal bytes as the file that is called `path` (its sealed name has the suffix).

        Args:
            path: where it will be read.
            data: what is in it.
            at: where it is written, if it is moved to its place later.
        """
        sealed = io.BytesIO()
        self._close(io.BytesIO(data), len(data), sealed, self._name(path))
        write_bytes(sealed_path(at or path), sealed.getvalue())

    def read(self, path: Path) -> bytes:
        """The bytes that were sealed as `path`.

        Raises:
            StoreError: the file is gone, was changed, or is not where it was written.
        """
        opened = io.BytesIO()
        with self._found(path).open("rb") as file:
            self._open(file, opened, path)
        return opened.getvalue()

    def close_tree(self, made: Path, place: Path) -> None:
        """Seal a file, or every file of a folder, as what stands at `place`; what was there is left for the caller."""
        for source in sorted(made.rglob("*")) if made.is_dir() else [made]:
            if source.is_file():
                target = place / source.relative_to(made) if made.is_dir() else place
                write_beside(sealed_path(target), partial(self._close_file, source, target))

    @contextmanager
    def opened(self, place: Path) -> Iterator[Path]:
        """A file, or a folder of files, readable for the length of the block, in a private folder that then goes.

        Raises:
            StoreError: a file is gone, was changed, or is not where it was written.
        """
        whole = (
            [path for path in place.rglob(f"*{SUFFIX}") if path.is_file()] if place.is_dir() else [self._found(place)]
        )
        room = sum(path.stat().st_size for path in whole)
        with private_folder(room) as private:
            inside = private / place.name
            for source in whole:
                plain = source.with_name(source.name.removesuffix(SUFFIX))
                target = inside / plain.relative_to(place) if place.is_dir() else inside
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open("rb") as file, target.open("xb") as out:
                    self._open(file, out, plain)
            yield inside

    def _close_file(self, source: Path, name: Path, target: Path) -> None:
        with source.open("rb") as file, target.open("xb") as out:
            self._close(file, source.stat().st_size, out, self._name(name))

    def _close(self, file: IO[bytes], size: int, out: IO[bytes], name: bytes) -> None:
        salt = secrets.token_bytes(32)
        head = _MAGIC + salt + size.to_bytes(8, "big")
        cipher = self._cipher(salt)
        out.write(head)
        for number in range(_chunks(size)):
            out.write(cipher.encrypt(number.to_bytes(12, "big"), file.read(CHUNK), head + name))

    def _open(self, file: IO[bytes], out: IO[bytes], path: Path) -> None:
        from cryptography.exceptions import InvalidTag

        shown = sealed_path(path)
        head = file.read(_HEAD)
        if len(head) < _HEAD or not head.startswith(_MAGIC):
            raise StoreError("The start of this encrypted file was changed or cut.", remedy=_RESTORE, file=shown)
        size = int.from_bytes(head[-8:], "big")
        cipher, name, count = self._cipher(head[len(_MAGIC) : -8]), self._name(path), _chunks(size)
        if shown.stat().st_size != _HEAD + size + count * _TAG:
            raise StoreError("This encrypted file is not as long as it was written.", remedy=_RESTORE, file=shown)
        for number in range(count):
            part = file.read(min(CHUNK, size - number * CHUNK) + _TAG)
            try:
                out.write(cipher.decrypt(number.to_bytes(12, "big"), part, head + name))
            except InvalidTag as error:
                raise StoreError(
                    f"Part {number + 1} of {count} of this encrypted file was changed, or the file was moved here.",
                    remedy=_RESTORE, file=shown,
                ) from error  # fmt: skip

    def _found(self, path: Path) -> Path:
        found = sealed_path(path)
        if not found.is_file():
            raise StoreError("An encrypted file of the cohort is gone.", remedy=_RESTORE, file=found)
        return found

    def _name(self, path: Path) -> bytes:
        """The place in the cohort, by which a sealed file is bound to where it lies; the cohort may be moved."""
        return path.resolve().relative_to(self.folder.resolve()).as_posix().encode()

    def _cipher(self, salt: bytes) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = hashlib.blake2b(salt, key=self._data_key(), digest_size=32, person=b"sealed file").digest()
        return AESGCM(key)

    def _data_key(self) -> bytes:
        if self.wrapped not in _known:
            if not _ask:
                raise UsageError("The cohort is encrypted and nobody told where its key is.", file=self.folder)
            _known[self.wrapped] = _unwrapped(self.wrapped, _ask[0](), self.folder)
        return _known[self.wrapped]


@contextmanager
def spool_of(meta: Mapping[str, str]) -> Iterator[Path]:
    """A temporary folder for what is made of a cohort's images: a private one, in memory, where it is encrypted."""
    if ENCRYPTION in meta:
        with private_folder() as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="vesalius-") as name:
        yield Path(name)


@contextmanager
def opened_cohort(folder: Path) -> Iterator[Path]:
    """The cohort's folder, or a plain copy of an encrypted one without cache, models and reports, gone after the block.

    For what reads every file of a cohort, such as the check before a share.
    """
    from vesalius.store.database import database_path

    seal = seal_of(folder)
    if seal is None:
        yield folder
        return
    room = sum(path.stat().st_size for part in _SEALED for path in (folder / part).rglob(f"*{SUFFIX}"))
    with private_folder(room) as private:
        copy = private / folder.resolve().name
        copy.mkdir(mode=0o700)
        for path in folder.iterdir():
            if path.is_file():
                shutil.copyfile(path, copy / path.name)
        with closing(sqlite3.connect(database_path(copy))) as connection, connection:
            connection.execute("DELETE FROM meta WHERE key = ?", (ENCRYPTION,))
        for part in _SEALED:
            (copy / part).mkdir()
            for case in (folder / part).iterdir():
                with seal.opened(case) as plain:
                    shutil.copytree(plain, copy / part / case.name)
        yield copy


def seal_in(folder: Path, meta: Mapping[str, str]) -> Seal | None:
    """The seal of a cohort by its `meta`, or None where its files are not encrypted."""
    return Seal(folder, meta[ENCRYPTION]) if ENCRYPTION in meta else None


def seal_of(folder: Path) -> Seal | None:
    """The seal of the cohort in a folder, or None where there is no cohort or its files are not encrypted."""
    from vesalius.store.database import database_path, transaction

    if not database_path(folder).is_file():
        return None
    with transaction(folder) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (ENCRYPTION,)).fetchone()
    return Seal(folder, row[0]) if row else None


def sealed_path(path: Path) -> Path:
    """The name that a file has where it is sealed."""
    return path.with_name(path.name + SUFFIX)


def forget_keys() -> None:
    """Ask for the key again when it is needed next."""
    _known.clear()


def _chunks(size: int) -> int:
    return max(1, -(-size // CHUNK))


def _wrapping_key(user_key: bytes) -> bytes:
    return hashlib.blake2b(b"data key", key=user_key, digest_size=32, person=b"encrypt at rest").digest()


def _unwrapped(wrapped: str, user_key: bytes, folder: Path) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        entry = json.loads(wrapped)
        nonce, sealed = bytes.fromhex(entry["nonce"]), bytes.fromhex(entry["key"])
        return AESGCM(_wrapping_key(user_key)).decrypt(nonce, sealed, _MAGIC)
    except (InvalidTag, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            "This cohort is encrypted, and the key at hand does not open it.",
            remedy="Use the key or vault that it was made with; without it nothing can be recovered.",
            file=folder,
        ) from error
