"""vault: keep the pseudonym key encrypted, and turn a pseudonym back where that must be."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from vesalius.core.errors import UsageError
from vesalius.core.progress import Progress, Silent

_ACTIONS = ("init", "find", "rotate", "export")


@dataclass(frozen=True)
class VaultResult:
    """What a vault gave: sentences for the terminal of who opened it. They may name a patient."""

    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def vault(
    action: str,
    pseudonym: str | None = None,
    *,
    to: str | Path | None = None,
    key_file: str | Path | None = None,
    new_key_file: str | Path | None = None,
    new_passphrase: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> VaultResult:
    """Make, read, re-encrypt or write out the vault of this user; every opening is recorded in it.

    Args:
        action: "init" moves the pseudonym key into a new vault; "find" turns a pseudonym back; "rotate" changes
            the passphrase or key file and nothing else; "export" writes all patients as CSV.
        pseudonym: for "find".
        to: file for "export", readable by its owner only. It is as identified as a patient list.
        key_file: opens the vault instead of a passphrase (environment variable VESALIUS_PASSPHRASE, or asked for).
        new_key_file, new_passphrase: for "rotate".
        seed: taken for the sake of a common signature.
        progress: told what was done.

    Raises:
        UsageError: no such action, no vault, a wrong secret, or a pseudonym that the vault does not know.
    """
    from vesalius.privacy import vault as safe
    from vesalius.privacy.audit import own_signer
    from vesalius.privacy.pseudonyms import key_path, load_key

    if action not in _ACTIONS:
        raise UsageError(f"There is no vault {action}.", remedy=f"There are {', '.join(_ACTIONS)}.")
    path = safe.vault_path()
    secret = safe.Secret.of(Path(key_file) if key_file else None)
    if action == "init":
        (progress or Silent()).say(safe.NO_WAY_BACK)
        safe.init(path, secret, load_key())
        own_signer()  # from the key while it is there, so that other verbs can sign with the vault closed
        key_path().unlink(missing_ok=True)
        return _done(progress, "The pseudonym key is in the vault now, and no longer beside it.", safe.NO_WAY_BACK)
    if action == "rotate":
        if new_key_file is None and new_passphrase is None:
            raise UsageError("Nothing to change to.", remedy="Give --new-key-file FILE, or --new-passphrase.")
        new = safe.Secret.of(Path(new_key_file)) if new_key_file else safe.Secret((new_passphrase or "").encode())
        safe.rotate(path, secret, new)
        return _done(progress, "The vault opens with the new secret only; no pseudonym changed.", safe.NO_WAY_BACK)
    opened = safe.open_vault(path, secret, action if pseudonym is None else f"{action} {pseudonym}")
    if action == "find":
        if pseudonym in opened.forgotten:
            raise UsageError(f"The record of this patient was removed on {opened.forgotten[pseudonym]} (withdrawn).")
        if pseudonym not in opened.patients:
            raise UsageError("The vault does not know this pseudonym.", remedy="Check it, or look in another vault.")
        return _done(progress, f"{pseudonym} is {opened.patients[pseudonym]}")
    if to is None:
        raise UsageError("Nowhere to write to.", remedy="Give --to FILE.csv.")
    _write_csv(Path(to), opened.patients)
    return _done(progress, f"{len(opened.patients)} patients are in the file now. It names them: guard or delete it.")


def _write_csv(path: Path, patients: dict[str, str]) -> None:
    from vesalius.store.files import write_bytes

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["pseudonym", "patient"])
    writer.writerows(sorted(patients.items()))
    write_bytes(path, text.getvalue().encode(), mode=0o600)


def _done(progress: Progress | None, *sentences: str) -> VaultResult:
    (progress or Silent()).note(done=True)
    return VaultResult(sentences)
