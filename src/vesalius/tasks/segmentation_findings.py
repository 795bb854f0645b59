"""What a segmentation's scores say: sentences, tables and plots as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vesalius.core.report import Metric, Plot, Score, Series, Table
from vesalius.measures.catalogue import measure
from vesalius.measures.summary import MODEL, OVERALL, RIVAL, find_metric, overall_by_case
from vesalius.measures.verdict import disagreements, listed, verdict

FloatArray = npt.NDArray[np.float64]

_ERRORS = {"volume_error_ml": "volume_ml", "area_error_mm2": "area_mm2", "size_error_px": "size_px"}
_MOST_PLOTTED = 4  # classes with plots of their own; more share one
_FEW_PATIENTS = 10


def sentences(
    scores: Sequence[Score],
    metrics: Sequence[Metric],
    arms: Mapping[str, str],
    tolerance_mm: float,
    tolerance_pixels: float,
    unjudged: Sequence[str],
) -> list[str]:
    """Who won first, then the classes, then what a reader must know about the figures."""
    found = [verdict(metrics, "dice", arms), *disagreements(metrics, "dice", arms), *_by_class(metrics)]
    in_pixels = any(score.name == "hd95_px" for score in scores)
    tolerance = f"{tolerance_pixels:g} pixels" if in_pixels else f"{tolerance_mm:g} mm"
    found.append(f"Surface Dice is the share of both surfaces within {tolerance} of each other.")
    if in_pixels:
        found.append("The images state no physical spacing: distances and sizes are in pixels.")
    found += _few(metrics) + _absent(scores)
    if unjudged:
        found.append(f"Not judged, because only the model or only the cohort knows them: {listed(unjudged)}.")
    return found


def _by_class(metrics: Sequence[Metric]) -> list[str]:
    """One sentence with the model's Dice of each class, where there are several."""
    each = [m for m in metrics if m.arm == MODEL and m.name == "dice" and m.class_name != OVERALL]
    if len(each) < 2 or len(each) > 8:
        return []
    parts = [f"{m.class_name} {m.value:.2f} ({m.low:.2f} to {m.high:.2f})" for m in each]
    return [f"Mean Dice by class: {listed(parts)}."]


def _few(metrics: Sequence[Metric]) -> list[str]:
    overall = find_metric(metrics, MODEL, "dice")
    if overall is None or overall.n >= _FEW_PATIENTS:
        return []
    if overall.n == 1:
        return ["One patient gives no interval: low and high repeat the value."]
    return [f"With {overall.n} patients the intervals are rough."]


def _absent(scores: Sequence[Score]) -> list[str]:
    """How often a class is absent from the truth, and how such cases count."""
    empty: dict[str, list[bool]] = {}
    for truth, _, score in _sizes(scores, MODEL):
        empty.setdefault(score.class_name, []).append(truth == 0)
    parts = [f"{name} in {sum(flags)} of {len(flags)} cases" for name, flags in empty.items() if any(flags)]
    if not parts:
        return []
    return [
        f"Absent from the truth: {listed(parts)}. There, no outline counts as full agreement (Dice 1, HD95 "
        "0) and any outline as none (Dice 0, HD95 the image's diagonal)."
    ]


def tables(scores: Sequence[Score]) -> list[Table]:
    """How Dice spreads over cases, and how sizes agree (Bland and Altman, Lancet 1986)."""
    spread, agreement = [], []
    for arm in _arms(scores):
        for class_name in _classes(scores):
            dice = np.array([s.value for s in scores if (s.arm, s.class_name, s.name) == (arm, class_name, "dice")])
            low, middle, high = (float(q) for q in np.quantile(dice, (0.25, 0.5, 0.75)))
            spread.append((class_name, arm, len(dice), float(dice.min()), low, middle, high))
            truth, found = _paired_sizes(scores, arm, class_name)
            bias, lower, upper = _agreement(found - truth)
            agreement.append((class_name, arm, float(truth.mean()), float(found.mean()), bias, lower, upper))
    size = measure(_size_name(scores)).heading
    return [
        Table(
            "How Dice spreads over cases",
            ("Class", "Arm", "Cases", "Lowest", "Lower quartile", "Median", "Upper quartile"),
            tuple(spread),
        ),
        Table(
            f"How sizes agree: {size}",
            ("Class", "Arm", "Mean true", "Mean predicted", "Bias", "95 % limits from", "to"),
            tuple(agreement),
        ),
    ]


