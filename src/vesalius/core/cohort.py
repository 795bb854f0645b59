"""The cases of a study and their patient-level split: the only thing that can be learned from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vesalius.core.case import Case
from vesalius.core.errors import PatientOverlap
from vesalius.core.finding import Code

TEST = "test"
TRAIN = "train"


@dataclass(frozen=True)
class Split:
    """Which patients are learned from and which are measured on, drawn once and stored.

    Args:
        parts: patient to "train" or "test".
        folds: training patient to fold number (0-based) for cross-validation.
        given: True where a file or column fixed it; near-duplicates are then kept and counted.
        how: one sentence on how it came about.
        duplicates: pairs of case ids that look alike (one of each pair stands in another part or patient).
    """

    parts: Mapping[str, str]
    folds: Mapping[str, int]
    given: bool
    how: str
    duplicates: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        wrong = set(self.parts.values()) - {TRAIN, TEST}
        if wrong:
            raise ValueError(f"a split has the parts train and test only, not {sorted(wrong)}")
        stray = [patient for patient in self.folds if self.parts.get(patient) != TRAIN]
        if stray:
            raise PatientOverlap("Patients with a fold must belong to the training part.")


@dataclass(frozen=True)
class Label:
    """One class of the cohort's masks: the voxel value, its name, and its code where one is known."""

    value: int
    name: str
    code: Code | None = None


@dataclass(frozen=True)
class Cohort:
    """De-identified cases, their split and what their masks mean.

    Args:
        name: the study's name.
        folder: where the store keeps it; fitted rivals, models and reports have their place there.
        cases: every case, ordered by id.
        split: drawn or given; None until `split` or `fit` draws it.
        labels: the classes of masks, by rising value; background 0 is not listed.
        ignore: mask value left out of loss and scores, or None.
        digest: content hash of images and truth, so that a card can say what was learned from.
    """

    name: str
    folder: Path
    cases: tuple[Case, ...]
    split: Split | None = None
    labels: tuple[Label, ...] = ()
    ignore: int | None = None
    digest: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def patients(self) -> tuple[str, ...]:
        """Pseudonyms of all patients, sorted."""
        return tuple(sorted({case.patient for case in self.cases}))

    def part(self, part: str) -> tuple[Case, ...]:
        """The cases of one part of the split ("train" or "test"); none before a split is drawn."""
        if self.split is None:
            return ()
        return tuple(case for case in self.cases if self.split.parts.get(case.patient) == part)
