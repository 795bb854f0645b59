import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from vesalius.measures.intervals import bootstrap_statistics
from vesalius.measures.ranking import (
    Ranking,
    auprc,
    auroc,
    precision_recall_curve,
    roc_curve,
    threshold_at_sensitivity,
    threshold_at_specificity,
)

SAMPLES = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40)


def brute_auroc(truth, score):
    """Every pair of a diseased and another case; equal scores count one half."""
    pairs = [(s, t) for s, y in zip(score, truth, strict=True) if y for t, z in zip(score, truth, strict=True) if not z]
    return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))


@settings(max_examples=30, deadline=None)
@given(SAMPLES)
def test_areas_agree_with_brute_force_and_scikit_learn(sample):
    truth, score = (np.array(part, float) for part in zip(*sample, strict=True))
    if len(set(truth)) < 2:
        assert np.isnan(auroc(truth, score)) and np.isnan(auprc(truth, score))
        return
    assert auroc(truth, score) == pytest.approx(brute_auroc(truth, score))
    assert auroc(truth, score) == pytest.approx(sk.roc_auc_score(truth, score))
    assert auprc(truth, score) == pytest.approx(sk.average_precision_score(truth, score))
    assert auroc(truth, -score) == pytest.approx(1.0 - auroc(truth, score))


@settings(max_examples=25, deadline=None)
@given(SAMPLES, st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_a_weight_is_the_same_as_that_many_copies(sample, weights):
    truth, score = (np.array(part, float) for part in zip(*sample, strict=True))
    times = np.array(weights[: len(truth)])
    copied = np.repeat(truth, times), np.repeat(score, times)
    steps = Ranking(truth, score).steps(times[np.newaxis].astype(float))
    for found, expected in (
        (steps.auroc(), Ranking(*copied).steps().auroc()),
        (steps.auprc(), Ranking(*copied).steps().auprc()),
        (steps.sensitivity_at(0.8), Ranking(*copied).steps().sensitivity_at(0.8)),
        (steps.specificity_at(0.8), Ranking(*copied).steps().specificity_at(0.8)),
    ):
        assert found[0] == pytest.approx(expected[0], nan_ok=True)


def test_area_agrees_with_the_rank_test():
    random = np.random.default_rng(0)
    truth, score = random.random(300) < 0.3, np.round(random.normal(size=300), 1)
    found = stats.mannwhitneyu(score[truth], score[~truth]).statistic / (truth.sum() * (~truth).sum())
    assert auroc(truth, score) == pytest.approx(found)


def test_operating_points_agree_with_a_search_over_thresholds():
    random = np.random.default_rng(1)
    truth = random.random(200) < 0.4
    score = np.round(random.normal(truth * 1.2, 1.0), 1)
    points = [((score[truth] >= t).mean(), (score[~truth] < t).mean(), t) for t in np.unique(score)]
    steps = Ranking(truth, score).steps()
    for limit in (0.5, 0.8, 0.9, 0.95):
        assert steps.sensitivity_at(limit)[0] == pytest.approx(max([0.0] + [a for a, b, _ in points if b >= limit]))
        assert steps.specificity_at(limit)[0] == pytest.approx(max(b for a, b, _ in points if a >= limit))
        assert threshold_at_sensitivity(truth, score, limit) == max(t for a, _, t in points if a >= limit)
        assert threshold_at_specificity(truth, score, limit) == min(t for _, b, t in points if b >= limit)
    assert threshold_at_specificity([1, 0, 0], [0.2, 0.9, 0.9], 0.9) == np.inf
    assert np.isnan(threshold_at_sensitivity([0, 0], [0.2, 0.9], 0.9))


def test_curves_agree_with_scikit_learn():
    random = np.random.default_rng(2)
    truth = random.random(80) < 0.4
    score = np.round(random.normal(truth * 1.0, 1.0), 1)
    false, true = roc_curve(truth, score)
    expected = sk.roc_curve(truth, score, drop_intermediate=False)
    assert false == pytest.approx(expected[0]) and true == pytest.approx(expected[1])
    recall, precision = precision_recall_curve(truth, score)
    theirs = sk.precision_recall_curve(truth, score)
    assert precision[::-1] == pytest.approx(theirs[0][:-1]) and recall[::-1] == pytest.approx(theirs[1][:-1])


def test_unknown_truth_counts_for_nothing():
    assert auroc([1, 0, np.nan, 1], [0.9, 0.1, 0.5, 0.2]) == auroc([1, 0, 1], [0.9, 0.1, 0.2])


def test_intervals_of_areas_keep_their_promise():
    true = stats.norm.cdf(1.0 / np.sqrt(2.0))
    covered = 0
    for number in range(50):
        random = np.random.default_rng(number)
        truth = np.arange(60) % 2
        ranking = Ranking(truth, random.normal(truth * 1.0, 1.0))

        def area(weights, ranking=ranking):
            return ranking.steps(weights).auroc()[:, np.newaxis]

        found = bootstrap_statistics(area, [str(n) for n in range(60)], seed=0, resamples=300)[0]
        covered += found.low <= true <= found.high
    assert 0.87 <= covered / 50 <= 1.0


def test_patients_are_drawn_with_all_their_cases():
    random = np.random.default_rng(3)
    truth = np.arange(40) % 2
    score = random.normal(truth * 1.0, 1.0)

    def width(truth, score, patients):
        ranking = Ranking(truth, score)
        found = bootstrap_statistics(lambda w: ranking.steps(w).auroc()[:, np.newaxis], patients, seed=0)[0]
        return found.n, found.high - found.low

    once = width(truth, score, [str(n) for n in range(40)])
    tenfold = width(np.repeat(truth, 10), np.repeat(score, 10), [str(n // 10) for n in range(400)])
    assert tenfold[0] == once[0] == 40
    assert tenfold[1] == pytest.approx(once[1], rel=1e-6)


def test_one_patient_gives_no_interval():
    ranking = Ranking([1, 0], [0.9, 0.1])
    found = bootstrap_statistics(lambda w: ranking.steps(w).auroc()[:, np.newaxis], ["a", "a"], seed=0)[0]
    assert (found.value, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 1)
