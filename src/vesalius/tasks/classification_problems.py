"""What keeps a cohort from a classification study."""

from __future__ import annotations

from collections.abc import Sequence

from vesalius.core.case import Case
from vesalius.core.cohort import TEST, TRAIN, Cohort
from vesalius.core.image import Kind
from vesalius.measures.target import Target

_LEAST_PATIENTS = 2  # of each class in the training part: one to learn from, one to choose by


def problems(cohort: Cohort, target: Target) -> list[str]:
    """Every obstacle with its remedy, all at once; reads no pixels."""
    known = [case for case in cohort if target.value(case) is not None]
    if not known:
        return [f"No case has a known {target.name}. Add it: vesalius label COHORT --table FILE.csv."]
    found = []
    if target.kind != "multilabel" and len(target.classes) < 2:
        found.append(
            f"All cases have the same {target.name} ({target.classes[0]}), so there is nothing to tell apart. "
            "Add cases of another class."
        )
    else:
        found += _few(cohort, target, known) + _test_part(cohort, target, known)
    flat = {image.grid.shape[2] == 1 for case in known for image in case.images if image.kind is Kind.INTENSITY}
    if not flat:
        found.append("No case with a known class has an image. Ingest the images again.")
    if len(flat) > 1:
        found.append("Single planes and volumes are mixed. Make one cohort of each.")
    return found


def _few(cohort: Cohort, target: Target, known: Sequence[Case]) -> list[str]:
    """Classes with too few patients to learn from."""
    drawn = cohort.split is not None
    train = [case for case in known if not drawn or (cohort.split and cohort.split.parts.get(case.patient) == TRAIN)]
    where = "training part" if drawn else "cohort"
    remedy = "Add cases, draw the split anew with vesalius split, or join it with another class."
    if target.kind != "multilabel":
        groups = [(number, 1.0, f"class {name}") for number, name in enumerate(target.classes)]
    else:
        groups = [(n, value, f"{name} = {value:g}") for n, name in enumerate(target.classes) for value in (0.0, 1.0)]
    found = []
    for number, value, words in groups:
        patients = {case.patient for case in train if (target.value(case) or ())[number] == value}
        if len(patients) < _LEAST_PATIENTS:
            count = {0: "no patient", 1: "one patient"}[len(patients)]
            found.append(f"The {where} has {count} with {words}; {_LEAST_PATIENTS} are the least. {remedy}")
    return found


def _test_part(cohort: Cohort, target: Target, known: Sequence[Case]) -> list[str]:
    """A test part on which nothing can be told apart."""
    if cohort.split is None:
        return []
    test = [case for case in known if cohort.split.parts.get(case.patient) == TEST]
    remedy = "Draw the split anew with vesalius split."
    if not test:
        return [f"No case of the test part has a known {target.name}. {remedy}"]
    values = [target.value(case) or () for case in test]
    if not any(len({value[number] for value in values}) > 1 for number in range(len(target.classes))):
        return [f"All cases of the test part have the same {target.name}, so nothing can be measured. {remedy}"]
    return []
