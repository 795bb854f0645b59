"""What a fitted rival leaves in the cohort's folder: JSON and `.npz` files, nothing that is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vesalius.core.cohort import TRAIN, Cohort
from vesalius.core.identity import seen_hash
from vesalius.core.image import Image
from vesalius.core.protocols import RESEARCH_ONLY, Prediction


@dataclass(frozen=True)
class Kept:
    """A fitted rival as plain data.

    Args:
        kind: which class makes a model of it again.
        values: what JSON can hold, the card among it.
        files: arrays as compressed `.npz` bytes, by name.
    """

    kind: str
    values: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        json.dumps(self.values, allow_nan=False)


def rival_card(
    name: str, how: str, parameters: Mapping[str, Any], cohort: Cohort, *, inputs: tuple[str, ...], seed: int
) -> dict[str, Any]:
    """The card that every rival carries: what it is in a sentence, its parameters and its seed."""
    return {
        "name": name,
        "task": "segmentation",
        "how": how,
        "parameters": dict(parameters),
        "seed": seed,
        "inputs": list(inputs),
        "classes": [{"value": label.value, "name": label.name} for label in cohort.labels],
        "ignore": cohort.ignore,
        "cohort": {"digest": cohort.digest},
        "patients_seen": sorted({seen_hash(case.patient) for case in cohort.part(TRAIN)}),
        "research_only": RESEARCH_ONLY,
        "sentences": [how],
    }


class FittedRival(Protocol):
    """A fitted rival: a `core.protocols.Model` that can be kept as plain data."""

    card: Mapping[str, Any]

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Answer for one case."""
        ...

    def keep(self) -> Kept:
        """The model as JSON values and `.npz` bytes."""
        ...
