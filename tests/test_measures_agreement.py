import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from vesalius.measures.agreement import Confusions, accuracy, balanced_accuracy, class_shares, kappa
from vesalius.measures.proportion import percent, wilson
from vesalius.measures.reliability import Reliability

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, 4, 150)
FOUND = np.where(RANDOM.random(150) < 0.6, TRUTH, RANDOM.integers(0, 4, 150))


def test_agrees_with_scikit_learn():
    counts = Confusions(TRUTH, FOUND, 4).counts()
    assert np.array_equal(counts[0, :, :-1], sk.confusion_matrix(TRUTH, FOUND))
    assert accuracy(counts)[0] == pytest.approx(sk.accuracy_score(TRUTH, FOUND))
    assert balanced_accuracy(counts)[0] == pytest.approx(sk.balanced_accuracy_score(TRUTH, FOUND))
    assert kappa(counts, quadratic=False)[0] == pytest.approx(sk.cohen_kappa_score(TRUTH, FOUND))
    assert kappa(counts, quadratic=True)[0] == pytest.approx(sk.cohen_kappa_score(TRUTH, FOUND, weights="quadratic"))
    sensitivity, specificity, precision = class_shares(counts, 2)
    assert sensitivity[0] == pytest.approx(sk.recall_score(TRUTH == 2, FOUND == 2))
    assert specificity[0] == pytest.approx(sk.recall_score(TRUTH != 2, FOUND != 2))
    assert precision[0] == pytest.approx(sk.precision_score(TRUTH == 2, FOUND == 2))


def test_weights_are_copies():
    times = RANDOM.integers(0, 3, 150)
    weighted = Confusions(TRUTH, FOUND, 4).counts(times[np.newaxis].astype(float))
    copied = Confusions(np.repeat(TRUTH, times), np.repeat(FOUND, times), 4).counts()
    assert np.array_equal(weighted, copied)


def test_no_answer_is_wrong_and_unknown_truth_is_left_out():
    counts = Confusions([0, 1, 1, -1], [0, -1, 1, 1], 2).counts()
    assert accuracy(counts)[0] == pytest.approx(2 / 3)
    assert class_shares(counts, 0)[1][0] == pytest.approx(0.5)  # the silent case of class 1 was not cleared of 0
    silent = kappa(Confusions([0, 1, 2], [0, 1, -1], 3).counts(), quadratic=True)[0]
    wrong = kappa(Confusions([0, 1, 2], [0, 1, 0], 3).counts(), quadratic=True)[0]
    assert silent <= wrong


def test_absent_classes_do_not_count():
    counts = Confusions([0, 0, 2], [0, 1, 2], 3).counts()
    assert balanced_accuracy(counts)[0] == pytest.approx(0.75)


@pytest.mark.parametrize(("hits", "total"), [(0, 5), (5, 5), (3, 17), (50, 100)])
def test_wilson_agrees_with_scipy(hits, total):
    expected = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson(hits, total) == pytest.approx((expected.low, expected.high))


def test_shares_in_words():
    assert percent(13, 15) == "87 % (62 to 96)"
    assert percent(0, 0) == "–"
    assert wilson(0, 0) == (0.0, 1.0)


def test_probabilities_agree_with_scikit_learn():
    truth = RANDOM.random(200) < 0.4
    said = np.clip(RANDOM.normal(truth * 0.4 + 0.3, 0.2), 0.001, 1.0)
    one = Reliability(truth, said)
    assert one.brier()[0] == pytest.approx(sk.brier_score_loss(truth, said))
    share, mean = calibration_curve(truth, said, n_bins=10)
    assert [b.share for b in one.curve()] == pytest.approx(share)
    assert [b.probability for b in one.curve()] == pytest.approx(mean)
    expected = sum(b.cases * abs(b.share - b.probability) for b in one.curve()) / 200
    assert one.calibration_error()[0] == pytest.approx(expected)
    times = RANDOM.integers(0, 3, 200)
    copied = Reliability(np.repeat(truth, times), np.repeat(said, times))
    weights = times[np.newaxis].astype(float)
    assert one.brier(weights)[0] == pytest.approx(copied.brier()[0])
    assert one.calibration_error(weights)[0] == pytest.approx(copied.calibration_error()[0])
