"""What is settled before scans come in: whether the cohort is encrypted, and which withdrawn patients may return."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vesalius.core.errors import UsageError
from vesalius.core.progress import Progress
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.privacy.vault import vault_path
from vesalius.store import erase
from vesalius.store.database import transaction
from vesalius.store.sealed import ENCRYPTION, new_encryption, seal_of

NO_WAY_BACK = (
    "Images, labels and cache of this cohort are encrypted. Who loses the key can recover nothing: keep a copy of it."
)


def protect(folder: Path, key: bytes, encrypt: bool, progress: Progress) -> None:
    """Begin to encrypt an empty cohort where that is asked for, and see that the key fits one that is encrypted.

    Raises:
        UsageError: the cohort holds images that are not encrypted.
        StoreError: it is encrypted with another key.
    """
    seal = seal_of(folder)
    if seal is None and encrypt:
        with transaction(folder) as connection:
            if connection.execute("SELECT COUNT(*) FROM cases").fetchone()[0]:
                raise UsageError(
                    "This cohort holds images that are not encrypted.",
                    remedy="Ingest into a new folder with --encrypt, then delete this one.", file=folder,
                )  # fmt: skip
            connection.execute("INSERT INTO meta VALUES (?, ?)", (ENCRYPTION, new_encryption(key)))
        progress.say(NO_WAY_BACK)
        if not vault_path().exists():
            progress.say("The key lies unprotected in your data folder; `vesalius vault init` puts it into a vault.")
        seal = seal_of(folder)
    if seal is not None:
        seal.lock()


def let_in_again(folder: Path, pseudonyms: Pseudonyms, patients: Sequence[str]) -> int:
    """Take away the tombstones of patients, by identifier or pseudonym; how many.

    Raises:
        UsageError: one of them was not withdrawn.
    """
    for given in patients:
        if not any(erase.readmit(folder, one) for one in (given.strip(), pseudonyms.patient(given.strip()))):
            raise UsageError("One of the patients of --readmit was not withdrawn.", remedy="Check the identifier.")
    return len(patients)
