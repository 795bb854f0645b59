import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from vesalius.measures.delong import delong


def brute(truth, scores):
    """The covariance of DeLong et al. (1988), from every pair."""
    truth = np.asarray(truth, bool)
    sick, well = scores[:, truth], scores[:, ~truth]
    kernel = (sick[:, :, None] > well[:, None, :]) + 0.5 * (sick[:, :, None] == well[:, None, :])
    of_sick, of_well = kernel.mean(axis=2), kernel.mean(axis=1)
    return kernel.mean(axis=(1, 2)), np.cov(of_sick) / sick.shape[1] + np.cov(of_well) / well.shape[1]


@pytest.mark.parametrize("digits", [1, 6])
def test_agrees_with_the_definition(digits):
    random = np.random.default_rng(0)
    truth = random.random(70) < 0.4
    scores = np.round(random.normal(truth * np.array([[1.0], [0.6], [0.0]]), 1.0, (3, 70)), digits)
    areas, covariance = brute(truth, scores)
    found = delong(truth, scores)
    assert found.areas == pytest.approx(areas)
    assert found.areas == pytest.approx([roc_auc_score(truth, one) for one in scores])
    assert found.covariance == pytest.approx(covariance)
    spread = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.p_value() == pytest.approx(2 * stats.norm.sf(abs(areas[0] - areas[1]) / spread))
    low, high = found.interval(0)
    assert 0.0 < low < areas[0] < high < 1.0


def test_one_case_per_patient_is_the_plain_test_and_copies_teach_nothing():
    random = np.random.default_rng(1)
    truth = random.random(40) < 0.5
    scores = random.normal(truth * 1.0, 1.0, (2, 40))
    plain = delong(truth, scores)
    assert delong(truth, scores, [str(n) for n in range(40)]).covariance == pytest.approx(plain.covariance)
    copied = delong(np.repeat(truth, 5), np.repeat(scores, 5, axis=1), [str(n // 5) for n in range(200)])
    assert copied.covariance == pytest.approx(plain.covariance)
    assert delong(np.repeat(truth, 5), np.repeat(scores, 5, axis=1)).covariance[0, 0] < plain.covariance[0, 0] / 4


def test_the_clustered_variance_holds_for_patients_with_both_kinds_of_cases():
    areas, variances = [], []
    for number in range(300):
        random = np.random.default_rng(number)
        own = np.repeat(random.normal(0, 1.0, 30), 4)  # what the four cases of a patient share
        truth = np.tile([0, 1, 0, 1], 30)
        found = delong(truth, random.normal(truth * 0.8, 1.0) + own, np.repeat(np.arange(30), 4).astype(str))
        areas.append(found.areas[0])
        variances.append(found.covariance[0, 0])
    assert np.mean(variances) == pytest.approx(np.var(areas), rel=0.25)


def test_the_test_keeps_its_level():
    rejected = 0
    for number in range(200):
        random = np.random.default_rng(number)
        truth = np.arange(80) % 2
        shared = random.normal(truth * 1.0, 1.0)
        rejected += delong(truth, shared + random.normal(0, 0.7, (2, 80))).p_value() < 0.05
    assert 0.02 <= rejected / 200 <= 0.09


def test_edges():
    with pytest.raises(ValueError, match="diseased and other"):
        delong([1, 1], [0.1, 0.2])
    same = delong([1, 0, 1, 0], [[0.9, 0.1, 0.8, 0.3]] * 2)
    assert same.p_value() == 1.0
    assert same.interval() == (1.0, 1.0)
    assert np.isnan(delong([1, 0, 0], [[0.9, 0.1, 0.2], [0.1, 0.2, 0.3]]).p_value())
