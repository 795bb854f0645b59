"""Classification: which class does a case belong to?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.progress import Progress
from vesalius.core.protocols import Fitted, Prediction, Rival
from vesalius.core.report import Metric, Picture, Plot, Score, Table
from vesalius.measures.summary import MODEL
from vesalius.measures.target import Target, find_target
from vesalius.tasks import classification_findings as findings
from vesalius.tasks.classification_data import Sample, metrics
from vesalius.tasks.classification_pictures import case_pictures
from vesalius.tasks.classification_problems import problems
from vesalius.tasks.site import Site

_HALF = 0.5


class Classification:
    """Judges probabilities against what is known of each case.

    Args:
        target: what is asked; None where there is no cohort yet.
        inputs: roles of the images that arms are asked about; every image of a case where none are named.
        unjudged: classes that only the model or only the cohort knows.
        site: where the model would be used, for the figures of triage.
        thresholds: of the card, chosen on training cases, by name.
    """

    name: str = "classification"
    primary: str = "auroc"

    def __init__(
        self,
        target: Target | None = None,
        inputs: Sequence[str] = (),
        *,
        unjudged: Sequence[str] = (),
        site: Site | None = None,
        thresholds: Mapping[str, Any] | None = None,
    ) -> None:
        self._target = target
        self.inputs = tuple(inputs)
        self.unjudged = tuple(unjudged)
        self.site = site or Site()
        self.thresholds = dict(thresholds or {})

    @classmethod
    def between(cls, cohort: Cohort | None, card: Mapping[str, Any]) -> Classification:
        """The task as this cohort puts it to the model of this card; the model's order of classes holds.

        Raises:
            UsageError: the cohort does not know the target, or has none of the model's classes.
        """
        inputs, site = tuple(card.get("inputs", ())), Site.of(card)
        if cohort is None:
            return cls(inputs=inputs, site=site)
        ordinal = bool(card.get("ordinal")) or card.get("kind") == "ordinal"
        ours = find_target(cohort, card.get("target"), ordinal=ordinal)
        known = tuple(str(entry["name"]) for entry in card.get("classes", ()))
        if not known:
            return cls(ours, inputs, site=site)
        kind = card.get("kind", ours.kind)
        unjudged = sorted(set(ours.classes) ^ set(known))
        if not set(ours.classes) & set(known):
            raise UsageError(
                f"The model knows the classes {', '.join(known)}; the cohort's are {', '.join(ours.classes)}.",
                remedy="Where these mean the same, name them alike in the table and label again.",
            )
        thresholds = card.get("threshold")
        return cls(
            Target(ours.name, kind, known),
            inputs,
            unjudged=unjudged,
            site=site,
            thresholds=thresholds if isinstance(thresholds, Mapping) else None,
        )

    @property
    def target(self) -> Target:
        """What is asked.

        Raises:
            UsageError: no cohort has been named yet.
        """
        if self._target is None:
            raise UsageError("A classification needs a cohort that knows its target.")
        return self._target

    def problems(self, cohort: Cohort) -> list[str]:
        """Everything that keeps this cohort from being learned from and measured on, each with its remedy."""
        return problems(cohort, self.target)

    def usable(self, case: Case) -> bool:
        """Whether the case's class is known and one that is judged."""
        return self.target.value(case) is not None

    def default_inputs(self, cohort: Cohort) -> tuple[str, ...]:
        """None: every image of a case, pooled to one answer."""
        return ()

    def card(self, cohort: Cohort) -> dict[str, Any]:
        """The target, its kind, and its classes in the order of the columns."""
        classes = [{"value": number, "name": name, "code": None} for number, name in enumerate(self.target.classes)]
        return {"target": self.target.name, "kind": self.target.kind, "classes": classes}

    def learn(self, cohort: Cohort, train: Sequence[Case], settings: Any, work: Path, progress: Progress) -> Fitted:
        """Fit a classifier within the budget; see `learning.classify.fit_classification`."""
        from vesalius.learning.classify import fit_classification
        from vesalius.tasks.shortcuts import learn_after_checks

        return learn_after_checks(fit_classification, cohort, train, settings, work, progress, self.target)

    def rival(self, cohort: Cohort) -> Rival:
        """Hand-designed features into a regularised linear model and gradient boosting."""
        from vesalius.classical.classification import classification_rival

        return classification_rival(cohort, self.target)

    def score(self, arm: str, case: Case, prediction: Prediction) -> list[Score]:
        """Probability, truth and prediction of every class.

        No answer counts as certainty of the wrong, so that no arm gains by staying silent.

        Raises:
            UnusableInput: the case's class is not known, or the answer has another class's names only.
        """
        truth = self.target.value(case)
        if truth is None:
            raise UnusableInput("The case's class is not known.", remedy="Add it with vesalius label.")
        said = self._probabilities(prediction)
        if said is None:
            wrong = tuple(1.0 - value for value in truth)
            named = wrong if self.target.kind == "multilabel" else tuple(0.0 for _ in truth)
        else:
            wrong, named = said, self._named(prediction, said)
        rows = []
        for name, true, probability, predicted in zip(self.target.classes, truth, wrong, named, strict=True):
            values = {"agreement": 1.0 - abs(true - probability), "probability": probability}
            values |= {"predicted": predicted, "truth": true}
            rows += [Score(arm, case.id, case.patient, name, measure, value) for measure, value in values.items()]
        return rows

    def metrics(self, scores: Sequence[Score], *, seed: int) -> tuple[Metric, ...]:
        """AUROC and its companions, by class and over classes, with intervals over patients."""
        return metrics(Sample.of(scores, self.target.classes), self.target, seed=seed)

    def rank(self, scores: Sequence[Score]) -> dict[str, float]:
        """How near the model's probabilities came to the truth, by case: of the class that is furthest off."""
        worst: dict[str, float] = {}
        for score in scores:
            if score.arm == MODEL and score.name == "agreement":
                worst[score.case] = min(score.value, worst.get(score.case, 1.0))
        return worst

    def sentences(self, scores: Sequence[Score], metrics: Sequence[Metric], arms: Mapping[str, str]) -> list[str]:
        """Who won, by how much, and what a reader must know about the figures."""
        sample = Sample.of(scores, self.target.classes)
        return findings.sentences(sample, self.target, metrics, arms, self.unjudged, self.site, self.thresholds)

    def tables(self, scores: Sequence[Score]) -> list[Table]:
        """Confusion and operating points with intervals, and the figures of triage."""
        sample = Sample.of(scores, self.target.classes)
        return findings.tables(sample, self.target, self.site, self.thresholds)

    def plots(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Plot]:
        """ROC, precision and recall, and calibration."""
        return findings.plots(Sample.of(scores, self.target.classes), self.target)

    def overview(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Picture]:
        """None: the cases are shown one by one."""
        return []

    def pictures(self, case: Case, predictions: Mapping[str, Prediction], scores: Sequence[Score]) -> list[Picture]:
        """The case's images, and over them where the model looked."""
        return case_pictures(case, predictions, scores, self.target)

    def _probabilities(self, prediction: Prediction) -> tuple[float, ...] | None:
        """The probability of every class in the target's order; None where there is no answer.

        Raises:
            UnusableInput: no finding is of one of the classes, or a probability is no number.
        """
        if prediction.status != "ok":
            return None
        said = {finding.name.casefold(): float(finding.score) for finding in prediction.findings}
        if not said.keys() & {name.casefold() for name in self.target.classes}:
            raise UnusableInput(
                "The answer names none of the classes.", remedy="A model answers with one finding for each class."
            )
        values = tuple(said.get(name.casefold(), 0.0) for name in self.target.classes)
        if not all(np.isfinite(value) and 0.0 <= value <= 1.0 for value in values):
            raise UnusableInput("A probability of the answer is not between 0 and 1.")
        return values

    def _named(self, prediction: Prediction, said: Sequence[float]) -> tuple[float, ...]:
        """1 for each class that the answer names; where it names none itself, the likeliest or those above 0.5."""
        named = prediction.details.get("predicted")
        if named is not None:
            words = {str(one).casefold() for one in ([named] if isinstance(named, str) else named)}
            return tuple(float(name.casefold() in words) for name in self.target.classes)
        if self.target.kind == "multilabel":
            return tuple(float(value >= _HALF) for value in said)
        return tuple(float(number == int(np.argmax(said))) for number in range(len(said)))
