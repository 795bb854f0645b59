"""The questions and what answers them. `Task` is the only point of polymorphism."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.finding import Finding
from vesalius.core.grid import Array
from vesalius.core.image import Image
from vesalius.core.progress import Progress
from vesalius.core.report import Metric, Picture, Plot, Score, Table

RESEARCH_ONLY = "Research use only. Not a medical device; not for diagnosis or treatment."


@dataclass(frozen=True)
class Prediction:
    """An answer about one case.

    Args:
        findings: statements; empty where the answer is only a label map.
        label_map: (i, j, k) integers on the first input's own grid, or None.
        status: "ok", or one sentence on why there is no answer.
        details: what else the model says, as plain values.
    """

    findings: tuple[Finding, ...] = ()
    label_map: Array | None = None
    status: str = "ok"
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """What learning leaves: the bundle's files, its part of the card, and the curve of the training."""

    files: dict[str, bytes]
    card: dict[str, Any]
    curve: Plot


class Model(Protocol):
    """What answers: a fitted bundle, a rival, or an object of a user's own."""

    @property
    def card(self) -> Mapping[str, Any]:
        """What the model is, how it came about, and what it may be used for."""
        ...

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Answer for one case from its input images, in the order of the card's inputs.

        Raises:
            UnusableInput: these images cannot be answered for.
        """
        ...


@runtime_checkable
class Rival(Protocol):
    """A hand-designed algorithm fitted on the training part and scored by the same code as the model."""

    @property
    def name(self) -> str:
        """What reports call it, such as "multi-atlas segmentation"."""
        ...

    def fit(self, cases: Sequence[Case], cohort: Cohort, inputs: Sequence[str]) -> Model:
        """Prepare on training cases; what it keeps of patients stays inside the cohort's folder."""
        ...


class Task(Protocol):
    """What is asked of a cohort. Returns figures as data, so that reporting never branches by task."""

    name: str
    primary: str  # the measure that headlines, such as "dice"

    def problems(self, cohort: Cohort) -> list[str]:
        """Everything that keeps this cohort from answering the question, each with its remedy."""
        ...

    def usable(self, case: Case) -> bool:
        """Whether the truth of a case answers the question, so that it can be learned from and measured on."""
        ...

    def default_inputs(self, cohort: Cohort) -> tuple[str, ...]:
        """Roles of the images that a model takes where the user names none; empty: every image of a case."""
        ...

    def card(self, cohort: Cohort) -> dict[str, Any]:
        """What a model's card says of the question: its classes, its target."""
        ...

    def learn(self, cohort: Cohort, train: Sequence[Case], settings: Any, work: Path, progress: Progress) -> Fitted:
        """Fit a model within the budget of `settings` (`learning.study.FitSettings`).

        Raises:
            UsageError: the cases cannot be learned from.
        """
        ...

    def rival(self, cohort: Cohort) -> Rival | None:
        """The hand-designed algorithm to beat on this cohort; None where the question has none."""
        ...

    def score(self, arm: str, case: Case, prediction: Prediction) -> list[Score]:
        """Every measure of one prediction against the case's truth."""
        ...

    def metrics(self, scores: Sequence[Score], *, seed: int) -> tuple[Metric, ...]:
        """The figures of every arm, and of their difference, with intervals over patients."""
        ...

    def rank(self, scores: Sequence[Score]) -> dict[str, float]:
        """How well the model did on each case, higher is better: the order that pictures are shown in."""
        ...

    def overview(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Picture]:
        """Pictures of all measured cases together, shown before those of single cases."""
        ...

    def sentences(self, scores: Sequence[Score], metrics: Sequence[Metric], arms: Mapping[str, str]) -> list[str]:
        """The findings in plain words, who won first; `arms` says what each arm is called in running text."""
        ...

    def tables(self, scores: Sequence[Score]) -> list[Table]:
        """Tables that the report shows beside its metrics."""
        ...

    def plots(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Plot]:
        """Plots that the report shows."""
        ...

    def pictures(self, case: Case, predictions: Mapping[str, Prediction], scores: Sequence[Score]) -> list[Picture]:
        """Pictures of one case: truth and each arm's prediction."""
        ...
