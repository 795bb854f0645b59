"""One statement about a case. Truth and model output are the same type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vesalius.core.image import Image


@dataclass(frozen=True)
class Code:
    """A concept of a coding scheme, such as SNOMED CT (DICOM PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Mask:
    """The voxels of a label image that carry one value."""

    image: Image
    value: int


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in an image's own index space: centre and size in voxels along i, j, k."""

    image_id: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]


@dataclass(frozen=True)
class Point:
    """A position in an image's own index space, with a radius in voxels where one is known."""

    image_id: str
    centre: tuple[float, float, float]
    radius: float | None = None


@dataclass(frozen=True)
class Finding:
    """A statement: what (name and code), how sure (score 0..1), where (place), with what attributes."""

    name: str
    score: float = 1.0
    place: Mask | Box | Point | None = None
    code: Code | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
