"""A parcel: a folder as one encrypted file in the age format, and back again.

The file is age v1 (age-encryption.org/v1; X25519 recipients, payload in chunks of 64 KiB with a tag each), written
by rage through pyrage. Inside is a plain tar (POSIX.1-1988, ustar): first `manifest.json` with the size and SHA-256
of every file, signed with Ed25519, then the files in that order. Nothing inside is compressed, so a parcel cannot
unfold to more than came in. Memory: one chunk, whatever the size.

age says who can read, not who wrote; the signature of the manifest says that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from vesalius.core.errors import StoreError, UsageError
from vesalius.privacy.recipients import private, read_identities, recipient

FORMAT = 1
MANIFEST = "manifest.json"
CHUNK = 1 << 16
_BLOCK = 512
_LARGEST_MANIFEST = 256 << 20
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_LONGEST_PATH = 250
AGAIN = "Ask for it to be sent again, and keep this one apart."


@dataclass(frozen=True)
class Entry:
    """A file of a parcel: its "/"-separated name, size in bytes, and SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a parcel says of itself, after its signature was checked.

    Args:
        files: in the order of the parcel.
        signed_by: public Ed25519 key of who wrote it, in hexadecimal.
    """

    files: tuple[Entry, ...]
    signed_by: str


@dataclass(frozen=True)
class Sealed:
    """A parcel that was written: its SHA-256 in hexadecimal and its size in bytes."""

    sha256: str
    size: int


def write_parcel(folder: Path, target: Path, recipients: Sequence[str], signer: Any) -> Sealed:
    """Write every file below a folder into one encrypted file, which is there whole or not at all.

    Args:
        folder: what goes in; plain files with plain names only.
        target: the file, readable by its owner only. One that is there is replaced.
        recipients: public keys, `age1...`.
        signer: Ed25519 private key that signs the manifest.

    Raises:
        UsageError: a recipient is no such key, or a name cannot stand in a parcel.
    """
    import pyrage

    keys = [recipient(text) for text in recipients]
    entries = [_entry(folder, path) for path in sorted(folder.rglob("*")) if not path.is_dir()]
    manifest = _sealed_manifest(entries, signer)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.writing")
    beside.unlink(missing_ok=True)
    try:
        with open(beside, "xb", opener=private) as file:
            out = _Hashing(file)
            pyrage.encrypt_io(_Pulled(_tar(folder, entries, manifest)), out, keys)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return Sealed(out.digest.hexdigest(), out.size)


def open_parcel(path: Path, into: Path, identity: Path, *, signed_by: str | None = None) -> Manifest:
    """Decrypt a parcel into an empty folder and check every byte of it.

    Args:
        path: the parcel.
        into: exists and is empty.
        identity: file with the recipient's private key (`AGE-SECRET-KEY-1...`, as age-keygen writes it).
        signed_by: the public key that must have signed it; None to take any.

    Raises:
        UsageError: the key does not fit, or is none.
        StoreError: a byte was changed, added or taken away (the message names the file that it lies in), another
            key signed it, or it holds what a parcel may not hold: paths that leave the folder, links, devices.
    """
    import pyrage

    keys = read_identities(identity)
    unpacked = _Unpacker(into, signed_by)
    try:
        with path.open("rb") as file:
            pyrage.decrypt_io(file, unpacked, keys)
    except pyrage.DecryptError as error:
        if "matching keys" in str(error):
            raise UsageError(
                "The key does not open this file: it was written for others, or its head was altered.",
                remedy="Check --identity with the public key that you gave the sender.", file=path,
            ) from error  # fmt: skip
        raise StoreError("The head of the file was altered.", remedy=AGAIN, file=path) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise StoreError(f"The file was altered in {unpacked.place()}.", remedy=AGAIN, file=path) from error
    finally:
        unpacked.close()
    return unpacked.finish()


def _entry(folder: Path, path: Path) -> Entry:
    name = path.relative_to(folder).as_posix()
    if path.is_symlink() or not path.is_file() or not _plain(name):
        raise UsageError("A file of the share has no plain name, or is a link.", file=path)
    with path.open("rb") as file:
        return Entry(name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _plain(name: object) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST_PATH and _NAME.fullmatch(name) is not None


def _sealed_manifest(entries: Sequence[Entry], signer: Any) -> bytes:
    inner = {"format": FORMAT, "files": [{"name": e.name, "size": e.size, "sha256": e.sha256} for e in entries]}
    outer = {
        "manifest": inner,
        "signed_by": signer.public_key().public_bytes_raw().hex(),
        "signature": signer.sign(_canonical(inner)).hex(),
    }
    return (json.dumps(outer, indent=1) + "\n").encode()


def _canonical(inner: Mapping[str, Any]) -> bytes:
    return b"vesalius share\n" + json.dumps(inner, sort_keys=True, separators=(",", ":")).encode()


def _tar(folder: Path, entries: Sequence[Entry], manifest: bytes) -> Iterator[bytes]:
    """The bytes of the tar, piece by piece; no times, no owners."""
    yield _head(MANIFEST, len(manifest)) + manifest + b"\0" * (-len(manifest) % _BLOCK)
    for entry in entries:
        yield _head(entry.name, entry.size)
        with (folder / entry.name).open("rb") as file:
            left = entry.size
            while left:
                piece = file.read(min(left, CHUNK))
                if not piece:
                    raise StoreError("A file changed while it was shared.", remedy="Share again.")
                left -= len(piece)
                yield piece
        yield b"\0" * (-entry.size % _BLOCK)
    yield b"\0" * (2 * _BLOCK)


def _head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


class _Pulled:
    """Pieces of bytes as something that can be read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int = CHUNK) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        given, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return given


