"""Who won, by how much, and whether chance could have done it: one honest sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vesalius.core.report import Metric
from vesalius.measures.catalogue import Better, measure
from vesalius.measures.summary import DIFFERENCE, MODEL, RIVAL, find_metric


def verdict(metrics: Sequence[Metric], name: str, arms: Mapping[str, str]) -> str:
    """The headline of a report: the model's mean against the rival's on the same patients.

    Args:
        metrics: of the arms model, rival and difference.
        name: the measure that decides; higher or lower must be better.
        arms: what model and rival are called in running text, such as "the multi-atlas segmentation".
    """
    model, rival = arms.get(MODEL, "the model"), arms.get(RIVAL, "the rival")
    ours, theirs = find_metric(metrics, MODEL, name), find_metric(metrics, RIVAL, name)
    difference = find_metric(metrics, DIFFERENCE, name)
    if ours is None:
        return f"Nothing could be measured of {model}."
    title = measure(name).phrase
    if theirs is None or difference is None:
        return (
            f"{_first(model)}'s {title} is {_with_interval(ours, 2)} on {_patients(ours.n)}; "
            "there is no hand-designed rival to compare it with."
        )
    digits = _digits(difference)
    if difference.n == 1:
        return (
            f"On one patient {model}'s {measure(name).title} is {ours.value:.{digits}f} and {rival}'s "
            f"{theirs.value:.{digits}f}: too few to say who wins."
        )
    sign = _sign(difference)
    if sign > 0:
        return _won(model, rival, ours, difference, title, digits)
    if sign < 0:
        won = _won(rival, model, theirs, difference, title, digits)
        return f"The hand-designed rival wins: {won[0].lower()}{won[1:]}"
    return (
        f"No difference shown: {model}'s {title} is {_with_interval(ours, digits)} and {rival}'s "
        f"{_with_interval(theirs, digits)}; the difference of {_with_interval(difference, digits)} "
        f"on the same {_patients(difference.n)} could be chance."
    )


def not_better(metrics: Sequence[Metric], name: str, arms: Mapping[str, str]) -> str:
    """A sentence where the model is not better than its rival beyond chance; "" where it is, or nothing is known."""
    difference = find_metric(metrics, DIFFERENCE, name)
    if difference is None or difference.n == 1 or _sign(difference) > 0:
        return ""
    shown = "" if _sign(difference) < 0 else "shown to be "
    model, rival = _first(arms.get(MODEL, "the model")), arms.get(RIVAL, "the rival")
    return f"{model} is not {shown}better than the hand-designed rival, {rival}."


def disagreements(metrics: Sequence[Metric], name: str, arms: Mapping[str, str]) -> list[str]:
    """Measures by which the other arm wins than by the deciding one, or one wins where that shows none."""
    decided = _sign(find_metric(metrics, DIFFERENCE, name))
    found = []
    for other in dict.fromkeys(metric.name for metric in metrics if metric.name != name):
        difference = find_metric(metrics, DIFFERENCE, other)
        sign = _sign(difference)
        ours, theirs = find_metric(metrics, MODEL, other), find_metric(metrics, RIVAL, other)
        if sign in (0, decided) or ours is None or theirs is None:
            continue
        winner = arms.get(MODEL if sign > 0 else RIVAL, "the other arm")
        kind = measure(other)
        unit = f" {kind.unit}" if kind.unit else ""
        found.append(
            f"By {kind.title} {winner} is better: {ours.value:.2f}{unit} for {arms.get(MODEL, 'the model')}, "
            f"{theirs.value:.2f}{unit} for {arms.get(RIVAL, 'the rival')}."
        )
    return found


def _sign(difference: Metric | None) -> int:
    """1 where the model is better beyond chance, -1 where the rival is, else 0."""
    if difference is None or difference.n == 1:
        return 0
    direction = {Better.HIGHER: 1, Better.LOWER: -1}.get(measure(difference.name).better, 0)
    if difference.low > 0:
        return direction
    return -direction if difference.high < 0 else 0


def listed(parts: Sequence[str]) -> str:
    """Parts as running text: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _won(winner: str, loser: str, mean: Metric, difference: Metric, title: str, digits: int) -> str:
    """The sentence for a clear winner; the difference is stated without its sign."""
    low, high = sorted((abs(difference.low), abs(difference.high)))
    where = "above" if (difference.value > 0) == (mean.arm == MODEL) else "below"
    by = f"{abs(difference.value):.{digits}f} ({low:.{digits}f} to {high:.{digits}f}) {where} {loser}"
    return f"{_first(winner)}'s {title} is {_with_interval(mean, digits)}, {by} on the same {_patients(mean.n)}."


def _digits(difference: Metric) -> int:
    """Two decimals, or as many as it takes to tell the difference's bounds from 0."""
    smallest = min(abs(value) for value in (difference.value, difference.low, difference.high))
    return 2 if smallest >= 0.005 else 3


def _with_interval(metric: Metric, digits: int) -> str:
    if metric.n == 1:
        return f"{metric.value:.{digits}f}"
    return f"{metric.value:.{digits}f} ({metric.low:.{digits}f} to {metric.high:.{digits}f})"


def _patients(n: int) -> str:
    return "one patient" if n == 1 else f"{n} patients"


def _first(text: str) -> str:
    return text[0].upper() + text[1:]
