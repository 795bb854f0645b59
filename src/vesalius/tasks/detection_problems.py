"""What keeps a cohort from a detection study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vesalius.core.case import Case
from vesalius.core.cohort import TEST, TRAIN, Cohort
from vesalius.measures.target import Target

_LEAST_PATIENTS = 2  # of each class in the training part: one to learn from, one to choose by


def problems(cohort: Cohort, target: Target) -> list[str]:
    """Every obstacle with its remedy, all at once; reads masks where these are the known places."""
    known = [case for case in cohort if any(image.id in case.assessed for image in case.images)]
    if not known:
        return [
            f"No image was looked over for {target.name}. Add its places with vesalius label, and name the images "
            "that have none."
        ]
    holders = {case.id: _classes(case, target) for case in known}
    found = []
    for number, name in enumerate(target.classes):
        with_it = [case for case in known if number in holders[case.id]]
        found += _few(cohort, name, with_it) + _untested(cohort, name, with_it)
    flat = {image.grid.shape[2] == 1 for case in known for image in case.images if image.id in case.assessed}
    if len(flat) > 1:
        found.append("Single planes and volumes are mixed. Make one cohort of each.")
    return found + _missing_parts(cohort, known, holders)


def _classes(case: Case, target: Target) -> set[int]:
    return {number for places in target.places(case).values() for number, _ in places}


def _few(cohort: Cohort, name: str, holders: Sequence[Case]) -> list[str]:
    train = {case.patient for case in holders if cohort.split is None or _part(cohort, case) == TRAIN}
    if len(train) >= _LEAST_PATIENTS:
        return []
    count = {0: "No patient", 1: "Only one patient"}[len(train)]
    where = "training part" if cohort.split else "cohort"
    return [
        f"{count} of the {where} has a known place of {name}; {_LEAST_PATIENTS} are the least. Add cases, or draw the "
        "split anew with vesalius split."
    ]


def _untested(cohort: Cohort, name: str, holders: Sequence[Case]) -> list[str]:
    """A class with no place in the test part, whose sensitivity could not be measured."""
    if cohort.split is None or not holders or any(_part(cohort, case) == TEST for case in holders):
        return []
    return [f"No case of the test part has a known place of {name}. Draw the split anew with vesalius split."]


def _missing_parts(cohort: Cohort, known: Sequence[Case], holders: Mapping[str, set[int]]) -> list[str]:
    if cohort.split is None or not any(holders.values()):
        return []
    filled = {_part(cohort, case) for case in known}
    names = {TRAIN: "training", TEST: "test"}
    return [
        f"No image of the {names[part]} part was looked over. Draw the split anew with vesalius split."
        for part in (TRAIN, TEST)
        if part not in filled
    ]


def _part(cohort: Cohort, case: Case) -> str | None:
    return cohort.split.parts.get(case.patient) if cohort.split else None