class _Hashing:
    """A file that is written to, with the hash and size of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


class _Unpacker:
    """Takes the bytes of a tar as they come and writes its files; refuses whatever the manifest does not list."""

    def __init__(self, into: Path, signed_by: str | None) -> None:
        self._into, self._wanted = into, signed_by
        self._buffer = bytearray()
        self._taken = 0
        self._manifest: Manifest | None = None
        self._next = 0
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._left = self._padding = self._zeros = 0

    def write(self, data: bytes) -> int:
        """Called with decrypted bytes that age has verified."""
        self._taken += len(data)
        self._buffer += data
        while self._step():
            continue
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the file that was being written, if any."""
        if self._file is not None:
            self._file.close()

    def place(self) -> str:
        """In which files the chunk lies that did not verify."""
        if self._manifest is None:
            return f"its beginning, {MANIFEST} or the first files"
        start = _BLOCK + self._size_of_manifest + -self._size_of_manifest % _BLOCK
        names = []
        for entry in self._manifest.files:
            end = start + _BLOCK + entry.size + -entry.size % _BLOCK
            if end > self._taken and start < self._taken + CHUNK:
                names.append(entry.name)
            start = end
        if not names:
            return "its end"
        return names[0] if len(names) == 1 else f"one of {len(names)} files from {names[0]} to {names[-1]}"

    def finish(self) -> Manifest:
        """The manifest, once every file has come.

        Raises:
            StoreError: files or the end are missing.
        """
        if self._manifest is None or self._file is not None or self._next < len(self._manifest.files):
            raise StoreError("Files are missing at the end of the share.", remedy=AGAIN)
        return self._manifest

    def _step(self) -> bool:
        """Work on what is at hand; whether there may be more to do at once."""
        if self._file is not None:
            return self._take_body()
        if self._padding:
            cut = min(self._padding, len(self._buffer))
            del self._buffer[:cut]
            self._padding -= cut
            return cut > 0 and bool(self._buffer)
        if self._manifest is None:
            return self._take_manifest()
        if len(self._buffer) < _BLOCK:
            return False
        block = bytes(self._buffer[:_BLOCK])
        del self._buffer[:_BLOCK]
        if not any(block):
            self._zeros += 1
        elif self._zeros or self._next >= len(self._manifest.files):
            raise StoreError("The share holds something that its manifest does not list.", remedy=AGAIN)
        else:
            self._begin(block)
        return True

    def _take_manifest(self) -> bool:
        if len(self._buffer) < _BLOCK:
            return False
        size = _size(bytes(self._buffer[:_BLOCK]), MANIFEST)
        if size > _LARGEST_MANIFEST:
            raise StoreError("The manifest of the share is far too large.", remedy=AGAIN)
        if len(self._buffer) < _BLOCK + size:
            return False
        self._manifest = _read_manifest(bytes(self._buffer[_BLOCK : _BLOCK + size]), self._wanted)
        self._size_of_manifest = size
        del self._buffer[: _BLOCK + size]
        self._padding = -size % _BLOCK
        return True

    def _begin(self, block: bytes) -> None:
        assert self._manifest is not None
        entry = self._manifest.files[self._next]
        if _size(block, entry.name) != entry.size:
            raise StoreError(f"The size of {entry.name} is not that of the manifest.", remedy=AGAIN)
        path = self._into / entry.name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = open(path, "xb", opener=private)  # noqa: SIM115
        self._left, self._digest = entry.size, hashlib.sha256()

    def _take_body(self) -> bool:
        assert self._file is not None and self._manifest is not None
        piece = self._buffer[: self._left]
        self._file.write(piece)
        self._digest.update(piece)
        self._left -= len(piece)
        del self._buffer[: len(piece)]
        if self._left:
            return False
        self._file.close()
        self._file = None
        entry = self._manifest.files[self._next]
        if self._digest.hexdigest() != entry.sha256:
            raise StoreError(f"The file {entry.name} is not what the manifest says.", remedy=AGAIN)
        self._next, self._padding = self._next + 1, -entry.size % _BLOCK
        return True


def _size(block: bytes, name: str) -> int:
    """The size of the plain file that a tar header announces, which must have this name."""
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise StoreError("The share is not built as one.", remedy=AGAIN) from error
    if info.type != tarfile.REGTYPE or info.name != name or info.size < 0:
        raise StoreError("The share holds something that its manifest does not list.", remedy=AGAIN)
    return info.size


def _read_manifest(data: bytes, wanted: str | None) -> Manifest:
    """Check signature, format and names."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        outer = json.loads(data)
        inner, signed_by = outer["manifest"], str(outer["signed_by"])
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed_by))
        key.verify(bytes.fromhex(outer["signature"]), _canonical(inner))
        entries = tuple(Entry(file["name"], int(file["size"]), str(file["sha256"])) for file in inner["files"])
        version = inner["format"]
    except InvalidSignature as error:
        raise StoreError("The signature of the manifest does not fit it.", remedy=AGAIN) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError("The manifest of the share cannot be read.", remedy=AGAIN) from error
    if version != FORMAT:
        raise StoreError(f"The share has format {version}; this program reads {FORMAT}.", remedy="Update Vesalius.")
    if wanted is not None and signed_by != wanted.lower():
        raise StoreError("The share was signed with another key than --signed-by.", remedy="Ask the sender.")
    names = [entry.name for entry in entries]
    folders = {parent.as_posix().lower() for name in names if _plain(name) for parent in PurePosixPath(name).parents}
    small = [str(name).lower() for name in names]
    if not all(map(_plain, names)) or len(set(small)) < len(small) or folders & set(small) or MANIFEST in small:
        raise StoreError("The share names files outside of it, or one twice.", remedy="Do not trust its sender.")
    return Manifest(entries, signed_by)
