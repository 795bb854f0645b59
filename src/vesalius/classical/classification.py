"""The hand-designed rival of classification: features of shape, intensity and texture, and who judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.classical.atlas import pack_arrays, unpack_arrays
from vesalius.classical.cases import chosen_images
from vesalius.classical.grading import MIX_NAMES, Grader, Judged, as_json, fit_grader
from vesalius.classical.kept import Kept
from vesalius.classical.table import case_features, outlined_features, rows
from vesalius.classical.trees import BoostSettings
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.finding import Finding
from vesalius.core.grid import Array, FloatArray
from vesalius.core.identity import seen_hash
from vesalius.core.image import Image
from vesalius.core.protocols import RESEARCH_ONLY, Prediction
from vesalius.measures.target import Target

_OUTLINED = "For a case that comes with an outline, the features inside it are judged instead."
_TOLD = 10  # most important features that the card names


def classification_rival(cohort: Cohort, target: Target, seed: int = 0) -> FeatureRival:
    """The rival of a classification.

    Args:
        cohort: what is asked of; its training part is given to `FeatureRival.fit`.
        target: of kind "binary", "multiclass", "multilabel" or "ordinal".
        seed: of folds and trees.
    """
    return FeatureRival(target, seed)


@dataclass(frozen=True)
class FeatureRival:
    """Hand-designed features, judged by regularised logistic regression, boosted trees, or both.

    Features of whole images; beside them, where every training case has an outline that is not empty, features
    inside the outlines, for cases that come with one. A case must not tell its class by having no outline.
    """

    target: Target
    seed: int = 0
    settings: BoostSettings | None = None
    name: str = "hand-designed features"

    def fit(self, cases: Sequence[Case], cohort: Cohort, inputs: Sequence[str]) -> FeatureModel:
        """Learn from training cases; which judge is kept is settled on patients held out in turn.

        Args:
            cases: the training part.
            cohort: that they belong to.
            inputs: roles of the images; none for every image of a case.

        Raises:
            UnusableInput: no training case has both an image that can be read and a known class.
        """
        found, outlined, truths, patients = [], [], [], []
        for case in cases:
            known = self.target.value(case)
            if known is None:
                continue
            images = chosen_images(case, inputs)
            try:
                found.append(case_features(images))
            except UnusableInput:
                continue  # the store has said so already
            label = case.label_image
            outlined.append(None if label is None else outlined_features([*images, label], cohort.ignore))
            truths.append(known)
            patients.append(case.patient)
        if not found:
            raise UnusableInput("Hand-designed features need training cases with images and a known class.")
        model = self._learned(found, np.array(truths), patients, cohort, inputs)
        inside = [features for features in outlined if features is not None]
        if len(inside) < len(found):
            return model
        return FeatureModel(
            {**model.card, "sentences": [*model.card["sentences"], _OUTLINED]}, model.names, model.graders,
            self._learned(inside, np.array(truths), patients, cohort, inputs),
        )  # fmt: skip

    def _learned(
        self,
        found: Sequence[Mapping[str, float]],
        truth: FloatArray,
        patients: Sequence[str],
        cohort: Cohort,
        inputs: Sequence[str],
    ) -> FeatureModel:
        names = _names(found)
        values = rows(found, names)
        fitted = [
            fit_grader(values, labels, patients, classes, self.seed + number, self.settings)
            for number, (labels, classes) in enumerate(_questions(self.target, truth))
        ]
        graders = [grader for grader, _ in fitted]
        judged = [item for _, item in fitted]
        thresholds = _thresholds(self.target, truth, judged)
        card = _card(self, cohort, inputs, names, graders, judged, thresholds, patients)
        return FeatureModel(card, names, graders)


def _names(found: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Every feature that at least half of the cases have; a case without one is taken for average in it."""
    counts: dict[str, int] = {}
    for features in found:
        for name in features:
            counts[name] = counts.get(name, 0) + 1
    return tuple(name for name, count in counts.items() if 2 * count >= len(found))


