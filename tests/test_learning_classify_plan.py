"""What classification plans from measured speed, how its parts are weighed, and where its threshold stands."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")

from vesalius.core.errors import UsageError
from vesalius.learning import classify_plan as planning
from vesalius.learning.classify_data import Look, grouped
from vesalius.learning.classify_plan import ClassifyPlan
from vesalius.learning.classify_stack import fit_weights, probabilities, thresholds

LOOK = Look(600, (320.0, 270.0, 1.0), (320, 270, 1), 1, "US", False)


def planned(seconds: float, look: Look = LOOK, images: int = 480) -> ClassifyPlan:
    """On a machine whose time goes with voxels and the square of width."""

    def measure(plan: ClassifyPlan) -> float:
        return math.prod(plan.size) * plan.width**2 * 2e-8 * (1 if plan.bfloat16 else 2)

    first = planning.first_plan(look, 5, look.images, "cpu", 2)
    return planning.fitted_to(first, look, images, seconds, measure)


def test_more_time_buys_width_and_then_larger_frames() -> None:
    plans = [planned(seconds) for seconds in (5, 60, 300, 3000, 30_000)]
    sizes = [(plan.longest, plan.width) for plan in plans]
    assert sizes == sorted(sizes)
    assert sizes[0] == (48, 16)
    assert sizes[-1][0] > 128
    assert all(plan.width == 32 for plan in plans if plan.longest > 48)
    assert all(plan.bfloat16 for plan in plans)


def test_small_images_are_taken_as_they_are() -> None:
    small = planned(1e6, Look(600, (28.0, 28.0, 1.0), (28, 28, 1), 1, "", False))
    assert small.size == (28, 28, 1)
    cube = planned(1e6, Look(600, (28.0, 28.0, 28.0), (28, 28, 28), 1, "", False))
    assert cube.size == (28, 28, 28)


def test_a_plan_survives_its_card_and_another_one_is_refused() -> None:
    plan = planned(60)
    assert ClassifyPlan.from_json(plan.as_json()) == plan
    for broken in ({**plan.as_json(), "format": 99}, {**plan.as_json(), "task": "detection"}, {"format": 1}):
        with pytest.raises(UsageError):
            ClassifyPlan.from_json(broken)


def test_sides_are_never_mirrored() -> None:
    assert planning.mirror_candidates(LOOK, ("kidney-left", "kidney-right")) == ()
    assert planning.mirror_candidates(LOOK, ("benign", "malignant")) == (0,)


@pytest.mark.parametrize(
    ("groups", "asked", "expected"), [([40, 60], 1, 5), ([3, 60], 1, 3), ([1, 9], 1, 1), ([9, 9], 2, 2)]
)
def test_folds_never_leave_a_class_out(groups: list[int], asked: int, expected: int) -> None:
    assert planning.folds_for(groups, asked, 100) == expected


def test_the_better_part_weighs_more_and_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    truth = np.eye(2)[(rng.random(2000) < 0.3).astype(int)]
    good = (truth - 0.5) * 3 + rng.normal(0, 1, truth.shape)
    noise = rng.normal(0, 1, truth.shape)
    weights = fit_weights(good, noise, truth, "binary")
    assert weights.network > 5 * weights.frozen
    said = probabilities(weights.joined(good, noise), "binary")[:, 1]
    for low, high in ((0.0, 0.2), (0.2, 0.6), (0.6, 1.0)):
        part = (said >= low) & (said < high)
        assert abs(said[part].mean() - truth[part, 1].mean()) < 0.07


def test_the_threshold_stands_in_the_gap_whatever_the_share_of_classes() -> None:
    rng = np.random.default_rng(1)
    for share in (0.1, 0.5, 0.9):
        positive = rng.random(3000) < share
        score = np.where(positive, 4.0, -4.0) + rng.normal(0, 1, 3000)
        rule = thresholds(np.stack([np.zeros(3000), score], 1), np.eye(2)[positive.astype(int)], "binary")
        place = math.log(rule["values"][0] / (1 - rule["values"][0]))
        assert abs(place) < 1.5
        assert rule["sensitivity_99"] > 0.5


def test_patients_and_look_alikes_stay_together() -> None:
    rng = np.random.default_rng(0)
    one, other = (bytes([2]) + rng.bytes(64) for _ in range(2))
    groups = grouped(["a", "b", "a", "c"], {"0:0": one, "1:1": other, "2:2": other, "3:3": bytes([2]) + rng.bytes(64)})
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] != groups[0]


def test_a_pretrained_network_sees_small_images_enlarged_and_large_ones_as_time_allows() -> None:
    def measure(plan: ClassifyPlan) -> float:
        return math.prod(plan.size) * plan.batch * (3e-8 if plan.bfloat16 else 6e-8)

    def planned_for(look: Look, seconds: float) -> ClassifyPlan:
        first = planning.first_plan(look, 5, look.images, "cpu", 2, planning.EFFICIENTNET)
        return planning.fitted_to(first, look, 480, seconds, measure)

    small = Look(600, (28.0, 28.0, 1.0), (28, 28, 1), 1, "", False)
    assert planned_for(small, 1e6).size == (112, 112, 1)
    lengths = [planned_for(LOOK, seconds).longest for seconds in (1, 20, 1e6)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (64, 224)
    assert not planning.learns_enough(planned_for(LOOK, 0.1), 480)
    assert planning.learns_enough(planned_for(LOOK, 20), 480)
