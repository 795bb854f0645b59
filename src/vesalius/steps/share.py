"""share: a checked, minimised, encrypted copy of a cohort for somebody else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.progress import Progress, Silent

if TYPE_CHECKING:
    from vesalius.privacy.leaks import Leak
    from vesalius.privacy.minimise import Minimised, Plan

FACES = ("remove", "keep")
_SHOWN = 40


@dataclass(frozen=True)
class Shared:
    """A share that was written, or what it would be.

    Args:
        id: its name in the cohort's record; "" where nothing was written.
        file: the encrypted file, or None.
        figures: what the data card says.
        sentences: for the terminal.
    """

    id: str
    file: Path | None
    figures: dict[str, Any]
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def share(
    cohort: str | Path | Cohort,
    *,
    to: Sequence[str] = (),
    out: str | Path | None = None,
    minimise: str | Path | None = None,
    k: int | None = None,
    faces: str = "remove",
    accept: Sequence[str] = (),
    licence: str = "",
    what_if: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Shared:
    """Check a cohort once more, make its covariates coarse enough, and encrypt a copy of it for its recipients.

    The check is another reader than the de-identifier's (`privacy/leaks.py`). If it finds anything, nothing is
    written. The copy holds images, masks, findings, split and covariates; no file names, quarantine, audit trail,
    models or reports.

    Args:
        cohort: the cohort or its folder.
        to: public keys of the recipients (`age1...`), or files with one a line.
        out: the encrypted file; must not exist.
        minimise: TOML that says which covariates are quasi-identifying and how they are made coarser; without it
            every covariate is, and so is what DICOM headers tell of the patient.
        k: patients that must look alike (5, or as the TOML says); 1 leaves covariates as they are.
        faces: "remove" takes them out of MR and CT of the head, "keep" does not. Where any was taken out, a page for
            the owner alone, `<out>.private-faces.html`, shows it before and after (not of an encrypted cohort, whose
            pictures should not lie open on the disk).
        accept: kinds of what the check finds that are known to be harmless here; the data card names them.
        licence: of the data, for the data card.
        what_if: check and search, and write nothing.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told how far the work is.

    Raises:
        UsageError: something was found, k cannot be reached, or there is nobody to share with.
        StoreError: there is no cohort.
    """
    from vesalius.privacy import audit
    from vesalius.privacy.minimise import load_plan
    from vesalius.privacy.recipients import read_recipients

    progress = progress or Silent()
    folder = cohort.folder if isinstance(cohort, Cohort) else Path(cohort)
    if faces not in FACES:
        raise UsageError("--faces is remove or keep.")
    if k is not None and k < 1:
        raise UsageError("-k is 1 or more.")
    target = Path(out) if out is not None else None
    recipients = [] if what_if else read_recipients(to)
    if not what_if:
        _check_target(target, folder)
    plan = load_plan(_text(minimise), k=k)
    leaks = _check(folder, set(accept), progress)
    minimised = _minimised(folder, plan)
    progress.note(cohort=str(folder), found=[], minimised=minimised.as_json())
    if what_if or target is None:
        figures = {"minimised": minimised.as_json()}
        return Shared("", None, figures, (*_sentences(minimised), "Nothing was written."))
    audit.enter(folder, "share", cases=len(minimised.values), figures={"recipients": len(recipients)})
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.sharing-", dir=_parent(target)))
    try:
        return _write(folder, target, work, recipients, minimised, faces, leaks, licence, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(
    folder: Path,
    target: Path,
    work: Path,
    recipients: Sequence[str],
    minimised: Minimised,
    faces: str,
    accepted: Sequence[Leak],
    licence: str,
    progress: Progress,
) -> Shared:
    from datetime import UTC, datetime

    from vesalius.privacy import audit
    from vesalius.privacy.data_card import write_card
    from vesalius.privacy.leaks import leaks_in, owners_knowledge
    from vesalius.privacy.parcel import write_parcel
    from vesalius.privacy.share_copy import copy_cohort
    from vesalius.reporting.face_page import FaceAlbum, write_face_page
    from vesalius.store.sealed import opened_cohort, seal_of
    from vesalius.store.shares import put_share

    album = FaceAlbum()
    with opened_cohort(folder) as plain:
        copied = copy_cohort(plain, work / "copy", minimised, progress, remove_faces=faces == "remove", seen=album.take)
    figures = write_card(
        work / "copy",
        copied,
        minimised,
        faces=faces,
        accepted=sorted({leak.kind for leak in accepted}),
        licence=licence,
    )
    known = owners_knowledge(folder, *_key_and_originals())
    left = [
        leak for leak in leaks_in(work / "copy", known, progress, pixels=False) if leak.kind not in _kinds(accepted)
    ]
    if left:
        raise _refusal(left, folder)
    _drop_empty(work / "copy")
    sealed = write_parcel(work / "copy", work / "parcel", recipients, audit.own_signer())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    name = put_share(folder, sealed.sha256, now, recipients, copied.patients)
    (work / "parcel").replace(target)
    page = None
    if album.views and seal_of(folder) is None:
        page = write_face_page(faces_beside(target), album, copied.faces, copied.left_out)
    signed_by = audit.own_public_key()
    progress.note(share=name, file=str(target), sha256=sealed.sha256, bytes=sealed.size, signed_by=signed_by, **figures)
    if page is not None:
        progress.note(faces_page=str(page))
    sentences = (
        *_sentences(minimised),
        f"{copied.images} images of {len(copied.patients)} patients"
        + (f", {copied.defaced} without their face" if copied.defaced else "")
        + (f"; {copied.left_out} left out" if copied.left_out else "")
        + f", for {len(recipients)} recipients: {target}",
        *([f"Faces before and after, for your eyes only: {page}"] if page is not None else []),
        f"Signed with {signed_by}; tell it to the recipients by another way, for --signed-by.",
        f"Remembered as {name}. Pseudonymised (GDPR Art. 4(5)), not anonymous.",
    )
    return Shared(name, target, {**figures, "sha256": sealed.sha256}, sentences)


def _check(folder: Path, accept: set[str], progress: Progress) -> list[Leak]:
    """What was found and is accepted.

    Raises:
        UsageError: anything else was found.
    """
    from vesalius.privacy import audit
    from vesalius.privacy.leaks import leaks_in, owners_knowledge
    from vesalius.store.cohort import open_cohort
    from vesalius.store.sealed import opened_cohort

    study = open_cohort(folder)
    if not len(study):
        raise UsageError("The cohort is empty.", remedy="Ingest images first.", file=folder)
    known = owners_knowledge(folder, *_key_and_originals())
    with opened_cohort(folder) as plain:
        found = leaks_in(plain, known, progress)
    refused = [leak for leak in found if leak.kind not in accept]
    if refused:
        progress.note(cohort=str(folder), found=[{"place": leak.place, "kind": leak.kind} for leak in refused])
        audit.enter(folder, "share refused", cases=len(study), figures={"found": len(refused)})
        raise _refusal(refused, folder)
    return found


def _refusal(found: Sequence[Leak], folder: Path) -> UsageError:
    lines = "".join(f"\n  {leak}" for leak in found[:_SHOWN])
    more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return UsageError(
        f"The cohort is not shared: {len(found)} places hold what may identify.{lines}{more}\n",
        remedy="Ingest these again with a tighter profile, or name kinds that are harmless here with --accept.",
        file=folder,
    )


def _key_and_originals() -> tuple[Any, frozenset[str]]:
    """The keyed pseudonyms, and the identified keys of patients, as far as this user has them."""
    from vesalius.privacy.pseudonyms import Pseudonyms, key_path, load_key
    from vesalius.privacy.vault import Secret, open_vault, vault_path

    if vault_path().exists():
        vault = open_vault(vault_path(), Secret.of(None), "share")
        return Pseudonyms(vault.key), frozenset(vault.patients.values())
    return (Pseudonyms(load_key()) if key_path().exists() else None), frozenset()


def _minimised(folder: Path, plan: Plan) -> Minimised:
    from vesalius.privacy.minimise import minimise
    from vesalius.privacy.share_copy import header_covariates
    from vesalius.store.cohort import open_cohort

    told = header_covariates(folder)
    return minimise(
        [(case.id, case.patient, {**case.covariates, **told.get(case.id, {})}) for case in open_cohort(folder)], plan
    )


def _sentences(minimised: Minimised) -> list[str]:
    told = minimised.as_json()
    lines = [f"k-anonymity {told['k_before']} before, {told['k']} now ({told['patients']} patients)."]
    lines += [
        f"l-diversity of {name}: {told['l_before'][name]} before, {value} now." for name, value in told["l"].items()
    ]
    lines += [f"  {name}: {title}" for name, title in told["quasi_identifiers"].items()]
    if told["patients_suppressed"]:
        lines.append(f"  all of these left out for {told['patients_suppressed']} patients")
    return lines


def faces_beside(target: Path) -> Path:
    """Where the owner's page with the faces before and after stands: beside the encrypted file, never in it."""
    return target.with_name(f"{target.name}.private-faces.html")


def _check_target(target: Path | None, folder: Path) -> None:
    if target is None:
        raise UsageError("There is no file to write to.", remedy="Give --out FILE.")
    for place in (target, faces_beside(target)):
        if place.exists():
            raise UsageError("This file exists already.", remedy="Name another with --out.", file=place)
    if folder.resolve() in target.resolve().parents:
        raise UsageError("The share would lie inside the cohort.", remedy="Name another place with --out.", file=target)


def _text(path: str | Path | None) -> str:
    if path is None:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("The file of covariates cannot be read.", file=path) from error


def _parent(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.parent


def _kinds(leaks: Sequence[Leak]) -> set[str]:
    return {leak.kind for leak in leaks}


def _drop_empty(folder: Path) -> None:
    """Empty folders do not travel."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
