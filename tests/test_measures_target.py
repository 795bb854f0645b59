"""Targets: what is asked of a case, from covariates, findings and masks."""

from dataclasses import dataclass

import numpy as np
import pytest

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.finding import Box, Finding, Mask, Point
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.measures.target import find_target, most_marks


@dataclass(frozen=True)
class Held:
    array: np.ndarray

    def read(self):
        return self.array


def image(name, array, kind=Kind.INTENSITY):
    return Image(name, Grid.from_parts(array.shape[-3:], unit="pixel"), "image", kind, "", 1, Held(array))


def case(number, covariates=None, findings=(), assessed=False):
    picture = image(f"i{number}", np.zeros((1, 20, 20, 1)))
    looked = frozenset({picture.id}) if assessed else frozenset()
    return Case(f"c{number}", f"p{number}", (picture,), tuple(findings), covariates or {}, looked)


def cohort(tmp_path, *cases):
    return Cohort("study", tmp_path, tuple(cases))


def test_as_many_marks_are_kept_as_lesions_may_ask_for():
    box = Box("i", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert most_marks([]) == most_marks([[], [(0, box)] * 5]) == 10
    assert most_marks([[(0, box)] * 5 + [(1, box)] * 12, [(0, box)] * 8]) == 24


def test_covariates_become_classes_in_their_order(tmp_path):
    grades = cohort(tmp_path, *(case(n, {"grade": float(value), "sex": word}) for n, (value, word) in
                               enumerate([(10, "m"), (2, "f"), (1, "f")])))  # fmt: skip
    target = find_target(grades, "grade")
    assert (target.kind, target.classes) == ("multiclass", ("1", "2", "10"))
    assert target.value(grades.cases[0]) == (0.0, 0.0, 1.0) and target.number(grades.cases[1]) == 1
    assert find_target(grades, "grade", ordinal=True).kind == "ordinal"
    assert find_target(grades, "SEX").classes == ("f", "m")
    with pytest.raises(UsageError, match="no order"):
        find_target(grades, "sex", ordinal=True)


def test_a_typo_is_told_the_near_names(tmp_path):
    study = cohort(tmp_path, case(0, {"malignant": 1.0}), case(1, {"malignant": 0.0}))
    with pytest.raises(UsageError) as raised:
        find_target(study, "malignnat")
    assert "Did you mean malignant?" in raised.value.remedy


def test_a_single_target_need_not_be_named_but_one_of_several_must(tmp_path):
    study = cohort(tmp_path, case(0, {"label": 1.0, "part": "train"}), case(1, {"label": 0.0, "part": "test"}))
    assert find_target(study, None).name == "label"
    two = cohort(tmp_path, case(0, {"a": 1.0, "b": 0.0}))
    with pytest.raises(UsageError, match="--target"):
        find_target(two, None)


def test_findings_answer_whether_and_where(tmp_path):
    lesion = Finding("lesion", place=Point("i0", (5, 6, 0), 4.0), attributes={"severity": "malignant"})
    other = Finding("lesion", place=Box("i1", (5, 6, 0), (3, 4, 1)), attributes={"severity": "benign"})
    study = cohort(tmp_path, case(0, None, [lesion], True), case(1, None, [other], True), case(2, None, (), True),
                   case(3))  # fmt: skip
    malignant = find_target(study, "malignant")
    assert [malignant.value(c) for c in study] == [(0.0, 1.0), (1.0, 0.0), (1.0, 0.0), None]
    where = find_target(study, "malignant", places=True)
    assert where.places(study.cases[0]) == {"i0": [(0, Box("i0", (5, 6, 0), (8.0, 8.0, 1.0)))]}
    assert where.places(study.cases[1]) == {"i1": []} and where.places(study.cases[3]) == {}
    assert find_target(study, None, places=True).classes == ("lesion",)


def test_masks_become_boxes_of_their_parts(tmp_path):
    array = np.zeros((20, 20, 1), np.uint8)
    array[2:5, 3:7] = array[10:12, 10:12] = 1
    mask = Finding("mass", place=Mask(image("i0", array, Kind.LABEL), 1))
    study = cohort(tmp_path, case(0, None, [mask], True))
    boxes = find_target(study, "mass", places=True).places(study.cases[0])["i0"]
    assert [box.centre for _, box in boxes] == [(3.0, 4.5, 0.0), (10.5, 10.5, 0.0)]
    assert boxes[0][1].size == (3.0, 4.0, 1.0)


def test_several_targets_at_once_must_be_yes_or_no(tmp_path):
    study = cohort(tmp_path, case(0, {"a": 1.0, "b": "yes", "c": 3.0}), case(1, {"a": 0.0, "c": 1.0}))
    target = find_target(study, "a,b")
    assert target.kind == "multilabel" and target.value(study.cases[0]) == (1.0, 1.0)
    assert target.value(study.cases[1]) is None
    with pytest.raises(UsageError, match="yes or no"):
        find_target(study, "a,c")


def test_a_measurement_is_no_class(tmp_path):
    study = cohort(tmp_path, *(case(n, {"size": n * 1.5}) for n in range(40)))
    with pytest.raises(UsageError, match="different values"):
        find_target(study, "size")
