"""The vault: one encrypted file, outside every cohort, that turns a pseudonym back into a patient.

AES-256-GCM (NIST SP 800-38D) over the pseudonym key, the patients, and the record of every opening. The key of
the file comes from a passphrase by scrypt (RFC 7914) or from a key file. Who loses both passphrase and key file
can recover nothing; nothing here keeps a second way in.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vesalius.core.errors import UsageError
from vesalius.store.files import write_bytes

_MAGIC = b"VESALIUS VAULT 1\n"
_SCRYPT = {"n": 2**17, "r": 8, "p": 1}  # 128 MiB and about half a second per guess
NO_WAY_BACK = (
    "Keep the passphrase or key file in a safe place: without it no pseudonym can be turned back, and nothing "
    "can be recovered."
)


@dataclass(frozen=True)
class Secret:
    """What opens a vault: a passphrase, or the bytes of a key file. Its representation shows neither."""

    value: bytes = field(repr=False)
    from_file: bool = False

    @classmethod
    def of(cls, key_file: Path | None) -> Secret:
        """From a key file (also VESALIUS_KEY_FILE), the variable VESALIUS_PASSPHRASE, or a question on a terminal.

        Raises:
            UsageError: there is none of them, or the key file is shorter than 32 bytes.
        """
        key_file = key_file or (Path(os.environ["VESALIUS_KEY_FILE"]) if "VESALIUS_KEY_FILE" in os.environ else None)
        if key_file is not None:
            data = key_file.read_bytes() if key_file.is_file() else b""
            if len(data) < 32:
                raise UsageError("A key file holds 32 random bytes or more.", file=key_file)
            return cls(data, True)
        if phrase := os.environ.get("VESALIUS_PASSPHRASE", ""):
            return cls(phrase.encode())
        if not os.isatty(0):
            raise UsageError(
                "The vault needs a passphrase.", remedy="Set VESALIUS_PASSPHRASE, or give --key-file FILE."
            )
        return cls(getpass.getpass("Passphrase of the vault: ").encode())


@dataclass
class Vault:
    """An opened vault.

    Args:
        key: the pseudonym key.
        patients: pseudonym to identified patient key.
        openings: when, by whom and what for the vault was opened.
        forgotten: pseudonym of each withdrawn patient, and when the record was removed.
    """

    key: bytes = field(repr=False)
    patients: dict[str, str] = field(default_factory=dict, repr=False)
    openings: list[dict[str, str]] = field(default_factory=list)
    forgotten: dict[str, str] = field(default_factory=dict)


def vault_path() -> Path:
    """Where the vault of this user stands."""
    from platformdirs import user_data_path

    return user_data_path("vesalius") / "vault.bin"


def init(path: Path, secret: Secret, key: bytes) -> None:
    """Make a vault around a pseudonym key.

    Raises:
        UsageError: there is one already, or the passphrase is shorter than 12 characters.
    """
    if path.exists():
        raise UsageError("There is a vault already.", remedy="Change its passphrase with `vesalius vault rotate`.")
    _check(secret)
    _write(path, secret, Vault(key))


def open_vault(path: Path, secret: Secret, why: str) -> Vault:
    """Open a vault; the opening is recorded in it before anything is given out.

    Raises:
        UsageError: there is no vault, the secret is wrong, or a byte of the file was changed.
    """
    with _opened(path, secret, why) as vault:
        return vault


def remember(path: Path, secret: Secret, patients: Mapping[str, str]) -> None:
    """Add patients (pseudonym to identified key)."""
    with _opened(path, secret, "ingest") as vault:
        vault.patients.update(patients)
        for pseudonym in patients:
            vault.forgotten.pop(pseudonym, None)


def remember_where_kept(patients: Mapping[str, str]) -> None:
    """`remember`, where this user has a vault."""
    if patients and vault_path().exists():
        remember(vault_path(), Secret.of(None), patients)


def forget(path: Path, secret: Secret, pseudonym: str) -> None:
    """Remove the record of a withdrawn patient, with a remark that it was there."""
    with _opened(path, secret, f"forget {pseudonym}") as vault:
        vault.patients.pop(pseudonym, None)
        vault.forgotten.setdefault(pseudonym, _now())


def forget_where_kept(pseudonym: str) -> None:
    """`forget`, where this user has a vault."""
    if vault_path().exists():
        forget(vault_path(), Secret.of(None), pseudonym)


def rotate(path: Path, old: Secret, new: Secret) -> None:
    """Change the passphrase or key file; the pseudonym key and so every pseudonym stay."""
    _check(new)
    with _alone(path):
        vault = _read(path, old)
        _write(path, new, _noted(vault, "rotate"))


@contextmanager
def _opened(path: Path, secret: Secret, why: str) -> Iterator[Vault]:
    """The vault, with this opening written into it before it is given out, and its changes written afterwards."""
    with _alone(path):
        vault = _noted(_read(path, secret), why)
        _write(path, secret, vault)
        before = _content(vault)
        yield vault
        if _content(vault) != before:
            _write(path, secret, vault)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process opens the vault meanwhile, so that no opening is lost from the record (POSIX only)."""
    if os.name != "posix" or not path.parent.is_dir():
        yield
        return
    import fcntl

    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _noted(vault: Vault, why: str) -> Vault:
    vault.openings.append({"time": _now(), "who": getpass.getuser(), "why": why})
    return vault


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _content(vault: Vault) -> bytes:
    content = {
        "key": vault.key.hex(), "patients": vault.patients, "openings": vault.openings, "forgotten": vault.forgotten,
    }  # fmt: skip
    return json.dumps(content).encode()


