"""receive: a share that somebody sent is verified and becomes a cohort."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.progress import Progress, Silent


@dataclass(frozen=True)
class NewKey:
    """A key that was made: the public part, which the sender needs."""

    public: str

    def __str__(self) -> str:
        return f"Give this to whoever shall share with you: {self.public}"


def receive(
    file: str | Path | None = None,
    *,
    into: str | Path | None = None,
    identity: str | Path | None = None,
    signed_by: str | None = None,
    new_identity: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Cohort | NewKey:
    """Decrypt a share, check every byte of it, and make a cohort of it in a new folder.

    The folder is there whole or not at all. A byte that was changed, added or taken away is detected, and the file
    that it lies in is named. Nothing in a share is trusted: paths that leave the folder, links, and databases that
    do more than hold rows are refused.

    Args:
        file: the share.
        into: a new folder, readable by its owner only.
        identity: file with the private key.
        signed_by: public key (hexadecimal) that must have signed the share, as the sender tells it by another way.
        new_identity: instead of all that, make a private key in this file.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told what came.

    Raises:
        UsageError: the key does not fit, or the folder exists.
        StoreError: the share was altered, or holds what it may not.
    """
    from vesalius.privacy import audit
    from vesalius.privacy.parcel import open_parcel
    from vesalius.privacy.recipients import new_identity as make
    from vesalius.store.cohort import open_cohort
    from vesalius.store.received import check_received, finish_received

    progress = progress or Silent()
    if new_identity is not None:
        key = NewKey(make(Path(new_identity)))
        progress.note(public_key=key.public, file=str(new_identity))
        return key
    if file is None or into is None or identity is None:
        raise UsageError(
            "Something is missing.", remedy="Write vesalius receive FILE --into FOLDER --identity KEYFILE."
        )
    parcel, folder = Path(file), Path(into)
    if not parcel.is_file():
        raise UsageError("This file does not exist.", remedy="Check its spelling.", file=parcel)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("This folder exists already.", remedy="Name a new one with --into.", file=folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.receiving-", dir=folder.parent))
    try:
        manifest = open_parcel(parcel, beside, Path(identity), signed_by=signed_by)
        check_received(beside, frozenset(entry.name for entry in manifest.files))
        finish_received(beside)
        audit.enter(beside, "receive", cases=len(open_cohort(beside)), figures={"files": len(manifest.files)})
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    study = open_cohort(folder)
    progress.note(
        cohort=str(folder), cases=len(study), patients=len(study.patients), files=len(manifest.files),
        signed_by=manifest.signed_by,
    )  # fmt: skip
    progress.say(
        f"{len(study)} cases of {len(study.patients)} patients in {folder}; {len(manifest.files)} files verified. "
        f"Signed with {manifest.signed_by}. See {folder / 'data_card.md'}."
    )
    return study
