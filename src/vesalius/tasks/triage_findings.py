"""The figures of triage as a reading room asks for them: one table and one or two sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy.typing as npt

from vesalius.core.report import Table
from vesalius.measures.intervals import Interval
from vesalius.measures.proportion import wilson
from vesalius.measures.summary import MODEL
from vesalius.measures.triage import SENSITIVITY, Triage, triage
from vesalius.tasks.site import Site

_SEED = 0


def triage_of(
    truth: npt.ArrayLike, scores: Mapping[str, npt.ArrayLike], patients: Sequence[str], site: Site, own: float | None
) -> dict[str, Triage]:
    """The figures of each arm; the model's threshold is `own` where training chose one, else chosen here."""
    found = {}
    for arm, score in scores.items():
        threshold = own if arm == MODEL else None
        one = triage(truth, score, patients, seed=_SEED, threshold=threshold, prevalence=site.prevalence)
        if one is not None:
            found[arm] = one
    return found


def triage_table(found: Mapping[str, Triage], site: Site) -> list[Table]:
    """One row per arm; empty where there is nothing to say."""
    if not found:
        return []
    rows = []
    for arm, one in found.items():
        seconds = one.cases_later.value * site.seconds
        rows.append(
            (
                arm,
                f"{one.threshold:.3g}",
                "before" if one.given else "on these cases",
                _percent(one.sensitivity),
                _percent(one.normals_later),
                _percent(one.ppv),
                _percent(one.npv),
                f"{seconds:.1f} of {site.seconds:g} s",
            )
        )
    prevalence = next(iter(found.values())).prevalence
    said = "at the site's prevalence" if site.prevalence else "at the prevalence of these cases"
    return [
        Table(
            f"Triage at {100 * SENSITIVITY:.0f} % sensitivity, {said} ({100 * prevalence:.2g} %)",
            (
                "Arm", "Threshold", "Chosen", "Sensitivity", "Others read later", "PPV above", "NPV below",
                "Reading put off per case",
            ),
            tuple(rows),
        )
    ]  # fmt: skip


def triage_sentences(found: Mapping[str, Triage], site: Site, arms: Mapping[str, str], sought: str) -> list[str]:
    """What could be read later, at what price, and how little the sample can promise; `sought` is read first."""
    one = found.get(MODEL)
    if one is None:
        return []
    name = arms.get(MODEL, "the model")
    basis = "a threshold chosen before" if one.given else "a threshold chosen on these same cases, which flatters"
    where = f"At a prevalence of {100 * one.prevalence:.2g} %" + ("" if site.prevalence else " (that of these cases)")
    later, sick = 1000 * one.cases_later.value, 1000 * one.prevalence
    lost, most = sick * (1.0 - one.sensitivity.value), sick * (1.0 - one.sensitivity.low)
    sentences = [
        f"Triage for {sought}: with {basis}, {_percent(one.sensitivity)} of such cases would be read first, and "
        f"{_percent(one.normals_later)} of the others could be read later.",
        f"{where}, {name} would put off {later:.0f} of 1000 cases: {later * site.seconds / 3600:.1f} hours of reading "
        f"at {site.seconds:g} seconds each. Among them would be {lost:.1f} of the {sick:.0f} that are sought, or "
        f"{most:.1f} at the low end of the sensitivity. Of those read first {_percent(one.ppv)} would be sought ones.",
    ]
    best = wilson(one.diseased, one.diseased)[0]
    if best < SENSITIVITY:
        sentences.append(
            f"With {one.diseased} diseased cases a sensitivity of {100 * SENSITIVITY:.0f} % cannot be shown: even if "
            f"none were missed, it could be as low as {100 * best:.0f} %."
        )
    return sentences


def _percent(interval: Interval) -> str:
    values = [100 * value for value in (interval.value, interval.low, interval.high)]
    if values[0] != values[0]:
        return "–"
    digits = 1 if values[0] < 10 or values[0] > 99 else 0
    value, low, high = (f"{one:.{digits}f}" for one in values)
    return f"{value} % ({low} to {high})"
