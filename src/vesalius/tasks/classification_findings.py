"""What a classification's scores say: sentences, tables and plots as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.core.grid import FloatArray
from vesalius.core.report import Metric, Plot, Series, Table
from vesalius.measures.agreement import Confusions
from vesalius.measures.delong import delong
from vesalius.measures.proportion import percent
from vesalius.measures.ranking import (
    precision_recall_curve,
    roc_curve,
    threshold_at_sensitivity,
    threshold_at_specificity,
)
from vesalius.measures.reliability import Reliability
from vesalius.measures.summary import MODEL, OVERALL, RIVAL, find_metric
from vesalius.measures.target import Target
from vesalius.measures.triage import Triage
from vesalius.measures.verdict import disagreements, listed, not_better, verdict
from vesalius.tasks.classification_data import (
    Sample,
    class_numbers,
    class_title,
    judged_classes,
    named_negative,
    positive_class,
)
from vesalius.tasks.site import Site
from vesalius.tasks.triage_findings import triage_of, triage_sentences, triage_table

_MOST_PLOTTED = 4  # classes with plots of their own
_FEW_CASES = 20
_UNIT = (0.0, 1.0, 0.0, 1.0)
_COMPARED = ("auprc", "balanced_accuracy", "kappa_quadratic", "brier")
TRIAGE_THRESHOLD = "sensitivity_99"  # of the card's thresholds, for the probability of the second of two classes


def sentences(
    sample: Sample,
    target: Target,
    metrics: Sequence[Metric],
    arms: Mapping[str, str],
    unjudged: Sequence[str],
    site: Site,
    thresholds: Mapping[str, Any],
) -> list[str]:
    """Who won first, then the classes, then what a reader must know about the figures."""
    found = [verdict(metrics, "auroc", arms), not_better(metrics, "auroc", arms), *_delong(sample, target)]
    found += disagreements([m for m in metrics if m.name in ("auroc", *_COMPARED)], "auroc", arms)
    found += [*_by_class(metrics, target), *_own_threshold(metrics, target, arms), *_calibration(sample, target)]
    found += _few(sample, target)
    if sought := _sought(target):
        triage = _triage(sample, target, site, thresholds)
        found += triage_sentences(triage, site, arms, class_title(target, sought[0]))
    if unjudged:
        found.append(f"Not judged, because only the model or only the cohort knows them: {listed(unjudged)}.")
    return [sentence for sentence in found if sentence]


def tables(sample: Sample, target: Target, site: Site, thresholds: Mapping[str, Any]) -> list[Table]:
    """Confusion and operating points with intervals, areas with DeLong's test, and the figures of triage."""
    if not sample.cases:
        return []
    found = [_confusion(sample, target, arm) for arm in sample.arms] if target.kind != "multilabel" else []
    found += [_operating_points(sample, target), *_areas(sample, target)]
    return found + triage_table(_triage(sample, target, site, thresholds), site)


def plots(sample: Sample, target: Target) -> list[Plot]:
    """ROC, precision and recall, and calibration of each judged class."""
    found = []
    for number in _plotted(sample, target):
        title = class_title(target, number)
        curves = {arm: (a.truth[:, number], a.probability[:, number]) for arm, a in sample.arms.items()}
        truth = next(iter(curves.values()))[0]
        share = float(np.nanmean(truth))
        found.append(
            Plot(
                f"ROC: {title}",
                "1 − specificity",
                "Sensitivity",
                (*(_line(arm, *roc_curve(*curve)) for arm, curve in curves.items()), _guide(0.0, 1.0)),
                limits=_UNIT,
            )
        )
        found.append(
            Plot(
                f"Precision and recall: {title}",
                "Recall (sensitivity)",
                "Precision (positive predictive value)",
                (
                    *(_stairs(arm, *precision_recall_curve(*curve)) for arm, curve in curves.items()),
                    _guide(share, share),
                ),
                limits=_UNIT,
            )
        )
        bins = {arm: Reliability(*curve).curve() for arm, curve in curves.items()}
        lines = [_line(arm, [b.probability for b in found], [b.share for b in found]) for arm, found in bins.items()]
        found.append(
            Plot(
                f"Calibration: {title}", "Mean probability", "Observed share", (*lines, _guide(0.0, 1.0)), limits=_UNIT
            )
        )
    return found


