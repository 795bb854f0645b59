"""Detection: where in its images does a case have what is looked for?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.finding import Box
from vesalius.core.progress import Progress
from vesalius.core.protocols import Fitted, Prediction, Rival
from vesalius.core.report import Metric, Picture, Plot, Score, Table
from vesalius.measures.summary import MODEL
from vesalius.measures.target import Target, find_target
from vesalius.tasks import detection_findings as findings
from vesalius.tasks.detection_data import Sample, case_values, judge, metrics
from vesalius.tasks.detection_pictures import case_pictures
from vesalius.tasks.detection_problems import problems
from vesalius.tasks.site import Site

MOST_CANDIDATES = 100  # of one image and class; the surest are judged


class Detection:
    """Judges marked places against the known ones, in the images that were looked over.

    Args:
        target: what is looked for; None where there is no cohort yet.
        inputs: roles of the images that arms are asked about; every image of a case where none are named.
        unjudged: classes that only the model or only the cohort knows.
        site: where the model would be used, for the figures of triage.
        thresholds: of the card, chosen on training cases, by name.
    """

    name: str = "detection"
    primary: str = "sensitivity_at_2_fp"

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
    def between(cls, cohort: Cohort | None, card: Mapping[str, Any]) -> Detection:
        """The task as this cohort puts it to the model of this card; the model's order of classes holds.

        Raises:
            UsageError: the cohort does not know the target, or has none of the model's classes.
        """
        inputs, site = tuple(card.get("inputs", ())), Site.of(card)
        if cohort is None:
            return cls(inputs=inputs, site=site)
        known = tuple(str(entry["name"]) for entry in card.get("classes", ()))
        if known and _normal(cohort):  # a model's false alarms can be counted there
            ours = Target(str(card.get("target", ",".join(known))), "places", known)
        else:
            ours = find_target(cohort, card.get("target"), places=True)
        if not known:
            return cls(ours, inputs, site=site)
        if not set(ours.classes) & set(known):
            raise UsageError(
                f"The model looks for {', '.join(known)}; the cohort knows places of {', '.join(ours.classes)}.",
                remedy="Where these mean the same, name them alike and label again.",
            )
        thresholds = card.get("threshold")
        return cls(
            Target(ours.name, "places", known),
            inputs,
            unjudged=sorted(set(ours.classes) ^ set(known)),
            site=site,
            thresholds=thresholds if isinstance(thresholds, Mapping) else None,
        )

    @property
    def target(self) -> Target:
        """What is looked for.

        Raises:
            UsageError: no cohort has been named yet.
        """
        if self._target is None:
            raise UsageError("A detection needs a cohort that knows its target.")
        return self._target

    def problems(self, cohort: Cohort) -> list[str]:
        """Everything that keeps this cohort from being learned from and measured on, each with its remedy."""
        return problems(cohort, self.target)

    def usable(self, case: Case) -> bool:
        """Whether any image of the case was looked over."""
        return any(image.id in case.assessed for image in case.images)

    def default_inputs(self, cohort: Cohort) -> tuple[str, ...]:
        """None: every image of a case."""
        return ()

    def card(self, cohort: Cohort) -> dict[str, Any]:
        """The target and its classes."""
        classes = [{"value": number, "name": name, "code": None} for number, name in enumerate(self.target.classes, 1)]
        return {"target": self.target.name, "kind": self.target.kind, "classes": classes}

    def learn(self, cohort: Cohort, train: Sequence[Case], settings: Any, work: Path, progress: Progress) -> Fitted:
        """Fit a detector within the budget; see `learning.detect.fit_detection`."""
        from vesalius.learning.detect import fit_detection
        from vesalius.tasks.shortcuts import learn_after_checks

        return learn_after_checks(fit_detection, cohort, train, settings, work, progress, self.target)

    def rival(self, cohort: Cohort) -> Rival:
        """Blobs of several sizes, their features, and boosted false-positive reduction."""
        from vesalius.classical.detection import detection_rival

        return detection_rival(cohort, self.target)

    def score(self, arm: str, case: Case, prediction: Prediction) -> list[Score]:
        """One row of figures per class, with every candidate's score and what it hits.

        No answer counts as no candidate: nothing is found.

        Raises:
            UnusableInput: no image of the case was looked over, or a candidate is no box with a finite score.
        """
        images = {image.id: image.grid for image in case.images if image.id in case.assessed}
        if not images:
            raise UnusableInput(
                "Nobody looked the case over for places.",
                remedy="Add its places, or say that it has none: vesalius label.",
            )
        truth = self.target.places(case)
        rows = []
        for number, name in enumerate(self.target.classes):
            judged = []
            for image, grid in images.items():
                lesions = [box for kind, box in truth.get(image, ()) if kind == number]
                marked = _candidates(prediction, name, image)[:MOST_CANDIDATES]
                judged.append(judge(marked, lesions, grid))
            for measure, value in case_values(judged).items():
                rows.append(Score(arm, case.id, case.patient, name, measure, value))
        return rows

    def metrics(self, scores: Sequence[Score], *, seed: int) -> tuple[Metric, ...]:
        """Sensitivity at seven rates of false positives, CPM, average precision, and what the model's own threshold
        finds and costs, with intervals over patients."""
        return metrics(Sample.of(scores, self.target.classes), findings.own_thresholds(self.thresholds), seed=seed)

    def rank(self, scores: Sequence[Score]) -> dict[str, float]:
        """Score of the least sure lesion (0 where missed) minus that of the surest false alarm, by case."""
        worst: dict[str, float] = {}
        for score in scores:
            if score.arm == MODEL and score.name == "margin":
                worst[score.case] = min(score.value, worst.get(score.case, 1.0))
        return worst

    def sentences(self, scores: Sequence[Score], metrics: Sequence[Metric], arms: Mapping[str, str]) -> list[str]:
        """Who won, by how much, and what a reader must know about the figures."""
        sample = Sample.of(scores, self.target.classes)
        return findings.sentences(sample, metrics, arms, self.unjudged, self.site, self.thresholds)

    def tables(self, scores: Sequence[Score]) -> list[Table]:
        """Operating points with what was found and what it cost, and the figures of triage."""
        return findings.tables(Sample.of(scores, self.target.classes), self.site, self.thresholds)

    def plots(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Plot]:
        """The free-response curve of each class."""
        return findings.plots(Sample.of(scores, self.target.classes))

    def overview(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Picture]:
        """None: the cases are shown one by one."""
        return []

    def pictures(self, case: Case, predictions: Mapping[str, Prediction], scores: Sequence[Score]) -> list[Picture]:
        """The case's images with the known places and the surest marks of each arm."""
        return case_pictures(case, predictions, self.target)


def _candidates(prediction: Prediction, name: str, image: str) -> list[tuple[float, Box]]:
    """Score and box of every mark of this class on this image, the surest first.

    Raises:
        UnusableInput: one has no finite score or no finite box.
    """
    found = []
    for finding in prediction.findings if prediction.status == "ok" else ():
        if not isinstance(finding.place, Box) or finding.name.casefold() != name.casefold():
            continue
        if finding.place.image_id != image:
            continue
        if not np.isfinite([finding.score, *finding.place.centre, *finding.place.size]).all():
            raise UnusableInput("A candidate of the answer has no finite score or place.")
        found.append((float(finding.score), finding.place))
    return sorted(found, key=lambda item: -item[0])


def _normal(cohort: Cohort) -> bool:
    """Whether images were looked over, and nothing was found in any."""
    return any(case.assessed for case in cohort) and not any(case.findings for case in cohort)
