import numpy as np
import pytest
from scipy.stats import bootstrap

from vesalius.measures.intervals import Interval, bootstrap_means


def one(values, patients=None, **settings):
    names = patients or [str(number) for number in range(len(values))]
    return bootstrap_means(np.asarray(values, float)[:, None], names, seed=0, **settings)[0]


def test_agrees_with_scipy():
    values = np.random.default_rng(3).beta(8, 1, 40)
    expected = bootstrap((values,), np.mean, n_resamples=20000, method="BCa", rng=1).confidence_interval
    found = one(values, resamples=20000)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=0.002)
    assert found.high == pytest.approx(expected.high, abs=0.002)
    assert found.n == 40


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random((12, 3))
    patients = [str(n // 2) for n in range(12)]
    assert bootstrap_means(values, patients, seed=5) == bootstrap_means(values, patients, seed=5)
    assert bootstrap_means(values, patients, seed=5) != bootstrap_means(values, patients, seed=6)


def test_copies_of_a_patient_do_not_narrow_the_interval():
    values = np.random.default_rng(0).normal(0, 1, 20)
    once = one(values)
    tenfold = one(np.repeat(values, 10), [str(n // 10) for n in range(200)])
    assert tenfold.n == 20
    assert tenfold.high - tenfold.low == pytest.approx(once.high - once.low, rel=1e-9)


def test_intervals_keep_their_promise():
    random = np.random.default_rng(11)
    samples = random.exponential(1.0, (30, 300))  # columns are studies of 30 patients each
    found = bootstrap_means(samples, [str(n) for n in range(30)], seed=0, resamples=1000)
    covered = sum(interval.low <= 1.0 <= interval.high for interval in found if interval)
    assert 0.88 <= covered / 300 <= 0.98


def test_one_patient_and_equal_values_repeat_the_value():
    assert one([0.5, 0.7], ["a", "a"]) == Interval(0.6, 0.6, 0.6, 1)
    assert one([0.3, 0.3, 0.3]) == Interval(0.3, 0.3, 0.3, 3)


def test_missing_values_are_left_out_of_their_column_only():
    table = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [3.0, 5.0]])
    first, second = bootstrap_means(table, list("abcd"), seed=0)
    assert (first.value, first.n) == (2.0, 3)
    assert (second.value, second.n) == (5.0, 1)
    assert bootstrap_means(table[:3, 1:], list("abc"), seed=0) == [None]


def test_the_interval_holds_the_value():
    random = np.random.default_rng(2)
    for size in (2, 3, 5, 9):
        found = bootstrap_means(random.random((size, 50)) ** 8, [str(n) for n in range(size)], seed=1, resamples=200)
        assert all(interval.low <= interval.value <= interval.high for interval in found if interval)
