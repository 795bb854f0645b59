"""The training cases that a rival looks at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.core.case import Case
from vesalius.core.errors import UnusableInput
from vesalius.core.image import Image, Kind


def drawn(cases: Sequence[Case], seed: int) -> list[Case]:
    """Cases with outlines in a random order, every patient's first before anybody's second."""
    known = sorted((case for case in cases if case.label_image is not None), key=lambda case: case.id)
    order = np.random.default_rng(seed).permutation(len(known))
    turn: dict[str, int] = {}
    rounds = []
    for index in order:
        patient = known[index].patient
        turn[patient] = turn.get(patient, 0) + 1
        rounds.append((turn[patient], known[index]))
    return [case for _, case in sorted(rounds, key=lambda item: item[0])]


def case_images(case: Case, inputs: Sequence[str]) -> list[Image]:
    """A case's images in the order of `inputs`.

    Raises:
        UnusableInput: one is missing.
    """
    images = [case.image(role) for role in inputs]
    if any(image is None for image in images):
        raise UnusableInput("The case lacks an input.", remedy=f"It needs: {', '.join(inputs)}.")
    return [image for image in images if image is not None]


def chosen_images(case: Case, inputs: Sequence[str]) -> list[Image]:
    """A case's intensity images with one of the roles of `inputs`, or all of them where no role is named.

    A view that the case lacks is left out.
    """
    images = [image for image in case.images if image.kind is Kind.INTENSITY]
    return [image for image in images if not inputs or image.role in inputs]
