"""privacy-check: identifiers are planted into real DICOM files, the door is run, another reader scores it."""

from __future__ import annotations

import secrets
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.progress import Progress, Silent

if TYPE_CHECKING:
    from vesalius.privacy.scoring import Scores


@dataclass(frozen=True)
class PrivacyCheck:
    """What came out of a plant.

    Args:
        files: how many files were planted.
        right, total: checks that hold, and all, by action.
        failures: a sentence for each check that does not hold.
        found: (file, what) wherever the byte search found something planted.
    """

    files: int
    right: dict[str, int]
    total: dict[str, int]
    failures: list[str] = field(default_factory=list)
    found: list[tuple[str, str]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check holds and nothing planted was found."""
        return not self.failures and not self.found

    def __str__(self) -> str:
        lines = [f"{'action':<24} {'right':>6} {'of':>6}   share"]
        for action, total in self.total.items():
            share = f"{100 * self.right[action] / total:.2f} %" if total else "-"
            lines.append(f"{action:<24} {self.right[action]:>6} {total:>6}   {share:>8}")
        right, total = sum(self.right.values()), sum(self.total.values())
        lines.append(f"{'all':<24} {right:>6} {total:>6}   {100 * right / max(total, 1):.2f} %")
        lines += self.failures
        lines += [f"found in {place}: {what}" for place, what in self.found]
        verdict = "Every check holds." if self.passed else "Not every check holds: do not rely on this door."
        return "\n".join([*lines, f"{self.files} files of invented patients. {verdict}"])

    def as_json(self) -> dict[str, Any]:
        """The table as plain values."""
        return {"files": self.files, "right": self.right, "total": self.total, "passed": self.passed,
                "failures": self.failures, "found": [list(one) for one in self.found]}  # fmt: skip


def privacy_check(
    *,
    patients: int = 9,
    profile: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> PrivacyCheck:
    """Plant identifiers into every place of real DICOM files, run the door, and score the ten actions.

    The files are those that pydicom ships: images, reports, plans, outlines and waveforms; the patients are invented
    in nine languages.

    Args:
        patients: how many patients; each brings two images.
        profile: TOML of the site whose profile is checked.
        seed: another seed plants other identifiers into other places.
        progress: told how far the work is.

    Raises:
        UsageError: there are no patients to plant.
    """
    from vesalius.privacy.planting_files import plant, plant_others
    from vesalius.privacy.scoring import score, search_bytes

    if patients < 1:
        raise UsageError("There is nothing to plant.", remedy="Ask for one patient or more.")
    progress = progress or Silent()
    with tempfile.TemporaryDirectory(prefix="vesalius-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        key = plant(folder / "in", seed, patients)
        plant_others(folder / "in", seed, key)
        _through_the_door(folder, profile, progress)
        scores = score(key, folder / "cohort" / "images")
        found = search_bytes(folder / "cohort", key.forbidden)
    result = PrivacyCheck(len(key.originals), scores.right, scores.total, _sentences(scores), found)
    progress.note(**result.as_json())
    return result


def _through_the_door(folder: Path, profile: str | Path | None, progress: Progress) -> None:
    """As `ingest` does it, with a key of its own; what roles would leave out comes in too, to be scored."""
    from vesalius.formats.find import find_scans
    from vesalius.formats.roles import DEFAULT_RULES, load_rules
    from vesalius.formats.scan import Companion, Scan
    from vesalius.privacy.door import Door
    from vesalius.privacy.passage import Reception, admit_all
    from vesalius.privacy.pseudonyms import KEY_BYTES, Pseudonyms
    from vesalius.store.database import create, held

    cohort = folder / "cohort"
    create(cohort, "privacy check")
    door = Door(cohort, Pseudonyms(secrets.token_bytes(KEY_BYTES)), _chosen(profile))
    rules = load_rules(DEFAULT_RULES)
    scans = progress.track(find_scans(folder / "in"), "Bringing planted scans in")
    found = (
        (
            scan,
            (rules.role(scan) if isinstance(scan, Scan) else "").replace("ignore", "image"),
            scan.patient,
            scan.study,
        )
        for scan in scans
        if isinstance(scan, (Scan, Companion))
    )
    reception = Reception(door, progress, Counter(), Counter())
    with held(cohort):
        for arrival, outcome in admit_all(door, reception.usable(found), 1):
            if isinstance(outcome, UnusableInput):
                reception.set_aside(arrival.scan.name, outcome)


def _chosen(profile: str | Path | None) -> Any:
    from vesalius.privacy.site import load_profile

    return load_profile(Path(profile).read_text(encoding="utf-8") if profile is not None else "")


def _sentences(scores: Scores) -> list[str]:
    failed = [
        f"  {check.action}: file {check.number}, {check.where or 'anywhere'}: {check.value} {check.note}".rstrip()
        for check in scores.failures
        if check.number not in scores.missing
    ]
    return failed + [f"  file {number} did not come out" for number in scores.missing]
