"""Cases as rows of named numbers: hand-designed features pooled over a case's images, on a common scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.classical.radiomics import image_features
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, FloatArray
from vesalius.core.image import Image, Kind

_MOST_ROLES = 4  # beyond which roles are pooled only
_FURTHEST = 4.0  # deviations at which a value counts as extreme and no more


def case_features(images: Sequence[Image], outlines: Mapping[str, Array] | None = None) -> dict[str, float]:
    """Hand-designed features of one case, pooled over its images.

    Every feature is averaged over the images; where there are several, the highest stands beside
    ("highest:..."), and, of up to four roles, the average of each ("T1:...").

    Args:
        images: intensity images; others are passed over.
        outlines: (i, j, k) masks by image id; an image without one is described as a whole.

    Raises:
        UnusableInput: there is no intensity image, or an outline is empty or does not fit.
    """
    chosen = [image for image in images if image.kind is Kind.INTENSITY]
    if not chosen:
        raise UnusableInput("The case has no image.", remedy="Ingest its images again.")
    found = [image_features(image, (outlines or {}).get(image.id)) for image in chosen]
    pooled = _means(found)
    if len(found) > 1:
        names = pooled.keys()
        pooled |= {f"highest:{name}": max(each[name] for each in found if name in each) for name in names}
        roles = sorted({image.role for image in chosen})
        if 1 < len(roles) <= _MOST_ROLES:
            for role in roles:
                own = _means([each for each, image in zip(found, chosen, strict=True) if image.role == role])
                pooled |= {f"{role}:{name}": value for name, value in own.items()}
    return pooled


def outlined_features(images: Sequence[Image], ignore: int | None = None) -> dict[str, float] | None:
    """Features inside the outlines that stand among a case's images, or None where there is none or it is empty.

    Args:
        images: intensity and label images; a label image outlines the intensity image on the same grid.
        ignore: label value that is no outline.
    """
    outlines: dict[str, Array] = {}
    for label in images:
        if label.kind is not Kind.LABEL:
            continue
        values = label.read()
        inside = (values != 0) & (values != ignore) if ignore is not None else values != 0
        if inside.any():
            same = [image for image in images if image.kind is Kind.INTENSITY and image.grid.matches(label.grid)]
            outlines |= {image.id: inside for image in same}
    if not outlines:
        return None
    return case_features([image for image in images if image.id in outlines], outlines)


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in found for name in each)
    return {name: float(np.mean([each[name] for each in found if name in each])) for name in names}


def rows(found: Sequence[Mapping[str, float]], names: Sequence[str]) -> FloatArray:
    """(cases, names) values. The mean of a case's views stands in for one that it lacks; else NaN."""
    return np.array([[_value(each, name) for name in names] for each in found], np.float64)


def _value(features: Mapping[str, float], name: str) -> float:
    """A feature, or without it the same one averaged over whatever views there are."""
    return features.get(name, features.get(name.rsplit(":", 1)[-1], np.nan))


@dataclass(frozen=True, eq=False)
class Scale:
    """What takes features to a common scale: middle and spread of the training cases.

    Args:
        middle: (features,) medians.
        spread: (features,) robust deviations; infinite for features that never change.
    """

    middle: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, values: FloatArray) -> Scale:
        """The scale of (cases, features); NaN are passed over."""
        known = np.where(np.any(np.isfinite(values), axis=0, keepdims=True), values, 0.0)
        low, middle, high = np.nanpercentile(known, [25, 50, 75], axis=0)
        wide, deviation = (high - low) / 1.349, np.nanstd(known, axis=0)
        spread = np.where(wide > 1e-3 * deviation, wide, deviation)
        still = deviation <= 1e-9 * np.maximum(1.0, np.abs(middle))
        return cls(middle, np.where(still, np.inf, spread))

    def apply(self, values: FloatArray) -> FloatArray:
        """Deviations from the middle, far ones drawn in (inverse hyperbolic sine); 0 where a value is missing."""
        scaled = np.arcsinh((np.nan_to_num(values, nan=0.0) - self.middle) / self.spread)
        limited: FloatArray = np.clip(np.where(np.isfinite(values), scaled, 0.0), -_FURTHEST, _FURTHEST)
        return limited
