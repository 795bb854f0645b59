"""How a quasi-identifier is made coarser, rung by rung: exact, wider bins or merged words, left out.

The loss of a rung is the loss metric of Iyengar (Transforming data to satisfy privacy constraints, KDD 2002): for a
number the width of its bin over the range of all values, for a word (words that became one - 1) over (words - 1),
from 0 for an exact value to 1 for one that was left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vesalius.core.case import Covariate

Value = Covariate | None
_SHARES = (16, 8, 4, 2)  # default bins are about these shares of the range, rounded up to 1, 2 or 5 times a power of 10
OTHER = "other"


@dataclass(frozen=True)
class Rung:
    """One way of writing a quasi-identifier.

    Args:
        title: what is done, in words.
        values: what becomes of each value; None where it is left out. A value that is missing stays missing.
        losses: what that loses of each value, from 0 to 1.
    """

    title: str
    values: Mapping[Value, Value]
    losses: Mapping[Value, float]


@dataclass(frozen=True)
class Ladder:
    """A quasi-identifier with its rungs, from exact to left out; no rung loses less than the one before it.

    Args:
        name: the covariate.
        rungs: at least two.
        weight: how much its loss counts.
    """

    name: str
    rungs: tuple[Rung, ...]
    weight: float = 1.0


def ladder(
    name: str,
    values: Sequence[Value],
    *,
    widths: Sequence[float] = (),
    merge: Mapping[str, Sequence[str]] | None = None,
    rare_below: int = 5,
    weight: float = 1.0,
) -> Ladder:
    """The ladder of a covariate: of bins where all its values are numbers, else of words.

    Args:
        name: the covariate.
        values: one for each patient or case; None where missing.
        widths: of the bins, in the covariate's unit; by default about 1/16 to 1/2 of the range.
        merge: new word to the words that it stands for.
        rare_below: words that fewer cases carry may become "other".
        weight: how much its loss counts.
    """
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, (int, float)) for value in present):
        middle = _bins([float(value) for value in present], widths)
    else:
        middle = [_of(present, rung) for rung in _merged([str(value) for value in present], merge or {}, rare_below)]
    values_exact: dict[Value, Value] = {value: value for value in present}
    rungs = [Rung("exact", values_exact, dict.fromkeys(present, 0.0))]
    for rung in (*middle, Rung("left out", dict.fromkeys(present), dict.fromkeys(present, 1.0))):
        losses: dict[Value, float] = {value: max(rung.losses[value], rungs[-1].losses[value]) for value in present}
        rungs.append(Rung(rung.title, rung.values, losses))
    with_missing = [Rung(one.title, {**one.values, None: None}, {**one.losses, None: 0.0}) for one in rungs]
    return Ladder(name, tuple(with_missing), weight)


def bin_of(value: float, width: float) -> str:
    """The bin that a number falls into: "60-64" for whole numbers, "[1.5, 2)" for others. Bins begin at 0."""
    number = math.floor(round(value / width, 9))
    low, high = number * width, (number + 1) * width
    if float(width).is_integer() and float(value).is_integer():
        return f"{int(low)}-{int(high) - 1}"
    return f"[{_plain(low)}, {_plain(high)})"


def _plain(value: float) -> str:
    return f"{round(value, 9):.9g}"


def _bins(values: Sequence[float], widths: Sequence[float]) -> list[Rung]:
    extent = max(values) - min(values)
    whole = all(value.is_integer() for value in values)
    chosen = sorted(set(widths)) if widths else _default_widths(extent, whole)
    return [
        Rung(
            f"bins of {_plain(width)}",
            {value: bin_of(value, width) for value in values},
            dict.fromkeys(values, min(width / extent, 1.0) if extent else 1.0),
        )
        for width in chosen
    ]


def _default_widths(extent: float, whole: bool) -> list[float]:
    if extent <= 0:
        return []
    widths = {_round_up(extent / share) for share in _SHARES}
    return sorted(width for width in widths if width < extent and (not whole or (width > 1 and width.is_integer())))


def _round_up(width: float) -> float:
    power = 10.0 ** math.floor(math.log10(width))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9)))


def _merged(values: Sequence[str], merge: Mapping[str, Sequence[str]], rare_below: int) -> list[Rung]:
    counts = Counter(values)
    rungs = []
    first = {word: new for new, olds in merge.items() for word in olds}
    if any(word in first for word in counts):
        rungs.append(_words("words merged as asked", {word: first.get(word, word) for word in counts}))
    merged: Counter[str] = Counter()
    for word, count in counts.items():
        merged[first.get(word, word)] += count
    rare = {word for word, count in merged.items() if count < rare_below}
    if len(rare) > 1 and len(rare) < len(merged):
        after = {word: OTHER if first.get(word, word) in rare else first.get(word, word) for word in counts}
        rungs.append(_words(f"rare words became {OTHER!r}", after))
    return rungs


def _of(values: Sequence[Value], rung: Rung) -> Rung:
    """A rung of words for values of which some may be numbers."""
    return Rung(
        rung.title,
        {value: rung.values[str(value)] for value in values},
        {value: rung.losses[str(value)] for value in values},
    )


def _words(title: str, mapping: Mapping[str, str]) -> Rung:
    sizes = Counter(mapping.values())
    losses = {word: (sizes[new] - 1) / max(len(mapping) - 1, 1) for word, new in mapping.items()}
    values: dict[Value, Value] = dict(mapping.items())
    return Rung(title, values, dict(losses.items()))
