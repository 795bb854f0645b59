"""A de-identified patient-visit: what learning code may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vesalius.core.finding import Finding, Mask
from vesalius.core.image import Image

Covariate = float | str


@dataclass(frozen=True)
class Case:
    """A de-identified patient-visit. It has no field that could name anybody.

    Args:
        id: pseudonym of the visit, unique in its cohort.
        patient: pseudonym of the patient; splits and intervals group by it.
        images: what was acquired.
        findings: the truth that is known, if any.
        covariates: numbers or words from tables, by name.
        assessed: ids of the images that somebody looked over for places (points, boxes, masks): no finding
            there means that there is none. In every other image, nothing is known.
    """

    id: str
    patient: str
    images: tuple[Image, ...]
    findings: tuple[Finding, ...] = ()
    covariates: Mapping[str, Covariate] = field(default_factory=dict)
    assessed: frozenset[str] = frozenset()

    def image(self, role: str) -> Image | None:
        """The image with this role, or None."""
        return next((image for image in self.images if image.role == role), None)

    @property
    def label_image(self) -> Image | None:
        """The label map that the case's masks lie in, or None where no mask is known."""
        places = (finding.place for finding in self.findings)
        return next((place.image for place in places if isinstance(place, Mask)), None)
