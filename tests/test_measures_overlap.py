import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from vesalius.measures.overlap import Overlap, overlap

masks = arrays.arrays(np.bool_, (4, 3, 2))


def test_hand_computed():
    truth = np.array([1, 1, 1, 0, 0, 0], bool).reshape(6, 1, 1)
    predicted = np.array([0, 1, 1, 1, 1, 0], bool).reshape(6, 1, 1)
    found = overlap(truth, predicted)
    assert found == Overlap(3, 4, 2)
    assert found.dice == pytest.approx(4 / 7)
    assert found.iou == pytest.approx(2 / 5)
    assert found.size(0.5) == 2.0
    assert found.size_error(0.5) == 0.5
    assert overlap(predicted, truth).size_error(0.5) == -0.5


def test_empty_masks():
    none, some = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)
    assert (overlap(none, none).dice, overlap(none, none).iou) == (1.0, 1.0)
    assert (overlap(some, none).dice, overlap(none, some).iou) == (0.0, 0.0)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        overlap(np.zeros((1, 2, 3), bool), np.zeros((3, 2, 1), bool))


@settings(deadline=None)
@given(masks, masks)
def test_symmetry_range_and_relation(truth, predicted):
    found, turned = overlap(truth, predicted), overlap(predicted, truth)
    assert found.dice == turned.dice
    assert found.iou == turned.iou
    assert 0.0 <= found.iou <= found.dice <= 1.0
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))
    assert found.size_error(1.0) == -turned.size_error(1.0)


@settings(deadline=None)
@given(masks, masks)
def test_agrees_with_scikit_learn(truth, predicted):
    metrics = pytest.importorskip("sklearn.metrics")
    if truth.any() or predicted.any():
        expected = metrics.f1_score(truth.ravel(), predicted.ravel(), zero_division=0.0)
        assert overlap(truth, predicted).dice == pytest.approx(expected)
