"""Which covariates go into a share, and how coarse: a TOML file, the search, and what came out.

k = 5                              # patients that must look alike
suppress = 0.05                    # share of patients that may lose all quasi-identifiers
sensitive = ["diagnosis"]          # not coarsened; every class has l different values
l = 2
plain = ["dose"]                   # neither: goes as it is
drop = ["ward"]                    # does not go
[quasi.age]                        # everything else is quasi-identifying; this says how it is made coarser
widths = [5, 10, 20]
weight = 2.0
[quasi.region.merge]
north = ["Kiel", "Hamburg"]

What the headers tell of the patient takes part as `dicom.PatientAge`, `dicom.PatientSex` and so on.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vesalius.core.case import Covariate
from vesalius.core.errors import UsageError
from vesalius.privacy.anonymity import Coarsening, Hiding, Row, coarsen, hiding
from vesalius.privacy.ladders import Ladder, Value, ladder

DEFAULT_K = 5
_LISTS = ("sensitive", "plain", "drop")
_KEYS = {"k", "l", "suppress", "quasi", *_LISTS}


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Args:
        k, l: see `anonymity`.
        suppress: share of patients that may lose all quasi-identifiers.
        sensitive, plain, drop: covariates that are not quasi-identifying.
        widths, merge, weights: how quasi-identifiers are made coarser, by name.
    """

    k: int = DEFAULT_K
    l: int = 1  # noqa: E741 - its name in the literature
    suppress: float = 0.05
    sensitive: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    widths: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    merge: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Minimised:
    """The covariates of a share.

    Args:
        values: covariates by case; what is left out is not in it.
        untouched: quasi-identifiers that every case keeps exactly, apart from suppressed patients.
        before, after: how well patients hide by the quasi-identifiers.
        rungs: what was done to each quasi-identifier, in words.
        coarsening: what the search found; None where there was nothing to search.
        dropped: covariates that do not go.
        patients: how many there are.
        plan: what was asked for.
    """

    values: Mapping[str, Mapping[str, Covariate]]
    untouched: frozenset[str]
    before: Hiding
    after: Hiding
    rungs: Mapping[str, str]
    coarsening: Coarsening | None
    dropped: tuple[str, ...]
    patients: int
    plan: Plan

    @property
    def suppressed(self) -> frozenset[str]:
        """Patients that lost all quasi-identifiers."""
        return self.coarsening.suppressed if self.coarsening else frozenset()

    def as_json(self) -> dict[str, Any]:
        """Plain figures for the data card; no pseudonym stands in it."""
        search = self.coarsening
        return {
            "k_asked": self.plan.k, "l_asked": self.plan.l, "patients": self.patients,
            "k_before": self.before.k, "k": self.after.k, "classes": self.after.classes,
            "l_before": dict(self.before.distinct), "l": dict(self.after.distinct),
            "entropy_l": {name: round(value, 2) for name, value in self.after.entropy.items()},
            "quasi_identifiers": dict(self.rungs), "left_out": list(self.dropped),
            "sensitive": list(self.plan.sensitive), "plain": list(self.plan.plain),
            "patients_suppressed": len(self.suppressed), "suppressed_at_most": self.plan.suppress,
            "loss": round(search.loss, 4) if search else 0.0,
            "search": "exhaustive" if search is None or search.proven else "greedy",
        }  # fmt: skip


def load_plan(toml_text: str, *, k: int | None = None) -> Plan:
    """The plan of a TOML file; `k` goes before what the file says.

    Raises:
        UsageError: it is not TOML, or contradicts itself; all problems are told.
    """
    try:
        data = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The file of covariates is not valid TOML: {error}.") from error
    problems = [f"there is no key {name!r}" for name in sorted(set(data) - _KEYS)]
    lists = {name: _words(data.get(name, []), name, problems) for name in _LISTS}
    named = [name for names in lists.values() for name in names]
    problems += [f"{name!r} stands in two lists" for name in sorted({n for n in named if named.count(n) > 1})]
    plan = Plan(
        k=_number(data, "k", DEFAULT_K, 1, 10**6, problems, whole=True),
        l=_number(data, "l", 1, 1, 10**6, problems, whole=True),
        suppress=_number(data, "suppress", 0.05, 0.0, 1.0, problems),
        sensitive=lists["sensitive"], plain=lists["plain"], drop=lists["drop"],
    )  # fmt: skip
    plan = _with_quasi(plan, data.get("quasi", {}), named, problems)
    if problems:
        raise UsageError(f"The file of covariates cannot be used: {'; '.join(problems)}.", remedy="Correct it.")
    return replace(plan, k=k) if k is not None else plan