def _check(secret: Secret) -> None:
    if not secret.from_file and len(secret.value.decode(errors="replace")) < 12:
        raise UsageError("This passphrase is too short.", remedy="Take 12 characters or more, such as four words.")


def _write(path: Path, secret: Secret, vault: Vault) -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header: dict[str, Any] = {
        "salt": secrets.token_hex(16),
        "nonce": secrets.token_hex(12),
        "key_file": secret.from_file,
        "whole": secret.from_file,
        **_SCRYPT,
    }
    bound = json.dumps(header, sort_keys=True).encode()
    cipher = AESGCM(_file_key(secret, header))
    sealed = cipher.encrypt(bytes.fromhex(str(header["nonce"])), _content(vault), _MAGIC + bound)
    line = json.dumps({**header, "check": _check_sum(bound, sealed)}, sort_keys=True).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_bytes(path, _MAGIC + line + sealed, mode=0o600)


def _check_sum(bound: bytes, sealed: bytes) -> str:
    """Tells damage from a wrong passphrase; against malice stands the cipher's own tag."""
    return hashlib.sha256(_MAGIC + bound + sealed).hexdigest()


def _read(path: Path, secret: Secret) -> Vault:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not path.is_file():
        raise UsageError("There is no vault.", remedy="Make one with `vesalius vault init`.", file=path)
    data = path.read_bytes()
    line, _, sealed = data[len(_MAGIC) :].partition(b"\n")
    try:
        if not data.startswith(_MAGIC):
            raise ValueError("another file")
        header = json.loads(line)
        check = header.pop("check", None)
        bound = (
            json.dumps(header, sort_keys=True).encode() if check else line + b"\n"
        )  # without: as version 0.1 wrote it
        if check is not None and check != _check_sum(bound, sealed):
            raise ValueError("changed")
        cipher = AESGCM(_file_key(secret, header))
        opened = cipher.decrypt(bytes.fromhex(str(header["nonce"])), sealed, _MAGIC + bound)
    except InvalidTag as error:
        raise UsageError(
            "The vault does not open: the passphrase or key file is wrong.",
            remedy="Try again, or restore the file from a copy.", file=path,
        ) from error  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "The vault's file was changed: a byte of it is not what was written.",
            remedy="Restore it from a copy.", file=path,
        ) from error  # fmt: skip
    content = json.loads(opened)
    key, patients, openings = bytes.fromhex(content["key"]), content["patients"], content["openings"]
    return Vault(key, patients, openings, content.get("forgotten", {}))


def _file_key(secret: Secret, header: Mapping[str, Any]) -> bytes:
    salt = bytes.fromhex(str(header["salt"]))
    if header["key_file"]:
        # Files of keys may all begin alike; only vaults of earlier versions went by the beginning alone.
        told = secret.value if header.get("whole") else secret.value[:64]
        return hashlib.blake2b(told, key=salt, digest_size=32, person=b"vault key file").digest()
    n, r, p = (int(header[name]) for name in ("n", "r", "p"))
    if n > 2**20 or r > 32 or p > 16:
        raise ValueError("absurd cost")
    return hashlib.scrypt(secret.value, salt=salt, n=n, r=r, p=p, dklen=32, maxmem=2**30)
