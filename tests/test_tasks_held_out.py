import pytest

from synthetic_study import make_case, make_cohort, seen
from vesalius.core.errors import PatientOverlap, UsageError
from vesalius.core.identity import seen_hash
from vesalius.tasks.held_out import held_out

CASES = [make_case(n) for n in range(6)]


def ids(chosen):
    return [case.id for case in chosen.cases]


def test_hashes_are_short_and_do_not_hold_the_pseudonym():
    assert seen_hash("p1") != seen_hash("p2")
    assert len(seen_hash("p1")) == 16 and "p1" not in seen_hash("p1")


def test_its_own_cohort_is_measured_on_the_test_part(tmp_path):
    cohort = make_cohort(tmp_path, CASES, test=2)
    chosen = held_out(cohort, {"cohort": {"digest": "d1"}, "patients_seen": seen(CASES[:4])})
    assert chosen.own and ids(chosen) == ["case004", "case005"]


def test_its_own_cohort_stays_its_own_when_cases_were_added(tmp_path):
    cohort = make_cohort(tmp_path, CASES, test=3)
    chosen = held_out(cohort, {"cohort": {"digest": "before"}, "patients_seen": seen(CASES[:2])})
    assert chosen.own and ids(chosen) == ["case003", "case004", "case005"]


def test_another_cohort_is_measured_whole(tmp_path):
    for test in (0, 2):
        cohort = make_cohort(tmp_path, CASES, test=test)
        chosen = held_out(cohort, {"cohort": {"digest": "x"}, "patients_seen": [seen_hash("somebody else")]})
        assert not chosen.own and len(chosen.cases) == 6


def test_patients_seen_in_training_are_refused(tmp_path):
    card = {"cohort": {"digest": "x"}, "patients_seen": [*seen(CASES[:1]), seen_hash("somebody else")]}
    with pytest.raises(PatientOverlap, match="One patient was seen in training"):
        held_out(make_cohort(tmp_path, CASES), card)
    drawn_anew = {"cohort": {"digest": "d1"}, "patients_seen": seen(CASES[2:])}
    with pytest.raises(PatientOverlap, match="2 patients were seen"):
        held_out(make_cohort(tmp_path, CASES, test=2), drawn_anew)


def test_nobody_held_back(tmp_path):
    with pytest.raises(UsageError, match="nobody was held back"):
        held_out(make_cohort(tmp_path, CASES), {"cohort": {"digest": "d1"}, "patients_seen": seen(CASES)})
    with pytest.raises(UsageError, match="no cases"):
        held_out(make_cohort(tmp_path, []), {})


def test_a_model_that_does_not_say_what_it_has_seen(tmp_path):
    chosen = held_out(make_cohort(tmp_path, CASES, test=2), {})
    assert len(chosen.cases) == 2 and "does not say" in chosen.sentence
    chosen = held_out(make_cohort(tmp_path, CASES), {})
    assert len(chosen.cases) == 6 and "could not be checked" in chosen.sentence
