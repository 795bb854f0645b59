"""forget: a patient withdraws; nothing of the patient stays in the cohort, and what was made of it is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.identity import seen_hash
from vesalius.core.progress import Progress, Silent


@dataclass(frozen=True)
class Forgotten:
    """What was removed, and what cannot be removed from here.

    Args:
        patient: the pseudonym, which stays as a tombstone.
        cases, images: how many were removed.
        rivals, reports: names of what was removed with them.
        models: folders of the models that have learned from the patient.
        shares: the parcels that the patient's data went into, as the cohort remembers them.
    """

    patient: str
    cases: int
    images: int
    rivals: tuple[str, ...]
    reports: tuple[str, ...]
    models: tuple[str, ...]
    shares: tuple[dict[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{self.patient}: {self.cases} cases with {self.images} images are gone."]
        lines += [f"removed  {name}" for name in (*self.rivals, *self.reports)]
        lines += [f"has learned from the patient, and still has what it learned: {model}" for model in self.models]
        lines += [f"was shared: {', '.join(f'{key} {text}' for key, text in one.items())}" for one in self.shares]
        if self.models:
            lines.append(
                "Fit these models again and delete the old ones; weights cannot be told to forget one patient."
            )
        if self.shares:
            lines.append("Tell the recipients of these parcels to delete the patient too.")
        return "\n".join(lines)


def forget(
    cohort: str | Path | Cohort,
    patient: str,
    *,
    models: Sequence[str | Path] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Forgotten:
    """Remove a withdrawn patient from a cohort, and name the models and shares that were made with the patient.

    Images, labels, rows, cache, unfinished fits, rivals that keep images of the patient, and reports that show
    cases of the patient go. What stays is the keyed pseudonym, so that `ingest` refuses the patient; the
    record of the patient is removed from the vault. It may be run again, and must be where it was interrupted.

    Args:
        cohort: the cohort or its folder. Nothing else may be working on it.
        patient: the identifier as the hospital has it (where a header had none, "NAME|BIRTHDATE"; where there
            was no header, the file's name without suffix or the table's entry), or the pseudonym.
        models: folders to search for models besides the cohort's own.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told what was done.

    Raises:
        UsageError: the cohort has no such patient, or the key is not here.
        StoreError: something of the patient could not be removed; the file is named.
    """
    from vesalius.privacy.audit import record
    from vesalius.privacy.pseudonyms import existing_key
    from vesalius.privacy.vault import forget_where_kept
    from vesalius.store import erase

    progress = progress or Silent()
    folder = cohort.folder if isinstance(cohort, Cohort) else Path(cohort)
    key = existing_key()
    pseudonym = _looked_up(folder, patient.strip(), key)
    roots = [Path(root) for root in models]
    for root in roots:
        if not root.exists():
            raise UsageError("This folder of models does not exist.", remedy="Check its spelling.", file=root)
    erase.bury(folder, pseudonym)
    found = erase.belongings(folder, pseudonym)
    learned = tuple(str(path) for path in _models_of([folder / "models", *roots], pseudonym))
    shares = tuple(erase.shares_of(folder, pseudonym))
    erase.erase_files(folder, found)
    erase.erase_disposable(folder)
    rivals = tuple(erase.erase_rivals(folder, found))
    reports = tuple(erase.erase_reports(folder, found))
    erase.erase_rows(folder, found)
    erase.compact(folder)
    erase.check_gone(folder, found)
    figures = {"images": len(found.images), "reports": len(reports), "models": len(learned), "shares": len(shares)}
    record(folder, key, "forget", cases=len(found.cases), figures=figures)
    forget_where_kept(pseudonym)
    result = Forgotten(pseudonym, len(found.cases), len(found.images), rivals, reports, learned, shares)
    progress.note(
        cohort=str(folder), patient=pseudonym, cases=result.cases, images=result.images, rivals=list(rivals),
        reports=list(reports), models=list(learned), shares=list(shares),
    )  # fmt: skip
    progress.say(
        "Copies elsewhere are not known here: exports, predictions, reports and models in other folders, other "
        "cohorts, and backups of this one."
    )
    return result


def _looked_up(folder: Path, given: str, key: bytes) -> str:
    """The pseudonym of a patient who is in the cohort, or was before.

    Raises:
        UsageError: nobody here has this identifier or pseudonym.
    """
    from vesalius.privacy.pseudonyms import Pseudonyms
    from vesalius.store.cohort import open_cohort
    from vesalius.store.erase import forgotten

    known = {*open_cohort(folder).patients, *forgotten(folder)}
    for candidate in (given, Pseudonyms(key).patient(given)):
        if candidate in known:
            return candidate
    raise UsageError(
        "Nobody in this cohort has this identifier or pseudonym; nothing was removed.",
        remedy="Give PatientID as the hospital writes it, or the pseudonym; `vesalius vault export` lists both.",
        file=folder,
    )


def _models_of(roots: Sequence[Path], patient: str) -> Iterator[Path]:
    """Folders of the bundles whose card lists the patient among those seen."""
    wanted = seen_hash(patient)
    for path in sorted({path.resolve() for root in roots for path in root.rglob("card.json")}):
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            seen = card.get("patients_seen") or ()
        except (OSError, ValueError, AttributeError):
            continue  # some other program's card
        if wanted in seen:
            yield path.parent
