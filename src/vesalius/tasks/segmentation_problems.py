"""What keeps a cohort from a segmentation study."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.core.case import Case
from vesalius.core.cohort import TEST, TRAIN, Cohort


def problems(cohort: Cohort) -> list[str]:
    """Every obstacle with its remedy, all at once; reads masks only where the store has not counted them."""
    outlined = [case for case in cohort if case.label_image is not None]
    if not outlined or not cohort.labels:
        return ["No case has masks. Add them: vesalius label COHORT --masks DIR --names 1=NAME,2=NAME."]
    found = []
    if len({case.patient for case in outlined}) < 2:
        found.append("Masks of one patient only, so nobody is left to measure on. Add patients.")
    if len({case.label_image.grid.shape[2] == 1 for case in outlined if case.label_image}) > 1:
        found.append("Single planes and volumes are mixed. Make one cohort of each.")
    if len({image.channels for case in outlined for image in case.images if image.role == _role(case)}) > 1:
        found.append("Grey and colour images are mixed under one role. Give them different roles in roles.toml.")
    return found + _missing_classes(cohort, outlined) + _missing_parts(cohort, outlined)


def _role(case: Case) -> str:
    image = case.label_image
    return image.role if image else ""


def _missing_classes(cohort: Cohort, outlined: Sequence[Case]) -> list[str]:
    """Classes that occur nowhere, or nowhere in the training part."""
    present = _present_values(cohort, outlined)
    found = []
    for label in cohort.labels:
        holders = [case for case in outlined if label.value in present[case.id]]
        if not holders:
            found.append(f"No mask contains {label.name}. Leave it out of --names, or add cases that have it.")
        elif cohort.split and not any(cohort.split.parts.get(case.patient) == TRAIN for case in holders):
            found.append(f"No training case contains {label.name}. Draw the split anew, or leave it out of --names.")
    return found


def _missing_parts(cohort: Cohort, outlined: Sequence[Case]) -> list[str]:
    """Parts of the split without a single outlined case."""
    if cohort.split is None:
        return []
    filled = {cohort.split.parts.get(case.patient) for case in outlined}
    names = {TRAIN: "training", TEST: "test"}
    return [
        f"No case of the {names[part]} part has masks. Draw the split anew with vesalius split."
        for part in (TRAIN, TEST)
        if part not in filled
    ]


def _present_values(cohort: Cohort, outlined: Sequence[Case]) -> dict[str, set[int]]:
    """The values in each case's masks: as the store counted them, else as read."""
    counted: dict[str, dict[int, int]] = {}
    if (cohort.folder / "cohort.sqlite").exists():
        from vesalius.store.cohort import label_voxels

        counted = label_voxels(cohort.folder)
    present = {}
    for case in outlined:
        image = case.label_image
        if case.id in counted:
            present[case.id] = {value for value, voxels in counted[case.id].items() if voxels}
        elif image is not None:
            present[case.id] = {int(value) for value in np.unique(image.read())}
    return present
