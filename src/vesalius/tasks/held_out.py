"""Which cases of a cohort a model may be measured on: nobody that it was fitted on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vesalius.core.case import Case
from vesalius.core.cohort import TEST, TRAIN, Cohort
from vesalius.core.errors import PatientOverlap, UsageError
from vesalius.core.identity import seen_hash


@dataclass(frozen=True)
class HeldOut:
    """The cases to measure on.

    Args:
        cases: that the model has not seen, by id.
        own: True where the model was fitted on this cohort's training part.
        sentence: why these cases, for the report.
    """

    cases: tuple[Case, ...]
    own: bool
    sentence: str


def held_out(cohort: Cohort, card: Mapping[str, Any]) -> HeldOut:
    """The test part of the cohort that the model was fitted on, or every case of another cohort.

    A cohort is the model's own where its content is what the card says, or where all patients that the model
    has seen stand in its training part (so that cases may have been added since). A model whose card says
    nothing of what it has seen is measured on the test part where there is one.

    Raises:
        PatientOverlap: patients to be measured on were seen in training.
        UsageError: there is nobody to measure on.
    """
    seen = frozenset(card.get("patients_seen") or ())
    digest = (card.get("cohort") or {}).get("digest")
    here = {seen_hash(patient) for patient in cohort.patients}
    training = {seen_hash(case.patient) for case in cohort.part(TRAIN)}
    training |= {seen_hash(patient) for patient in json.loads(cohort.meta.get("forgotten", "[]"))}  # withdrawn since
    own = bool(digest and digest == cohort.digest) or bool(seen and seen <= training)
    unknown = not seen and not digest
    if own or (unknown and cohort.part(TEST)):
        chosen = _test_part(cohort, seen)
        said = "The card does not say which patients the model has seen. " if unknown and not own else ""
        return HeldOut(chosen, own, said + _split_sentence(cohort))
    _refuse(len(seen & here))
    if not cohort.cases:
        raise UsageError("The cohort has no cases.", remedy="Ingest some first.", file=cohort.folder)
    if seen:
        return HeldOut(cohort.cases, False, "Every case of a cohort that the model was not fitted on.")
    return HeldOut(
        cohort.cases,
        False,
        "Every case. The card does not say which patients the model has seen, so overlap could not be checked.",
    )


def _test_part(cohort: Cohort, seen: frozenset[str]) -> tuple[Case, ...]:
    cases = cohort.part(TEST)
    if not cases:
        raise UsageError(
            "The model was fitted on this cohort, and nobody was held back to measure on.",
            remedy="Draw a split with a test part and fit again.",
            file=cohort.folder,
        )
    _refuse(len({case.patient for case in cases if seen_hash(case.patient) in seen}))
    return cases


def _refuse(overlap: int) -> None:
    if overlap:
        patients = "One patient was" if overlap == 1 else f"{overlap} patients were"
        raise PatientOverlap(
            f"{patients} seen in training and would be measured on.",
            remedy="Measure on the split that the model was fitted with, or on other patients.",
        )


def _split_sentence(cohort: Cohort) -> str:
    how = cohort.split.how if cohort.split else ""
    return f"Measured on the test part of the cohort, which the model was not fitted on. {how}".strip()
