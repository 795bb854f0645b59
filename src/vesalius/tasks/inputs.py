"""Which of a case's images a model is asked about."""

from __future__ import annotations

from collections.abc import Sequence

from vesalius.core.case import Case
from vesalius.core.errors import UnusableInput
from vesalius.core.image import Image, Kind

ANY_ROLE = "image"  # the role of images that nothing is known of


def inputs_of(case: Case, roles: Sequence[str]) -> tuple[Image, ...]:
    """The case's images in the order of a model's input roles; all of its intensity images without roles.

    A single image is taken for a single role where one of the two says nothing about what it is.

    Raises:
        UnusableInput: the case lacks an image that the model needs.
    """
    images = tuple(image for image in case.images if image.kind is Kind.INTENSITY)
    if not images:
        raise UnusableInput("The case has no image.", remedy="Ingest its images again.")
    if not roles:
        return images
    if len(roles) == len(images) == 1 and ANY_ROLE in (roles[0], images[0].role):
        return images
    found = [next((image for image in images if image.role == role), None) for role in roles]
    missing = [role for role, image in zip(roles, found, strict=True) if image is None]
    if missing:
        there = ", ".join(image.role for image in images)
        raise UnusableInput(
            f"The model needs {', '.join(missing)}, but the case has {there} only.",
            remedy="Add the missing images, or correct their roles in roles.toml and ingest again.",
        )
    return tuple(image for image in found if image is not None)
