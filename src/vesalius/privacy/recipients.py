"""The keys of who may read a share: X25519 key pairs as age writes them, through pyrage."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vesalius.core.errors import UsageError

_LARGEST_FILE = 1 << 16
_MAKE_KEY = "Make one with `vesalius receive --new-identity FILE`, or with age-keygen."


def new_identity(path: Path) -> str:
    """Make a key file as age-keygen does, readable by its owner only; the public key.

    Raises:
        UsageError: the file exists.
    """
    import pyrage

    key = pyrage.x25519.Identity.generate()
    public = str(key.to_public())
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", opener=private) as file:
            file.write(f"# public key: {public}\n{key}\n")
    except FileExistsError as error:
        raise UsageError("This file exists already.", remedy="Name another for the new key.", file=path) from error
    return public


def read_identities(path: Path) -> list[Any]:
    """The private keys of a key file.

    Raises:
        UsageError: it cannot be read or holds none.
    """
    import pyrage

    try:
        text = path.read_text("ascii") if path.stat().st_size < _LARGEST_FILE else ""
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        keys = [pyrage.x25519.Identity.from_str(line) for line in lines]
    except (OSError, UnicodeDecodeError, pyrage.IdentityError) as error:
        raise UsageError("The key file cannot be read.", remedy=_MAKE_KEY, file=path) from error
    if not keys:
        raise UsageError("The file holds no private key.", remedy=_MAKE_KEY, file=path)
    return keys


def read_recipients(given: Sequence[str]) -> list[str]:
    """Public keys, each given as such or as a file with one a line, checked; without doubles, in order.

    Raises:
        UsageError: there is none, or one is neither a key nor a file of keys.
    """
    found: list[str] = []
    for text in given:
        path = Path(text)
        if not text.startswith("age1") and path.is_file():
            lines = path.read_text("utf-8", errors="replace").splitlines()
            found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        else:
            found.append(text.strip())
    if not found:
        raise UsageError("There is nobody to share with.", remedy="Give --to and a recipient's public key, age1....")
    return list(dict.fromkeys(str(recipient(text)) for text in found))


def recipient(text: str) -> Any:
    """A public key that was checked.

    Raises:
        UsageError: it is none.
    """
    import pyrage

    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise UsageError(
            "This is no public key of a recipient.",
            remedy="It begins with age1 and comes from `vesalius receive --new-identity` or age-keygen.",
        ) from error


def private(path: str, flags: int) -> int:
    """An `opener` for `open`: a new file that only its owner can read."""
    return os.open(path, flags, 0o600)
