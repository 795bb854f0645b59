"""How well patients hide among each other by their covariates, and the mildest coarsening that hides them well.

k-anonymity (Sweeney 2002; Samarati 2001): each patient shares the values of the quasi-identifiers with at least
k - 1 others. l-diversity (Machanavajjhala et al. 2007): those k patients have at least l different values of a
sensitive covariate. Counted are patients, not cases: a patient with several visits stands for what all of them tell.

Every covariate is coarsened by the same rung for all patients (full-domain generalisation); a bounded share of
patients may lose theirs altogether (suppression), and then at least k patients do, so that these too are k alike.
The search takes the lattice of rungs in the order of their loss, so the first that fits, and cannot be undercut by
a later one, is the mildest there is (best-first search on the lattice of Samarati 2001; loss after Iyengar 2002).
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vesalius.core.errors import UsageError
from vesalius.privacy.ladders import Ladder, Value

_MOST_NODES = 5_000
Node = tuple[int, ...]
Class = frozenset[tuple[Value, ...]]


@dataclass(frozen=True)
class Row:
    """What is told of one case: its patient, its quasi-identifiers, and its sensitive values, by name."""

    patient: str
    quasi: Mapping[str, Value]
    sensitive: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Hiding:
    """How well patients hide: the smallest class of patients that look alike, and the fewest sensitive values in one.

    Args:
        k: patients in the smallest class.
        classes: how many classes there are.
        distinct: fewest different values in a class, by sensitive covariate.
        entropy: the smallest exp(entropy) of a class, by sensitive covariate (entropy l-diversity).
    """

    k: int
    classes: int
    distinct: Mapping[str, int]
    entropy: Mapping[str, float]


@dataclass(frozen=True)
class Coarsening:
    """The rung of each ladder, the patients that lose all quasi-identifiers, and what that loses.

    Args:
        node: rung number for each ladder.
        suppressed: patients.
        loss: mean loss over cases and ladders, from 0 to 1.
        proven: whether nothing milder exists; False where the lattice was too large and the search greedy.
        tried: nodes that were looked at.
    """

    node: Node
    suppressed: frozenset[str]
    loss: float
    proven: bool
    tried: int


def hiding(rows: Sequence[Row], names: Sequence[str], sensitive: Sequence[str] = ()) -> Hiding:
    """How well the patients of a table hide by the quasi-identifiers `names`, as they stand."""
    told: dict[str, set[tuple[Value, ...]]] = defaultdict(set)
    for row in rows:
        told[row.patient].add(tuple(row.quasi.get(name) for name in names))
    return _hiding(_classes({patient: frozenset(values) for patient, values in told.items()}), rows, sensitive)


def coarsen(
    rows: Sequence[Row], ladders: Sequence[Ladder], k: int, *, distinct: Mapping[str, int], suppress: float
) -> Coarsening:
    """The mildest coarsening under which every patient is alike to k - 1 others.

    Args:
        rows: one for each case.
        ladders: the quasi-identifiers.
        k: patients that must look alike.
        distinct: how many different values of each sensitive covariate every class must have.
        suppress: share of patients whose quasi-identifiers may be left out altogether.

    Raises:
        UsageError: no coarsening reaches it: there are fewer than k patients, or too few sensitive values.
    """
    table = _Table(rows, ladders, k, distinct, suppress)
    top = tuple(len(ladder.rungs) - 1 for ladder in ladders)
    if table.fitting(top) is None:
        raise UsageError(
            f"{k} patients that look alike, with the sensitive values asked for, cannot be had: the cohort has "
            f"{len(table.patients)} patients.",
            remedy="Ask for a smaller k or l, or share more patients.",
        )
    return _best_first(table, top) or _greedy(table, top)


class _Table:
    """The rows, with what each rung of each ladder makes of them."""

    def __init__(
        self, rows: Sequence[Row], ladders: Sequence[Ladder], k: int, distinct: Mapping[str, int], suppress: float
    ) -> None:
        self.rows, self.k = rows, k
        self._sensitive = [(_by_patient(rows, name), least) for name, least in distinct.items()]
        self.patients = sorted({row.patient for row in rows})
        self.most = math.floor(suppress * len(self.patients) + 1e-9)
        raw = [[row.quasi.get(ladder.name) for row in rows] for ladder in ladders]
        self._values = [
            [[rung.values[value] for value in column] for rung in ladder.rungs]
            for ladder, column in zip(ladders, raw, strict=True)
        ]
        total = sum(ladder.weight for ladder in ladders) * max(len(rows), 1)
        self._losses = [
            [[ladder.weight * rung.losses[value] / total for value in column] for rung in ladder.rungs]
            for ladder, column in zip(ladders, raw, strict=True)
        ]
        self._sums = [[sum(losses) for losses in rungs] for rungs in self._losses]

    def loss(self, node: Node) -> float:
        """Of the rungs alone, which no suppression can make less."""
        return sum(sums[rung] for sums, rung in zip(self._sums, node, strict=True))

    def fitting(self, node: Node) -> tuple[float, frozenset[str]] | None:
        """Loss and suppressed patients of a node, or None where it does not hide everybody well enough."""
        classes = sorted(self._classes(node), key=len)
        kept = [members for members in classes if self._fits(members)]
        suppressed = [patient for members in classes if not self._fits(members) for patient in members]
        while suppressed and not self._fits(suppressed) and kept and len(suppressed) <= self.most:
            suppressed += kept.pop(0)
        everything = all(rung == len(values) - 1 for values, rung in zip(self._values, node, strict=True))
        if suppressed and (len(suppressed) > self.most or not self._fits(suppressed) or everything):
            return None
        gone = frozenset(suppressed)
        return self.loss(node) + self._extra(node, gone), gone

    def missing(self, node: Node) -> int:
        """How many patients do not hide well enough: what the greedy search brings down."""
        return sum(len(members) for members in self._classes(node) if not self._fits(members))

    def _classes(self, node: Node) -> list[list[str]]:
        columns = [values[rung] for values, rung in zip(self._values, node, strict=True)]
        told: dict[str, set[tuple[Value, ...]]] = defaultdict(set)
        for number, row in enumerate(self.rows):
            told[row.patient].add(tuple(column[number] for column in columns))
        return list(_classes({patient: frozenset(values) for patient, values in told.items()}).values())

    def _fits(self, members: Sequence[str]) -> bool:
        return len(members) >= self.k and all(
            len(set().union(*(sensitive[patient] for patient in members))) >= least
            for sensitive, least in self._sensitive
        )

    def _extra(self, node: Node, gone: frozenset[str]) -> float:
        """What leaving everything of some patients out loses beyond their rungs."""
        if not gone:
            return 0.0
        return sum(
            losses[-1][number] - losses[rung][number]
            for number, row in enumerate(self.rows)
            if row.patient in gone
            for losses, rung in zip(self._losses, node, strict=True)
        )


def _best_first(table: _Table, top: Node) -> Coarsening | None:
    """The least loss of all, or None where the lattice is too large to be sure."""
    start = tuple(0 for _ in top)
    waiting, seen = [(table.loss(start), start)], {start}
    best: tuple[float, Node, frozenset[str]] | None = None
    tried = 0
    while waiting:
        bound, node = heapq.heappop(waiting)
        if best is not None and bound >= best[0] - 1e-12:
            break
        tried += 1
        if tried > _MOST_NODES:
            return None
        found = table.fitting(node)
        if found is not None and (best is None or found[0] < best[0]):
            best = (found[0], node, found[1])
        for place, rung in enumerate(node):
            higher = (*node[:place], rung + 1, *node[place + 1 :])
            if rung < top[place] and higher not in seen:
                seen.add(higher)
                heapq.heappush(waiting, (table.loss(higher), higher))
    assert best is not None  # the top fits, and lies in the lattice
    return Coarsening(best[1], best[2], best[0], True, tried)


def _greedy(table: _Table, top: Node) -> Coarsening:
    """Up by the rung that hides most for its loss (Sweeney's Datafly), then down wherever that still fits."""
    node: Node = tuple(0 for _ in top)
    tried = 0
    while table.fitting(node) is None:
        steps = [(*node[:n], rung + 1, *node[n + 1 :]) for n, rung in enumerate(node) if rung < top[n]]
        tried += len(steps)
        have, loss = table.missing(node), table.loss(node)
        node = max(steps, key=lambda step: (have - table.missing(step) + 1e-9) / (table.loss(step) - loss + 1e-9))
    lowered = True
    while lowered:
        lowered = False
        for n in sorted(range(len(node)), key=lambda n: -node[n]):
            lower = (*node[:n], node[n] - 1, *node[n + 1 :])
            tried += 1
            if node[n] and table.fitting(lower) is not None:
                node, lowered = lower, True
    found = table.fitting(node)
    assert found is not None
    return Coarsening(node, found[1], found[0], False, tried)


def _classes(told: Mapping[str, Class]) -> dict[Class, list[str]]:
    classes: dict[Class, list[str]] = defaultdict(list)
    for patient in sorted(told):
        classes[told[patient]].append(patient)
    return classes


def _hiding(classes: Mapping[Class, Sequence[str]], rows: Sequence[Row], sensitive: Sequence[str]) -> Hiding:
    distinct: dict[str, int] = {}
    entropy: dict[str, float] = {}
    for name in sensitive:
        values = _by_patient(rows, name)
        counts = [Counter(v for patient in members for v in values[patient]) for members in classes.values()]
        distinct[name] = min((len(count) for count in counts), default=0)
        entropy[name] = min((_perplexity(count) for count in counts), default=0.0)
    sizes = [len(members) for members in classes.values()]
    return Hiding(min(sizes, default=0), len(sizes), distinct, entropy)


def _by_patient(rows: Sequence[Row], name: str) -> dict[str, set[Value]]:
    """The values of a sensitive covariate that each patient has."""
    values: dict[str, set[Value]] = {row.patient: set() for row in rows}
    for row in rows:
        if row.sensitive.get(name) is not None:
            values[row.patient].add(row.sensitive[name])
    return values


def _perplexity(counts: Counter[Value]) -> float:
    total = sum(counts.values())
    return math.exp(-sum(n / total * math.log(n / total) for n in counts.values())) if total else 0.0
