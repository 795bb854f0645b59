"""Segmentation: which voxels belong to which structure?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort, Label
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.finding import Mask
from vesalius.core.grid import Array, Grid
from vesalius.core.image import Image
from vesalius.core.progress import Progress
from vesalius.core.protocols import Fitted, Prediction, Rival
from vesalius.core.report import Metric, Picture, Plot, Score, Table
from vesalius.measures.overlap import overlap
from vesalius.measures.summary import MODEL, overall_by_case, summarise
from vesalius.measures.surface import surface_distances
from vesalius.tasks import segmentation_findings as findings
from vesalius.tasks.inputs import inputs_of
from vesalius.tasks.outlines import case_picture
from vesalius.tasks.segmentation_problems import problems

TOLERANCE_MM = 1.0
TOLERANCE_PIXELS = 2.0


class Segmentation:
    """Judges label maps against a cohort's masks.

    Args:
        labels: the classes to judge; those of a case's own masks where none are given.
        ignore: mask value that is left out of every measure.
        inputs: roles of the images that arms are asked about; a label map lies on the first one's grid.
        model_values: the cohort's value for each value of the model's label map, where classes of one name
            have other values there; 0 for classes that are not judged. Empty: the values are the same.
        unjudged: classes that only the model or only the cohort knows.
        tolerance_mm: of the normalised surface Dice; images without physical spacing use TOLERANCE_PIXELS.
    """

    name: str = "segmentation"
    primary: str = "dice"

    def __init__(
        self,
        labels: Sequence[Label] = (),
        ignore: int | None = None,
        inputs: Sequence[str] = (),
        *,
        model_values: Mapping[int, int] | None = None,
        unjudged: Sequence[str] = (),
        tolerance_mm: float = TOLERANCE_MM,
    ) -> None:
        self.labels = tuple(labels)
        self.ignore = ignore
        self.inputs = tuple(inputs)
        self.model_values = dict(model_values or {})
        self.unjudged = tuple(unjudged)
        self.tolerance_mm = tolerance_mm

    @classmethod
    def between(cls, cohort: Cohort | None, card: Mapping[str, Any]) -> Segmentation:
        """The task as this cohort's masks put it to the model of this card. Classes are matched by name.

        Raises:
            UsageError: the model and the cohort have no class in common.
        """
        inputs = tuple(card.get("inputs", ()))
        if cohort is None:
            return cls(inputs=inputs)
        known = {str(entry["name"]).casefold(): int(entry["value"]) for entry in card.get("classes", ())}
        if not known:
            return cls(cohort.labels, cohort.ignore, inputs)
        shared = tuple(label for label in cohort.labels if label.name.casefold() in known)
        if cohort.labels and not shared:
            theirs = ", ".join(str(entry["name"]) for entry in card["classes"])
            ours = ", ".join(label.name for label in cohort.labels)
            raise UsageError(
                f"The model outlines {theirs}; the cohort's masks are {ours}.",
                remedy="Where these are the same structures, name them alike: vesalius label … --names 1=…",
            )
        values = dict.fromkeys(known.values(), 0)
        values.update({known[label.name.casefold()]: label.value for label in shared})
        judged = {label.name.casefold() for label in shared}
        unjudged = [label.name for label in cohort.labels if label not in shared]
        unjudged += [str(entry["name"]) for entry in card["classes"] if str(entry["name"]).casefold() not in judged]
        return cls(shared, cohort.ignore, inputs, model_values=values, unjudged=unjudged)

    def problems(self, cohort: Cohort) -> list[str]:
        """Everything that keeps this cohort from being learned from and measured on, each with its remedy."""
        return problems(cohort)

    def usable(self, case: Case) -> bool:
        """Whether the case has masks."""
        return case.label_image is not None

    def default_inputs(self, cohort: Cohort) -> tuple[str, ...]:
        """The role that most masks lie on."""
        roles = Counter(case.label_image.role for case in cohort if case.label_image is not None)
        return tuple(role for role, _ in roles.most_common(1))

    def card(self, cohort: Cohort) -> dict[str, Any]:
        """The classes with their codes, and the value that is ignored."""
        classes = [
            {"value": label.value, "name": label.name, "code": vars(label.code).copy() if label.code else None}
            for label in cohort.labels
        ]
        return {"classes": classes, "ignore": cohort.ignore, "finder": None}

    def learn(self, cohort: Cohort, train: Sequence[Case], settings: Any, work: Path, progress: Progress) -> Fitted:
        """Fit a network to the masks; see `learning.fit.fit_segmentation`."""
        from vesalius.learning.fit import fit_segmentation

        return fit_segmentation(cohort, train, settings, work, progress)

    def rival(self, cohort: Cohort) -> Rival:
        """The hand-designed algorithm to beat on this cohort."""
        from vesalius.classical.choice import best_rival

        return best_rival(cohort)

    def score(self, arm: str, case: Case, prediction: Prediction) -> list[Score]:
        """Every measure of one label map, per class.

        No label map counts as an empty one, so that no arm gains by staying silent.

        Raises:
            UnusableInput: the case has no masks, or the label map does not fit its image.
        """
        truth_image = self._truth(case)
        grid = truth_image.grid
        truth = np.asarray(truth_image.read())
        predicted = self._on_truth(arm, case, prediction, grid)
        left_out = None
        if self.ignore is not None:
            left_out = truth == self.ignore
            truth = np.where(left_out, 0, truth)
            predicted = np.where(left_out, 0, predicted)
        scale = Scale.of(grid, self.tolerance_mm)
        rows = []
        for label in self._labels(case):
            values = _measures(truth, predicted, left_out, label.value, grid, scale)
            rows += [Score(arm, case.id, case.patient, label.name, name, value) for name, value in values.items()]
        return rows

    def metrics(self, scores: Sequence[Score], *, seed: int) -> tuple[Metric, ...]:
        """Means over cases with intervals over patients."""
        return summarise(scores, seed=seed)

    def rank(self, scores: Sequence[Score]) -> dict[str, float]:
        """The model's mean Dice over classes, by case."""
        return overall_by_case(scores, MODEL, self.primary)

    def sentences(self, scores: Sequence[Score], metrics: Sequence[Metric], arms: Mapping[str, str]) -> list[str]:
        """Who won, by how much, and what a reader must know about the figures."""
        return findings.sentences(scores, metrics, arms, self.tolerance_mm, TOLERANCE_PIXELS, self.unjudged)

    def tables(self, scores: Sequence[Score]) -> list[Table]:
        """How Dice spreads over cases, and how volumes agree."""
        return findings.tables(scores)

    def plots(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Plot]:
        """Dice by volume, and Bland-Altman plots of volumes."""
        return findings.plots(scores)

    def overview(self, cases: Sequence[Case], scores: Sequence[Score]) -> list[Picture]:
        """None: the cases are shown one by one."""
        return []

    def pictures(self, case: Case, predictions: Mapping[str, Prediction], scores: Sequence[Score]) -> list[Picture]:
        """Slices where the first arm errs most, with the outlines of truth and of each arm."""
        truth_image = self._truth(case)
        truth = np.asarray(truth_image.read())
        if self.ignore is not None:
            truth = np.where(truth == self.ignore, 0, truth)
        values = [label.value for label in self._labels(case)]
        maps = {
            arm: np.where(np.isin(found, values), found, 0)
            for arm, found in (
                (arm, self._on_truth(arm, case, prediction, truth_image.grid))
                for arm, prediction in predictions.items()
            )
        }
        image = next((image for image in self._inputs(case) if image.grid.matches(truth_image.grid)), None)
        intensities = np.zeros((1, *truth.shape), np.float32) if image is None else image.read()
        pixels = case_picture(intensities, np.where(np.isin(truth, values), truth, 0), maps, truth_image.grid)
        return [Picture(findings.caption(case.id, scores), pixels)]

    def _truth(self, case: Case) -> Image:
        image = case.label_image
        if image is None:
            raise UnusableInput("The case has no masks.", remedy="Add them with vesalius label.")
        return image

    def _labels(self, case: Case) -> tuple[Label, ...]:
        if self.labels:
            return self.labels
        masks = ((finding, finding.place) for finding in case.findings)
        return tuple(Label(place.value, finding.name) for finding, place in masks if isinstance(place, Mask))

    def _inputs(self, case: Case) -> tuple[Image, ...]:
        return inputs_of(case, self.inputs)

    def _on_truth(self, arm: str, case: Case, prediction: Prediction, grid: Grid) -> Array:
        """The label map in the cohort's values on the grid of the truth."""
        if prediction.label_map is None:
            return np.zeros(grid.shape, np.uint8)
        found = np.asarray(prediction.label_map)
        source = self._inputs(case)[0].grid
        if found.shape != source.shape or not np.issubdtype(found.dtype, np.integer):
            raise UnusableInput(
                f"The label map is {found.dtype} of shape {found.shape}; its image has shape {source.shape}.",
                remedy="A model answers with integers on the grid of its first input.",
            )
        if arm == MODEL and self.model_values:
            found = _renamed(found, self.model_values)
        if source.matches(grid):
            return found
        from vesalius.imaging.resample import resample_label

        return resample_label(found, source, grid)


