"""Pictures of a classified case: its images, and over them where the model looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vesalius.core.case import Case
from vesalius.core.grid import Array
from vesalius.core.protocols import Prediction
from vesalius.core.report import Picture, Score
from vesalius.measures.summary import MODEL
from vesalius.measures.target import Target
from vesalius.tasks.panels import MODEL_COLOUR, Panel, plane_panel, sheet

_MOST_IMAGES = 3


def case_pictures(
    case: Case, predictions: Mapping[str, Prediction], scores: Sequence[Score], target: Target
) -> list[Picture]:
    """One picture: every image, beside it the class-activation map of the class that the model finds likeliest."""
    own = {(s.arm, s.class_name, s.name): s.value for s in scores if s.case == case.id}
    likeliest = max(range(len(target.classes)), key=lambda n: own.get((MODEL, target.classes[n], "probability"), 0.0))
    images = case.images[:_MOST_IMAGES]
    maps = _maps(predictions.get(MODEL), len(images), likeliest)
    share = 1.0 / (len(images) + sum(one is not None for one in maps))
    panels: list[Panel] = []
    for image, heat in zip(images, maps, strict=True):
        k = None if heat is None else _brightest(heat, image.grid.shape[2])
        panels.append(plane_panel(image, image.role, k=k, share=share))
        if heat is not None:
            title = f"what speaks for {target.classes[likeliest]}"
            panels.append(plane_panel(image, title, k=k, heat=heat, share=share, colour=MODEL_COLOUR))
    return [Picture(_caption(case, own, target, predictions), sheet(panels))]


def _caption(
    case: Case, own: Mapping[tuple[str, str, str], float], target: Target, predictions: Mapping[str, Prediction]
) -> str:
    arms = list(predictions)
    true = [name for name in target.classes if own.get((arms[0], name, "truth"), 0.0) > 0.5]
    parts = [f"Case {case.id}. Truth: {', '.join(true) or 'none'}."]
    for arm in arms:
        if predictions[arm].status != "ok":
            parts.append(f"{arm.capitalize()}: no answer.")
            continue
        said = sorted(
            ((own.get((arm, name, "probability"), float("nan")), name) for name in target.classes), reverse=True
        )
        parts.append(f"{arm.capitalize()}: {', '.join(f'{value:.2f} for {name}' for value, name in said[:3])}.")
    return " ".join(parts)


def _maps(prediction: Prediction | None, images: int, number: int) -> list[Array | None]:
    """The map (i', j', k') of one class for each image; None where the model gave none."""
    details = prediction.details if prediction is not None else {}
    each = [details.get(f"map_{place}") for place in range(images)]
    return [None if one is None or len(one) <= number else np.asarray(one)[number] for one in each]


def _brightest(heat: Array, planes: int) -> int:
    """The image's plane in which the map is highest."""
    place = int(np.argmax(np.asarray(heat).max(axis=(0, 1))))
    return min(int((place + 0.5) / heat.shape[2] * planes), planes - 1)
