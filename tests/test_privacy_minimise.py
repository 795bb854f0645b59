"""Covariates of a share: whatever the table, the output hides every patient among k, and nothing milder would."""

from collections import defaultdict
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius.core.errors import UsageError
from vesalius.privacy.anonymity import Row, coarsen, hiding
from vesalius.privacy.ladders import bin_of, ladder
from vesalius.privacy.minimise import Plan, load_plan, minimise

AGES = st.one_of(st.none(), st.integers(0, 99).map(float))
WORDS = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "d"]))
VISITS = st.lists(st.tuples(st.integers(0, 15), AGES, WORDS, st.sampled_from("xyz")), min_size=1, max_size=40)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _cases(visits):
    return [
        (f"C{n}", f"P{patient}", {k: v for k, v in (("age", age), ("region", word), ("dx", dx)) if v is not None})
        for n, (patient, age, word, dx) in enumerate(visits)
    ]


def _classes(cases, values, quasi):
    """Counted here anew: patients by what all their visits tell."""
    told = defaultdict(set)
    for case, patient, _ in cases:
        told[patient].add(tuple(values[case].get(name) for name in quasi))
    classes = defaultdict(set)
    for patient, tuples in told.items():
        classes[frozenset(tuples)].add(patient)
    return classes


@QUICK
@given(VISITS, st.integers(1, 5), st.integers(1, 3), st.sampled_from([0.0, 0.3, 1.0]))
def test_every_patient_is_alike_to_k_or_it_is_refused(visits, k, least, suppress):
    cases = _cases(visits)
    plan = Plan(k=k, l=least, suppress=suppress, sensitive=("dx",))
    patients = {patient for _, patient, _ in cases}
    enough = len(patients) >= k and len({values["dx"] for _, _, values in cases}) >= least
    if not enough:
        with pytest.raises(UsageError):
            minimise(cases, plan)
        return
    done = minimise(cases, plan)
    classes = _classes(cases, done.values, ["age", "region"])
    assert min(map(len, classes.values())) >= k and done.after.k == min(map(len, classes.values()))
    diagnoses = defaultdict(set)
    for case, patient, values in cases:
        assert done.values[case]["dx"] == values["dx"]
        diagnoses[patient].add(values["dx"])
    for members in classes.values():
        assert len(set().union(*(diagnoses[patient] for patient in members))) >= least
    assert len(done.suppressed) <= suppress * len(patients) + 1e-9


@QUICK
@given(VISITS, st.integers(2, 4))
def test_nothing_milder_reaches_it(visits, k):
    cases = _cases(visits)
    rows = [Row(patient, {"age": values.get("age"), "region": values.get("region")}) for _, patient, values in cases]
    if len({row.patient for row in rows}) < k:
        return
    ladders = [ladder(name, [row.quasi[name] for row in rows], rare_below=k) for name in ("age", "region")]
    found = coarsen(rows, ladders, k, distinct={}, suppress=0.0)
    losses = []
    for node in product(*(range(len(one.rungs)) for one in ladders)):
        steps = [one.rungs[rung] for one, rung in zip(ladders, node, strict=True)]
        coarse = [
            Row(r.patient, {o.name: s.values[r.quasi[o.name]] for o, s in zip(ladders, steps, strict=True)})
            for r in rows
        ]
        if hiding(coarse, ["age", "region"]).k >= k:
            pairs = [(s, r.quasi[o.name]) for r in rows for o, s in zip(ladders, steps, strict=True)]
            losses.append(sum(s.losses[value] for s, value in pairs) / len(pairs))
    assert found.proven and found.loss == pytest.approx(min(losses))


def test_several_visits_are_one_patient():
    visits = [("C1", "P1", {"age": 50.0}), ("C2", "P1", {"age": 50.0}), ("C3", "P2", {"age": 51.0})]
    assert minimise(visits, Plan(k=1)).before.k == 1
    done = minimise(visits, Plan(k=2, widths={"age": (5.0,)}))
    assert done.after.k == 2 and done.values["C1"]["age"] == "50-54"


def test_patients_without_parallel_lose_everything_within_the_bound():
    cases = [(f"C{n}", f"P{n}", {"age": 40.0 if n < 30 else 40.0 + n}) for n in range(33)]
    done = minimise(cases, Plan(k=3, suppress=0.1))
    assert done.rungs == {"age": "exact"} and done.suppressed == {"P30", "P31", "P32"}
    assert "age" not in done.values["C31"] and done.values["C3"]["age"] == 40.0
    assert minimise(cases, Plan(k=3, suppress=0.0)).rungs != {"age": "exact"}


def test_what_the_file_asks_for_is_done():
    words = ["Kiel", "Hamburg", "Ulm", "Bonn"]
    cases = [(f"C{n}", f"P{n}", {"region": words[n % 4], "dose": float(n), "ward": "7"}) for n in range(8)]
    text = 'k = 4\nplain = ["dose"]\ndrop = ["ward"]\n[quasi.region.merge]\nnorth = ["Kiel", "Hamburg"]\n'
    done = minimise(cases, load_plan(text + 'south = ["Ulm", "Bonn"]\n'))
    assert done.values["C1"] == {"dose": 1.0, "region": "north"} and done.dropped == ("ward",)
    assert load_plan("k = 4", k=2).k == 2


def test_bins_begin_at_round_numbers():
    assert [bin_of(value, 5) for value in (0.0, 4.0, 5.0, 64.0)] == ["0-4", "0-4", "5-9", "60-64"]
    assert bin_of(0.3, 0.1) == "[0.3, 0.4)" and bin_of(-1.0, 5) == "-5--1"


@pytest.mark.parametrize(
    "text",
    [
        "k = 0", "l = 1.5", "sensitive = 3", 'plain = ["a"]\ndrop = ["a"]', "[quasi.age]\nwidths = [0]", "speed = 1",
        '[quasi.a.merge]\nx = ["p"]\ny = ["p"]', "[quasi.age]\nwide = 3", "k = ", 'drop = ["a"]\n[quasi.a]\nweight = 1',
    ],
)  # fmt: skip
def test_contradictions_are_refused(text):
    with pytest.raises(UsageError):
        load_plan(text)


def test_names_that_are_not_there_are_refused():
    with pytest.raises(UsageError, match="'agee'"):
        minimise([("C1", "P1", {"age": 1.0})], Plan(k=1, drop=("agee",)))