def minimise(cases: Sequence[tuple[str, str, Mapping[str, Covariate]]], plan: Plan) -> Minimised:
    """Make quasi-identifiers as coarse as the plan asks, and no coarser.

    Args:
        cases: (case, patient, covariates).
        plan: what is asked for; names in it that no case has are refused.

    Raises:
        UsageError: a name is not that of a covariate, or k or l cannot be reached.
    """
    names = sorted({name for _, _, values in cases for name in values})
    told = {*plan.sensitive, *plan.plain, *plan.drop, *plan.widths, *plan.merge, *plan.weights}
    if told - set(names):
        raise UsageError(
            f"The cohort has no covariate {', '.join(map(repr, sorted(told - set(names))))}.",
            remedy=f"It has {', '.join(names) or 'none'}.",
        )
    quasi = [name for name in names if name not in {*plan.sensitive, *plan.plain, *plan.drop}]
    rows = [
        Row(
            patient,
            {name: values.get(name) for name in quasi},
            {name: values.get(name) for name in plan.sensitive},
        )
        for _, patient, values in cases
    ]
    ladders = [_ladder(name, rows, plan) for name in quasi]
    before = hiding(rows, quasi, plan.sensitive)
    distinct = dict.fromkeys(plan.sensitive, plan.l) if plan.l > 1 else {}
    search = coarsen(rows, ladders, plan.k, distinct=distinct, suppress=plan.suppress)
    coarse = [_coarse(row, ladders, search) for row in rows]
    as_is = {*plan.sensitive, *plan.plain}
    values = {
        case: {
            **{name: value for name, value in found.items() if name in as_is},
            **{name: value for name, value in row.quasi.items() if value is not None},
        }
        for (case, _, found), row in zip(cases, coarse, strict=True)
    }
    chosen = {one.name: one.rungs[rung] for one, rung in zip(ladders, search.node, strict=True)}
    return Minimised(
        values=values,
        untouched=frozenset(one.name for one, rung in zip(ladders, search.node, strict=True) if rung == 0),
        before=before,
        after=hiding(coarse, quasi, plan.sensitive),
        rungs={name: rung.title for name, rung in chosen.items()},
        coarsening=search,
        dropped=tuple(sorted(plan.drop)),
        patients=len({patient for _, patient, _ in cases}),
        plan=plan,
    )


def _ladder(name: str, rows: Sequence[Row], plan: Plan) -> Ladder:
    return ladder(
        name,
        [row.quasi[name] for row in rows],
        widths=plan.widths.get(name, ()),
        merge=plan.merge.get(name),
        rare_below=plan.k,
        weight=plan.weights.get(name, 1.0),
    )


def _coarse(row: Row, ladders: Sequence[Ladder], search: Coarsening) -> Row:
    gone = row.patient in search.suppressed
    quasi: dict[str, Value] = {
        one.name: None if gone else one.rungs[rung].values[row.quasi[one.name]]
        for one, rung in zip(ladders, search.node, strict=True)
    }
    return Row(row.patient, quasi, row.sensitive)


def _with_quasi(plan: Plan, table: Any, named: Sequence[str], problems: list[str]) -> Plan:
    widths: dict[str, tuple[float, ...]] = {}
    merge: dict[str, Mapping[str, tuple[str, ...]]] = {}
    weights: dict[str, float] = {}
    for name, how in table.items() if isinstance(table, dict) else [("", None)]:
        if not isinstance(how, dict):
            problems.append("[quasi] holds one table for each covariate")
            continue
        if name in named:
            problems.append(f"{name!r} is quasi-identifying and something else")
        problems += [f"[quasi.{name}] knows widths, merge and weight, not {key}"
                     for key in sorted(set(how) - {"widths", "merge", "weight"})]  # fmt: skip
        given = how.get("widths", [])
        if not isinstance(given, list) or not all(_is_number(width) and width > 0 for width in given):
            problems.append(f"the widths of {name!r} are numbers above 0")
        elif given:
            widths[name] = tuple(float(width) for width in given)
        if "merge" in how:
            merge[name] = _groups(name, how["merge"], problems)
        if "weight" in how:
            weights[name] = _number(how, "weight", 1.0, 0.0, 1e6, problems)
    return replace(plan, widths=widths, merge=merge, weights=weights)


def _groups(name: str, given: Any, problems: list[str]) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(given, dict):
        problems.append(f"[quasi.{name}.merge] says new = [old, old]")
        return {}
    groups = {new: _words(olds, f"quasi.{name}.merge.{new}", problems) for new, olds in given.items()}
    olds = [word for words in groups.values() for word in words]
    if len(set(olds)) < len(olds):
        problems.append(f"[quasi.{name}.merge] puts one word into two groups")
    return groups


def _words(given: Any, name: str, problems: list[str]) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        problems.append(f"{name} is a list of words")
        return ()
    return tuple(given)


def _number(
    table: Mapping[str, Any], name: str, default: Any, low: float, high: float, problems: list[str], *,
    whole: bool = False,
) -> Any:  # fmt: skip
    value = table.get(name, default)
    if not _is_number(value) or not low <= value <= high or (whole and not isinstance(value, int)):
        problems.append(f"{name} is a {'whole ' if whole else ''}number from {low:g} to {high:g}")
        return default
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
