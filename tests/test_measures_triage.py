import numpy as np
import pytest

from vesalius.measures.triage import triage


def sample(n=400, seed=0):
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.3
    return truth, random.normal(truth * 2.0, 1.0), [str(k) for k in range(n)]


def test_figures_follow_from_the_threshold_and_bayes():
    truth, score, patients = sample()
    found = triage(truth, score, patients, seed=0, threshold=0.5, prevalence=0.006)
    sensitivity, specificity = (score[truth] >= 0.5).mean(), (score[~truth] < 0.5).mean()
    assert found.given and found.threshold == 0.5 and found.diseased == truth.sum()
    assert found.sensitivity.value == pytest.approx(sensitivity)
    assert found.normals_later.value == pytest.approx(specificity)
    later = 0.994 * specificity + 0.006 * (1 - sensitivity)
    assert found.cases_later.value == pytest.approx(later)
    assert found.ppv.value == pytest.approx(0.006 * sensitivity / (1 - later))
    assert found.npv.value == pytest.approx(0.994 * specificity / later)
    for one in (found.sensitivity, found.normals_later, found.cases_later, found.ppv, found.npv):
        assert one.low < one.value < one.high


def test_a_threshold_chosen_here_keeps_the_sensitivity_and_says_so():
    truth, score, patients = sample()
    found = triage(truth, score, patients, seed=0)
    assert not found.given and found.prevalence == pytest.approx(truth.mean())
    assert found.sensitivity.value >= 0.99
    tighter = np.sort(score[truth])[int(0.01 * truth.sum()) + 1]
    assert found.threshold < tighter
    assert found.normals_later.value == pytest.approx((score[~truth] < found.threshold).mean())
    fixed = triage(truth, score, patients, seed=0, threshold=found.threshold)
    width = [one.normals_later.high - one.normals_later.low for one in (found, fixed)]
    assert width[0] > width[1]  # the choice is uncertain too


def test_thresholds_outside_the_scores():
    truth, score, patients = sample(50)
    nobody = triage(truth, score, patients, seed=0, threshold=99.0)
    assert (nobody.sensitivity.value, nobody.normals_later.value) == (0.0, 1.0)
    assert np.isnan(nobody.ppv.value)
    everybody = triage(truth, score, patients, seed=0, threshold=-99.0)
    assert (everybody.sensitivity.value, everybody.normals_later.value) == (1.0, 0.0)


def test_one_class_says_nothing():
    assert triage([1, 1], [0.2, 0.3], ["a", "b"], seed=0) is None
    assert triage([0, np.nan], [0.2, 0.3], ["a", "b"], seed=0) is None