@dataclass(frozen=True)
class Scale:
    """In which units an image is measured: millimetres where its spacing is known, pixels where it is not.

    Args:
        distance, error, size: names of the measures.
        voxel: size of one voxel in the unit of `size`.
        tolerance: of the surface Dice, in the unit of `distance`.
    """

    distance: str
    error: str
    size: str
    voxel: float
    tolerance: float

    @classmethod
    def of(cls, grid: Grid, tolerance_mm: float) -> Scale:
        """Millilitres for volumes, square millimetres for planes, else pixels."""
        if grid.unit != "mm":
            return cls("hd95_px", "size_error_px", "size_px", 1.0, TOLERANCE_PIXELS)
        if grid.shape[2] == 1:
            area = grid.spacing[0] * grid.spacing[1]
            return cls("hd95_mm", "area_error_mm2", "area_mm2", area, tolerance_mm)
        return cls("hd95_mm", "volume_error_ml", "volume_ml", grid.voxel_ml, tolerance_mm)


def _measures(
    truth: Array, predicted: Array, left_out: Array | None, value: int, grid: Grid, scale: Scale
) -> dict[str, float]:
    """The measures of one class by name."""
    in_truth, in_predicted = truth == value, predicted == value
    counts = overlap(in_truth, in_predicted)
    distances = surface_distances(in_truth, in_predicted, grid.spacing, left_out=left_out, plane=grid.shape[2] == 1)
    diagonal = float(np.linalg.norm(np.multiply(grid.shape, grid.spacing)))
    return {
        "dice": counts.dice,
        "iou": counts.iou,
        scale.distance: distances.hausdorff(95.0, worst=diagonal),
        "nsd": distances.surface_dice(scale.tolerance),
        scale.error: counts.size_error(scale.voxel),
        scale.size: counts.size(scale.voxel),
    }


def _renamed(label_map: Array, values: Mapping[int, int]) -> Array:
    """The label map with the model's values turned into the cohort's; unlisted values become 0."""
    present = np.unique(label_map)
    result = np.zeros(label_map.shape, np.int32)
    for value in present:
        goal = values.get(int(value), 0)
        if goal:
            result[label_map == value] = goal
    return result