def _line(name: str, x: FloatArray | list[float], y: FloatArray | list[float]) -> Series:
    return Series(name, tuple(float(value) for value in x), tuple(float(value) for value in y), line=True)


def _stairs(name: str, recall: FloatArray, precision: FloatArray) -> Series:
    """Precision holds back to the recall before it, as average precision counts it: no line between the two."""
    x = np.repeat(np.concatenate([[0.0], recall]), 2)[1:-1]
    return _line(name, x, np.repeat(precision, 2))


def _guide(left: float, right: float) -> Series:
    """A thin line without a name: what guessing, or perfect calibration, would give."""
    return Series("", (0.0, 1.0), (left, right), line=True)


def _plotted(sample: Sample, target: Target) -> list[int]:
    """Judged classes that both occur and lack in the sample; the most frequent ones where they are many."""
    answers = next(iter(sample.arms.values()), None)
    if answers is None:
        return []
    counts = {n: int(np.nansum(answers.truth[:, n])) for n in judged_classes(target)}
    both = [n for n, count in counts.items() if 0 < count < int(np.isfinite(answers.truth[:, n]).sum())]
    return sorted(sorted(both, key=lambda n: -counts[n])[:_MOST_PLOTTED])


def _delong(sample: Sample, target: Target) -> list[str]:
    """The test of the two areas in a sentence, where there is one area to compare."""
    rows = _tests(sample, target) if target.kind == "binary" else []
    return [f"DeLong's test of equal areas on the same cases: p {_p(p)}." for *_, p in rows if np.isfinite(p)]


def _areas(sample: Sample, target: Target) -> list[Table]:
    rows = [
        (target.classes[number], float(ours), float(theirs), float(ours - theirs), _p(p).removeprefix("= "))
        for number, ours, theirs, p in _tests(sample, target)
    ]
    columns = ("Class", "Model's AUROC", "Rival's AUROC", "Difference", "p")
    return [
        Table("DeLong's test of equal areas, paired; p is not adjusted for several classes", columns, tuple(rows))
    ] * (len(rows) > 0)


def _tests(sample: Sample, target: Target) -> list[tuple[int, float, float, float]]:
    """Class, both areas and p of DeLong's test, for each judged class of which there are both kinds of cases."""
    if MODEL not in sample.arms or RIVAL not in sample.arms:
        return []
    rows = []
    for number in judged_classes(target):
        truth = sample.arms[MODEL].truth[:, number]
        known = np.flatnonzero(np.isfinite(truth))
        if len(set(truth[known])) < 2:
            continue
        both = np.stack([sample.arms[arm].probability[known, number] for arm in (MODEL, RIVAL)])
        found = delong(truth[known], both, [sample.patients[int(case)] for case in known])
        rows.append((number, float(found.areas[0]), float(found.areas[1]), found.p_value()))
    return rows


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.1 else f"= {value:.2f}"


def _by_class(metrics: Sequence[Metric], target: Target) -> list[str]:
    each = [m for m in metrics if m.arm == MODEL and m.name == "auroc" and m.class_name != OVERALL]
    if target.kind == "binary" or not 2 <= len(each) <= 8:
        return []
    parts = [f"{m.class_name} {m.value:.2f} ({m.low:.2f} to {m.high:.2f})" for m in each]
    return [f"AUROC is the mean over classes, each against the others: {listed(parts)}."]


def _own_threshold(metrics: Sequence[Metric], target: Target, arms: Mapping[str, str]) -> list[str]:
    """How often the named class is right."""
    name = arms.get(MODEL, "the model")
    balanced = find_metric(metrics, MODEL, "balanced_accuracy")
    right = find_metric(metrics, MODEL, "accuracy")
    grade = find_metric(metrics, MODEL, "kappa_quadratic")
    if balanced is None:
        return []
    parts = [f"balanced accuracy {balanced.value:.2f} ({balanced.low:.2f} to {balanced.high:.2f})"]
    if right is not None:
        parts.append(f"accuracy {right.value:.2f} ({right.low:.2f} to {right.high:.2f})")
    if grade is not None:
        parts.append(f"quadratic kappa {grade.value:.2f} ({grade.low:.2f} to {grade.high:.2f})")
    return [f"At {name}'s own threshold: {listed(parts)}."]


