"""What a detection's scores say: sentences, tables and plots as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.core.report import Metric, Plot, Series, Table
from vesalius.measures.free_response import RATES
from vesalius.measures.matching import LEAST_SHARE
from vesalius.measures.proportion import percent
from vesalius.measures.summary import MODEL, OVERALL, find_metric
from vesalius.measures.triage import Triage
from vesalius.measures.verdict import disagreements, listed, not_better, verdict
from vesalius.tasks.detection_data import Sample
from vesalius.tasks.site import Site
from vesalius.tasks.triage_findings import triage_of, triage_sentences, triage_table

PRIMARY = "sensitivity_at_2_fp"
TRIAGE_THRESHOLD = "sensitivity_99"  # of the card's thresholds
_COMPARED = (PRIMARY, "cpm", "ap_centre", "auroc")
_MOST_PLOTTED = 4
_FEW_LESIONS = 20
_LEFT = 1 / 16  # of the plot, in false positives per image


def sentences(
    sample: Sample,
    metrics: Sequence[Metric],
    arms: Mapping[str, str],
    unjudged: Sequence[str],
    site: Site,
    thresholds: Mapping[str, Any],
) -> list[str]:
    """Who won first, then what a reader must know about the figures."""
    found = [verdict(metrics, PRIMARY, arms), not_better(metrics, PRIMARY, arms)]
    found += disagreements([m for m in metrics if m.name in _COMPARED], PRIMARY, arms)
    found += _cpm(metrics, arms) + _counts(sample)
    found.append(
        "A mark hits where its centre lies in the ellipse that fits into the lesion's box (half axes of at least "
        f"{100 * LEAST_SHARE:g} % of the image's longest side). Each lesion is found once, by its surest mark; "
        "further marks on it count for nothing, and as false alarms in average precision at an overlap."
    )
    found += _at_own_threshold(metrics, arms)
    found += triage_sentences(_triage(sample, site, thresholds), site, arms, " or ".join(sample.classes))
    if unjudged:
        found.append(f"Not judged, because only the model or only the cohort knows them: {listed(unjudged)}.")
    return [sentence for sentence in found if sentence]


def tables(sample: Sample, site: Site, thresholds: Mapping[str, Any]) -> list[Table]:
    """What was found at which threshold, and what it cost; then the figures of triage."""
    rows = []
    for name in _present(sample):
        for arm in sample.arms:
            response = sample.response(arm, name, "centre")
            curve = response.curve()
            lesions, images = int(curve.lesions[0]), curve.images[0]
            for rate in RATES:
                step = int(np.flatnonzero(curve.alarms[0] <= (rate + 1e-9) * images)[-1])
                found, alarms = int(curve.found[0, step]), int(curve.alarms[0, step])
                threshold = f"{response.thresholds[step - 1]:.3g}" if step else "–"
                cost = f"{alarms / images:.2f}"
                rows.append((name, arm, f"{rate:g}", threshold, f"{found} of {lesions}", percent(found, lesions), cost))
    columns = (
        "Class",
        "Arm",
        "False positives allowed",
        "Threshold",
        "Found",
        "Sensitivity",
        "False positives per image",
    )
    table = Table("Operating points of the free-response curve", columns, tuple(rows))
    return [*([table] if rows else []), *triage_table(_triage(sample, site, thresholds), site)]


def plots(sample: Sample) -> list[Plot]:
    """The free-response curve of each class with both arms."""
    found = []
    for name in _present(sample)[:_MOST_PLOTTED]:
        lines = []
        for arm in sample.arms:
            alarms, share = sample.response(arm, name, "centre").curve().points()
            lines.append(_steps(arm, alarms.tolist(), share.tolist()))
        limits = (_LEFT, RATES[-1], 0.0, 1.0)
        title = f"Free-response curve: {name}"
        found.append(
            Plot(title, "False positives per image", "Sensitivity", tuple(lines), limits=limits, doubling=True)
        )
    return found


def _steps(arm: str, alarms: Sequence[float], share: Sequence[float]) -> Series:
    """The curve as steps within the plot: a sensitivity holds from the rate that it needs to the next one."""
    start = max((y for x, y in zip(alarms, share, strict=True) if x <= _LEFT), default=0.0)
    points = [(_LEFT, start)]
    for x, y in zip(alarms, share, strict=True):
        if x > _LEFT and x <= RATES[-1] and (y != points[-1][1] or x != points[-1][0]):
            points += [(x, points[-1][1]), (x, y)]
    points.append((RATES[-1], points[-1][1]))
    return Series(arm, tuple(x for x, _ in points), tuple(y for _, y in points), line=True)


def _present(sample: Sample) -> list[str]:
    return [name for name in sample.classes if sample.cases and sample.lesions[name].sum() > 0]


def _cpm(metrics: Sequence[Metric], arms: Mapping[str, str]) -> list[str]:
    mean = find_metric(metrics, MODEL, "cpm", OVERALL)
    if mean is None:
        return []
    return [
        f"Over 1/8 to 8 false positives per image {arms.get(MODEL, 'the model')}'s mean sensitivity (CPM) is "
        f"{mean.value:.2f} ({mean.low:.2f} to {mean.high:.2f})."
    ]


def own_thresholds(thresholds: Mapping[str, Any]) -> dict[str, float]:
    """The model's own threshold of each class: the score that left 2 false positives per image out of fold."""
    by_class = thresholds.get("false_positives_per_image")
    if not isinstance(by_class, Mapping):
        return {}
    found = {str(name): scores.get("2") for name, scores in by_class.items() if isinstance(scores, Mapping)}
    return {name: float(score) for name, score in found.items() if isinstance(score, (int, float))}


def _at_own_threshold(metrics: Sequence[Metric], arms: Mapping[str, str]) -> list[str]:
    """What the model's own threshold costs here, and finds where there is something to find."""
    cost = find_metric(metrics, MODEL, "own_false_positives", OVERALL)
    if cost is None:
        return []
    found = find_metric(metrics, MODEL, "own_sensitivity", OVERALL)
    finds = f", and finds {found.value:.2f} ({found.low:.2f} to {found.high:.2f}) of the lesions" if found else ""
    return [
        f"At the score that left 2 false positives per image when it was fitted, {arms.get(MODEL, 'the model')} makes "
        f"{cost.value:.2f} ({cost.low:.2f} to {cost.high:.2f}) here{finds}."
    ]


def _counts(sample: Sample) -> list[str]:
    if not sample.cases:
        return []
    parts = [f"{int(sample.lesions[name].sum())} of {name}" for name in sample.classes]
    said = f"{int(sample.images.sum())} images were looked over, with these many places: {listed(parts)}."
    few = [name for name in _present(sample) if sample.lesions[name].sum() < _FEW_LESIONS]
    return [said + (f" So few of {listed(few)} give rough figures." if few else "")]


def _triage(sample: Sample, site: Site, thresholds: Mapping[str, Any]) -> dict[str, Triage]:
    """By the surest mark of any class on a case: cases without a sure mark would be read later."""
    if not sample.cases or not sample.arms:
        return {}
    truth = np.sum([sample.lesions[name] for name in sample.classes], axis=0) > 0
    scores = {arm: np.max([one.highest for one in classes.values()], axis=0) for arm, classes in sample.arms.items()}
    own = thresholds.get(TRIAGE_THRESHOLD)
    return triage_of(truth, scores, sample.patients, site, float(own) if isinstance(own, (int, float)) else None)
