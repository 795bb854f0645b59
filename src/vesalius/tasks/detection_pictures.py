"""Pictures of a case with its known places and the marks of each arm: hits, misses and false alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vesalius.core.case import Case
from vesalius.core.finding import Box
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction
from vesalius.core.report import Picture
from vesalius.measures.matching import centre_agreement, match
from vesalius.measures.summary import MODEL
from vesalius.measures.target import Target
from vesalius.tasks.panels import MODEL_COLOUR, RIVAL_COLOUR, TRUTH, Mark, plane_panel, sheet

_MOST_IMAGES = 2
_MARKS = 3  # of each arm, class and image that are drawn and told of, the surest first


@dataclass(frozen=True)
class _Marked:
    """The surest marks of one arm on one image: score, box, and whether it hits (None: a second mark)."""

    marks: tuple[tuple[float, Box, bool | None], ...]
    missed: int


def case_pictures(case: Case, predictions: Mapping[str, Prediction], target: Target) -> list[Picture]:
    """One sheet per image, the ones with known places first: bare, then with the marks of each arm."""
    truth = target.places(case)
    shown = sorted((image for image in case.images if image.id in truth), key=lambda image: -len(truth[image.id]))
    return [_picture(case, image, truth[image.id], predictions, target) for image in shown[:_MOST_IMAGES]]


def _picture(
    case: Case, image: Image, lesions: list[tuple[int, Box]], predictions: Mapping[str, Prediction], target: Target
) -> Picture:
    found = {arm: _marked(image, lesions, prediction, target) for arm, prediction in predictions.items()}
    k = _plane(image, [box for _, box in lesions], found)
    share = 1.0 / (1 + len(found))
    panels = [plane_panel(image, image.role, k=k, share=share)]
    true = [Mark(box, TRUTH, round=True) for _, box in lesions]
    for arm, marked in found.items():
        colour = MODEL_COLOUR if arm == MODEL else RIVAL_COLOUR
        marks = [Mark(box, colour, f"{score:.2f}") for score, box, _ in marked.marks]
        panels.append(plane_panel(image, arm, k=k, marks=[*true, *marks], share=share, colour=colour))
    told = " ".join(_told(arm, marked, len(lesions)) for arm, marked in found.items())
    legend = [("ellipse: known place", TRUTH), ("box with score: mark", MODEL_COLOUR)]
    return Picture(f"Case {case.id}, {image.role}. {told}", sheet(panels, legend))


def _marked(image: Image, lesions: list[tuple[int, Box]], prediction: Prediction, target: Target) -> _Marked:
    rows: list[tuple[float, Box, bool | None]] = []
    missed = 0
    for number, name in enumerate(target.classes):
        own = [
            (float(finding.score), finding.place)
            for finding in prediction.findings
            if isinstance(finding.place, Box)
            and finding.place.image_id == image.id
            and finding.name.casefold() == name.casefold()
        ]
        own = sorted(own, key=lambda item: -item[0])[:_MARKS]
        boxes = [box for kind, box in lesions if kind == number]
        hits = match(centre_agreement([box for _, box in own], boxes, image.grid), 0.0)
        missed += len(boxes) - len({hit for hit in hits if hit > 0})
        kinds = [True if hit > 0 else None if hit < 0 else False for hit in hits]
        rows += [(score, box, kind) for (score, box), kind in zip(own, kinds, strict=True)]
    return _Marked(tuple(sorted(rows, key=lambda row: -row[0])), missed)


def _told(arm: str, marked: _Marked, lesions: int) -> str:
    """Hits, misses and false alarms of one arm in words."""
    hits = [f"{score:.2f}" for score, _, kind in marked.marks if kind]
    alarms = [f"{score:.2f}" for score, _, kind in marked.marks if kind is False]
    parts = []
    if lesions:
        parts.append(f"hits {', '.join(hits)}" if hits else "no hit")
    if marked.missed:
        parts.append(f"misses {marked.missed}")
    parts.append(f"false alarms {', '.join(alarms)}" if alarms else "no false alarm")
    return f"{arm.capitalize()} ({_MARKS} surest marks): {'; '.join(parts)}."


def _plane(image: Image, lesions: list[Box], found: Mapping[str, _Marked]) -> int:
    """The plane of the largest lesion, else of the model's surest mark, else the middle one."""
    if lesions:
        return round(max(lesions, key=lambda box: box.size[0] * box.size[1]).centre[2])
    for marked in found.values():
        if marked.marks:
            return round(marked.marks[0][1].centre[2])
    return image.grid.shape[2] // 2