def plots(scores: Sequence[Score]) -> list[Plot]:
    """Dice by true size for every class, then Bland-Altman plots of size; many classes share one of each."""
    classes = _classes(scores)
    groups = [(name, [name]) for name in classes] if len(classes) <= _MOST_PLOTTED else [("all classes", classes)]
    size = measure(_size_name(scores))
    found = []
    for title, members in groups:
        series = [_dice_points(scores, arm, members) for arm in _arms(scores)]
        heading = f"Dice by {size.title.lower()}: {title}"
        found.append(Plot(heading, f"True {size.heading.lower()}", "Dice", tuple(series)))
    for title, members in groups:
        lines = _bland_altman(scores, members)
        unit = f" ({size.unit})"
        x_title, y_title = f"Mean of true and predicted{unit}", f"Predicted minus true{unit}"
        found.append(Plot(f"{size.title} agreement (Bland-Altman): {title}", x_title, y_title, tuple(lines)))
    return found


def caption(case: str, scores: Sequence[Score]) -> str:
    """What a picture of one case shows, with each arm's Dice."""
    parts = []
    for arm in _arms(scores):
        mean = overall_by_case(scores, arm, "dice").get(case, float("nan"))
        own = [s for s in scores if (s.case, s.arm, s.name) == (case, arm, "dice")]
        detail = f" ({', '.join(f'{s.class_name} {s.value:.2f}' for s in own)})" if 1 < len(own) <= 8 else ""
        parts.append(f"{arm} {mean:.2f}{detail}")
    return f"Case {case}. Dice: {'; '.join(parts)}."


def _arms(scores: Sequence[Score]) -> list[str]:
    present = {score.arm for score in scores}
    return [arm for arm in (MODEL, RIVAL) if arm in present]


def _classes(scores: Sequence[Score]) -> list[str]:
    return list(dict.fromkeys(score.class_name for score in scores))


def _size_name(scores: Sequence[Score]) -> str:
    return next((score.name for score in scores if score.name in _ERRORS.values()), "volume_ml")


def _sizes(scores: Sequence[Score], arm: str) -> Iterator[tuple[float, float, Score]]:
    """True size, predicted size and the error's row, for every case and class of one arm."""
    sizes = {
        (score.case, score.class_name): score.value
        for score in scores
        if score.arm == arm and score.name in _ERRORS.values()
    }
    for score in scores:
        if score.arm == arm and score.name in _ERRORS:
            found = round(sizes[score.case, score.class_name], 9)
            yield round(found - score.value, 9), found, score


def _paired_sizes(scores: Sequence[Score], arm: str, class_name: str) -> tuple[FloatArray, FloatArray]:
    pairs = [(truth, found) for truth, found, score in _sizes(scores, arm) if score.class_name == class_name]
    truth, found = np.array(pairs, dtype=np.float64).T
    return truth, found


def _agreement(errors: FloatArray) -> tuple[float, float, float]:
    """Bias and the limits between which 95 % of errors are expected."""
    bias = float(errors.mean())
    spread = 1.96 * float(errors.std(ddof=1)) if len(errors) > 1 else 0.0
    return bias, bias - spread, bias + spread


def _dice_points(scores: Sequence[Score], arm: str, classes: Sequence[str]) -> Series:
    dice = {(s.case, s.class_name): s.value for s in scores if s.arm == arm and s.name == "dice"}
    points = [
        (truth, dice[score.case, score.class_name])
        for truth, _, score in _sizes(scores, arm)
        if score.class_name in classes
    ]
    return Series(arm, tuple(x for x, _ in points), tuple(y for _, y in points))


def _bland_altman(scores: Sequence[Score], classes: Sequence[str]) -> list[Series]:
    """The points of each arm, then the model's bias and limits as lines across the plot."""
    points = []
    for arm in _arms(scores):
        sizes = [(truth, found) for truth, found, score in _sizes(scores, arm) if score.class_name in classes]
        truth, found = np.array(sizes, dtype=np.float64).T
        middle, error = (truth + found) / 2.0, found - truth
        points.append(Series(arm, tuple(middle.tolist()), tuple(error.tolist())))
    if len(points[0].y) < 2:
        return points
    bias, low, high = _agreement(np.array(points[0].y))
    every = [x for series in points for x in series.x]
    ends = min(every), max(every)
    levels = (("bias", bias), ("95 % limit", low), ("95 % limit", high))
    return points + [Series(name, ends, (level, level), line=True) for name, level in levels]