def _questions(target: Target, truth: FloatArray) -> list[tuple[Array, int]]:
    """Labels and number of classes of each question that the target falls into.

    One class is right: one question. Several may be: one yes-or-no question each. Ordered classes: whether
    the case lies above each border (Frank and Hall, ECML 2001).
    """
    if target.kind == "multilabel":
        return [(column.astype(np.int64), 2) for column in truth.T]
    number = truth.argmax(axis=1)
    if target.kind == "ordinal" and len(target.classes) > 2:
        return [((number > border).astype(np.int64), 2) for border in range(len(target.classes) - 1)]
    return [(number, len(target.classes))]


def _answers(kind: str, classes: int, shares: Sequence[FloatArray]) -> FloatArray:
    """(n, classes) probabilities from those of each question."""
    if kind == "multilabel":
        return np.stack([share[:, 1] for share in shares], axis=1)
    if kind == "ordinal" and classes > 2:
        above = np.stack([share[:, 1] for share in shares], axis=1)
        above = np.minimum.accumulate(above, axis=1)  # to lie above a later border is rarer
        bounds = np.concatenate([np.ones((len(above), 1)), above, np.zeros((len(above), 1))], axis=1)
        return np.asarray(bounds[:, :-1] - bounds[:, 1:])
    return shares[0]


def _thresholds(target: Target, truth: FloatArray, judged: Sequence[Judged]) -> dict[str, float]:
    """The probability from which a class is said to be there, where yes or no is asked.

    It is where sensitivity and specificity are best together on patients held out, or one half without any.
    """
    if target.kind == "multilabel":
        chosen = [(name, truth[:, n], judged[n].held_out) for n, name in enumerate(target.classes)]
    elif target.kind == "binary":
        chosen = [(target.classes[1], truth[:, 1], judged[0].held_out)]
    else:
        return {}
    return {name: 0.5 if answers is None else _best_cut(answers[:, 1], known) for name, known, answers in chosen}


def _best_cut(scores: FloatArray, truth: FloatArray) -> float:
    """Halfway between the two scores with the largest sum of sensitivity and specificity across."""
    order = np.argsort(scores)
    ranked, yes = scores[order], truth[order] > 0.5
    missed, cleared = np.cumsum(yes) / max(1, yes.sum()), np.cumsum(~yes) / max(1, (~yes).sum())
    gain = np.where(np.append(np.diff(ranked) > 0, False), cleared - missed, -np.inf)
    best = int(gain.argmax())
    return float(ranked[best] + ranked[best + 1]) / 2 if np.isfinite(gain[best]) else 0.5


