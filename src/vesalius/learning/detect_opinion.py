"""Hand-designed filters as a second opinion: learned from the same patients as the networks, asked about the others."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from vesalius.classical.detection import Examination, FilterRival, detection_rival
from vesalius.classical.detection_model import FilterModel
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.finding import Finding
from vesalius.core.progress import Progress
from vesalius.learning.study import FitSettings
from vesalius.measures.target import Target

_SHARE = 0.08  # of the budget, at most, goes into looking at images
_LEARNING_SECONDS = 0.04  # per image and model
_LEAST_LESIONS = 12  # with fewer the filters are not asked


@dataclass(frozen=True, eq=False)
class Filters:
    """Filters that were asked about every image out of fold.

    Args:
        model: learned from all images.
        marks: by image, of models that never saw its patient.
    """

    model: FilterModel
    marks: dict[str, list[Finding]]


@dataclass(frozen=True, eq=False)
class FilterStudy:
    """The filters' answers on all training images, from which models are learned.

    Args:
        rival: that gave them.
        examination: the answers.
    """

    rival: FilterRival
    examination: Examination

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        cases: Sequence[Case],
        question: Target,
        settings: FitSettings,
        budget: float,
        progress: Progress,
    ) -> FilterStudy | None:
        """Look at all images; None where there are too few lesions, or where it would take too long.

        Args:
            cohort, cases, question, settings, progress: as for the fit.
            budget: seconds of the whole fit; infinite where a stored plan asks for the filters.
        """
        if sum(len(lesions) for case in cases for lesions in question.places(case).values()) < _LEAST_LESIONS:
            return None
        rival = detection_rival(cohort, question, settings.seed)
        try:
            examination = rival.examine(cases, settings.inputs, _SHARE * budget, progress)
        except UnusableInput:
            return None
        return None if examination is None else cls(rival, examination)

    def seconds(self, folds: int) -> float:
        """How long `ask` will take with so many folds."""
        return _LEARNING_SECONDS * len(self.examination.images) * (folds + 1)

    def ask(self, cohort: Cohort, inputs: Sequence[str], groups: Sequence[Set[str]]) -> Filters | None:
        """Learn once from all images and once without each group of patients, who are then asked about.

        Args:
            cohort, inputs: as for the fit.
            groups: patients by fold.

        Returns:
            None where one of the models has too little to learn from.
        """
        marks: dict[str, list[Finding]] = {}
        try:
            for group in groups:
                model = self.rival.learned(self.examination, cohort, inputs, without=group)
                held = [item for item in self.examination.images if item.patient in group]
                marks |= {item.proposed.image: model.marks(item.proposed) for item in held}
            return Filters(self.rival.learned(self.examination, cohort, inputs), marks)
        except UnusableInput:
            return None