def _calibration(sample: Sample, target: Target) -> list[str]:
    """Mean probability beside the observed share of the one class to be found."""
    if target.kind != "binary" or MODEL not in sample.arms:
        return []
    number = positive_class(target.classes)
    answers = sample.arms[MODEL]
    said, true = float(np.mean(answers.probability[:, number])), float(np.nanmean(answers.truth[:, number]))
    return [f"The mean probability of {class_title(target, number)} is {said:.2f}; {true:.2f} of the cases have it."]


def _few(sample: Sample, target: Target) -> list[str]:
    if not sample.arms:
        return []
    truth = next(iter(sample.arms.values())).truth
    rare = []
    for number in range(len(target.classes)):
        count = int(np.nansum(truth[:, number] > 0.5))
        if count < _FEW_CASES:
            rare.append(f"{target.classes[number]} ({count})")
    return [f"Few cases, so rough figures: {listed(rare)}."] if rare else []


def _sought(target: Target) -> list[int]:
    """The one class to be found, where there is one."""
    if target.kind == "binary":
        return [positive_class(target.classes)]
    sick = [number for number, name in enumerate(target.classes) if not named_negative(name)]
    return sick if target.kind != "multilabel" and len(sick) == 1 else []


def _triage(sample: Sample, target: Target, site: Site, thresholds: Mapping[str, Any]) -> dict[str, Triage]:
    """Of the one class to be found; nothing where there is no such class."""
    sought = _sought(target)
    if not sought or not sample.arms:
        return {}
    number = sought[0]
    own = thresholds.get(TRIAGE_THRESHOLD) if target.kind == "binary" and number == 1 else None
    scores = {arm: answers.probability[:, number] for arm, answers in sample.arms.items()}
    truth = next(iter(sample.arms.values())).truth[:, number]
    return triage_of(truth, scores, sample.patients, site, float(own) if isinstance(own, (int, float)) else None)


def _confusion(sample: Sample, target: Target, arm: str) -> Table:
    """True classes by predicted ones, with the share of each true class that is right."""
    answers = sample.arms[arm]
    counts = Confusions(class_numbers(answers.truth), class_numbers(answers.predicted), len(target.classes)).counts()[0]
    silent = bool(counts[:, -1].any())
    rows: list[tuple[str | float | int, ...]] = [
        (name, *(int(count) for count in (row if silent else row[:-1])), percent(row[number], row.sum()))
        for number, (name, row) in enumerate(zip(target.classes, counts, strict=True))
    ]
    columns = ("True class", *(f"named {name}" for name in target.classes), *(("no answer",) if silent else ()))
    return Table(f"Confusion of the {arm}: cases", (*columns, "Right (95 % interval)"), tuple(rows))


def _operating_points(sample: Sample, target: Target) -> Table:
    rows = []
    for number in judged_classes(target):
        for arm, answers in sample.arms.items():
            truth, said = answers.truth[:, number], answers.probability[:, number]
            known = np.isfinite(truth)
            if len(set(truth[known])) < 2:
                continue
            marks = {"its own choice": answers.predicted[:, number] > 0.5}
            for title, threshold in (
                ("90 % specificity", threshold_at_specificity(truth, said, 0.9)),
                ("90 % sensitivity", threshold_at_sensitivity(truth, said, 0.9)),
            ):
                marks[f"{title} (from {threshold:.2g})"] = said >= threshold
            for title, marked in marks.items():
                rows.append((target.classes[number], arm, title, *_shares(truth[known] > 0.5, marked[known])))
    return Table(
        "Operating points, with the predictive values among these cases",
        ("Class", "Arm", "Threshold", "Sensitivity", "Specificity", "PPV", "NPV"),
        tuple(rows),
    )


def _shares(truth: Any, marked: Any) -> tuple[str, str, str, str]:
    """Sensitivity, specificity, PPV and NPV with Wilson's intervals."""
    both, neither = int((truth & marked).sum()), int((~truth & ~marked).sum())
    return (
        percent(both, int(truth.sum())),
        percent(neither, int((~truth).sum())),
        percent(both, int(marked.sum())),
        percent(neither, int((~marked).sum())),
    )