class FeatureModel:
    """A fitted rival of classification."""

    kind = "hand-designed-features"

    def __init__(
        self,
        card: Mapping[str, Any],
        names: Sequence[str],
        graders: Sequence[Grader],
        outlined: FeatureModel | None = None,
    ) -> None:
        self.card = card
        self.names = tuple(names)
        self.graders = tuple(graders)
        self.outlined = outlined

    def predict(self, images: Sequence[Image]) -> Prediction:
        """The probability of every class for one case, from one or several images.

        Args:
            images: of the case; a label image among them is taken for an outline where outlines were learned.

        Raises:
            UnusableInput: there is no image.
        """
        if self.outlined is not None:
            inside = outlined_features(images, self.card["ignore"])
            if inside is not None:
                return self.outlined.judged(inside)
        return self.judged(case_features(images))

    def judged(self, features: Mapping[str, float]) -> Prediction:
        """The answer from a case's features."""
        values = rows([features], self.names)
        classes = [str(entry["name"]) for entry in self.card["classes"]]
        shares = [grader.probabilities(values) for grader in self.graders]
        answer = _answers(str(self.card["kind"]), len(classes), shares)[0]
        findings = tuple(Finding(name, score=float(share)) for name, share in zip(classes, answer, strict=True))
        return Prediction(findings, details={"predicted": self._said(classes, answer)})

    def _said(self, classes: Sequence[str], answer: FloatArray) -> str | list[str]:
        cuts = self.card["threshold"]
        if self.card["kind"] == "multilabel":
            return [name for name, share in zip(classes, answer, strict=True) if share >= cuts[name]]
        if self.card["kind"] == "binary":
            return classes[1] if answer[1] >= cuts[classes[1]] else classes[0]
        if self.card["kind"] == "ordinal":
            return classes[int((np.cumsum(answer) < 0.5).sum().clip(0, len(classes) - 1))]
        return classes[int(answer.argmax())]

    def keep(self) -> Kept:
        """Everything that `from_kept` needs."""
        files = {f"question-{number}": pack_arrays(grader.arrays()) for number, grader in enumerate(self.graders)}
        values: dict[str, Any] = {"card": self.card, "names": list(self.names)}
        if self.outlined is not None:
            inner = self.outlined.keep()
            values["outlined"] = dict(inner.values)
            files |= {f"outlined-{name}": data for name, data in inner.files.items()}
        return Kept(self.kind, values, files)

    @classmethod
    def from_kept(cls, kept: Kept) -> FeatureModel:
        """The model that `keep` described; it answers exactly alike."""
        whole = sorted((name for name in kept.files if name.startswith("question-")), key=lambda n: int(n[9:]))
        graders = [Grader.from_arrays(unpack_arrays(kept.files[name])) for name in whole]
        inner = None
        if "outlined" in kept.values:
            own = {n.removeprefix("outlined-"): data for n, data in kept.files.items() if n.startswith("outlined-")}
            inner = cls.from_kept(Kept(cls.kind, kept.values["outlined"], own))
        return cls(kept.values["card"], kept.values["names"], graders, inner)


def _card(
    rival: FeatureRival,
    cohort: Cohort,
    inputs: Sequence[str],
    names: Sequence[str],
    graders: Sequence[Grader],
    judged: Sequence[Judged],
    thresholds: Mapping[str, float],
    patients: Sequence[str],
) -> dict[str, Any]:
    """What the rival is, how its judge was chosen and what counted most."""
    target = rival.target
    weight = np.mean([grader.importance() for grader in graders], axis=0)
    order = [int(number) for number in np.argsort(-weight)[:_TOLD] if weight[number] > 0]
    kept = sorted({MIX_NAMES[grader.mix] for grader in graders})
    name = f"{rival.name} ({', '.join(kept)})"
    how = (
        f"{name[0].upper()}{name[1:]}: {len(names)} features of intensity, texture, edges and layout, learned from "
        f"{len(patients)} cases of {len(set(patients))} training patients, calibrated on patients held out in turn."
    )
    return {
        "name": name,
        "task": "classification",
        "how": how,
        "target": target.name,
        "kind": target.kind,
        "classes": [{"value": number, "name": item, "code": None} for number, item in enumerate(target.classes)],
        "threshold": dict(thresholds),
        "seed": rival.seed,
        "inputs": list(inputs),
        "ignore": cohort.ignore,
        "choice": {"log_loss": as_json(judged)},
        "importance": {names[number]: round(float(weight[number]), 4) for number in order},
        "cohort": {"digest": cohort.digest},
        "patients_seen": sorted({seen_hash(patient) for patient in patients}),
        "research_only": RESEARCH_ONLY,
        "sentences": [how, *_why(judged)],
    }


def _why(judged: Sequence[Judged]) -> list[str]:
    """The choice of the judge in a sentence."""
    tried = [item.losses for item in judged if item.losses]
    if not tried:
        return ["There were too few patients of each class to hold any out, so the probabilities are not calibrated."]
    figures = ", ".join(f"{name} {np.mean([losses[name] for losses in tried]):.3f}" for name in tried[0])
    return [f"The judge was chosen by log loss on training patients held out in turn ({figures})."]
