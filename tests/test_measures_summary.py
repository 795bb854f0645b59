import math

import pytest

from vesalius.core.report import Metric, Score
from vesalius.measures.summary import find_metric, overall_by_case, summarise
from vesalius.measures.verdict import disagreements, listed, verdict

ARMS = {"model": "the network", "rival": "the multi-atlas segmentation"}


def rows(arm, values, name="dice"):
    """values: case to class to value; the case's letter is its patient."""
    return [
        Score(arm, case, case[0], class_name, name, value)
        for case, classes in values.items()
        for class_name, value in classes.items()
    ]


def test_all_is_the_mean_over_classes_then_cases():
    scores = rows("model", {"a1": {"x": 1.0, "y": 0.5}, "b1": {"x": 0.2, "y": math.nan}})
    metrics = summarise(scores, seed=0)
    assert find_metric(metrics, "model", "dice", "x").value == pytest.approx(0.6)
    assert find_metric(metrics, "model", "dice", "y").value == pytest.approx(0.5)
    assert find_metric(metrics, "model", "dice").value == pytest.approx((0.75 + 0.2) / 2)
    assert find_metric(metrics, "model", "dice").n == 2
    assert overall_by_case(scores, "model", "dice") == pytest.approx({"a1": 0.75, "b1": 0.2})


def test_the_difference_is_paired():
    hard = {
        f"{letter}1": {"x": level}
        for letter, level in zip("abcdefgh", (0.1, 0.9, 0.3, 0.7, 0.5, 0.2, 0.8, 0.6), strict=True)
    }
    better = {case: {"x": value["x"] + 0.05} for case, value in hard.items()}
    metrics = summarise(rows("model", better) + rows("rival", hard), seed=0)
    difference = find_metric(metrics, "difference", "dice")
    assert difference.value == pytest.approx(0.05)
    assert difference.high - difference.low < 1e-9  # however much the cases differ, the gain is the same
    assert find_metric(metrics, "model", "dice").high > find_metric(metrics, "model", "dice").low


def test_the_difference_uses_shared_cases_only():
    metrics = summarise(
        rows("model", {"a1": {"x": 0.5}, "b1": {"x": 0.9}}) + rows("rival", {"a1": {"x": 0.4}, "b1": {"x": math.nan}}),
        seed=0,
    )
    assert find_metric(metrics, "difference", "dice").value == pytest.approx(0.1)
    assert find_metric(metrics, "difference", "dice").n == 1


def test_sizes_are_no_measure_of_quality():
    metrics = summarise(rows("model", {"a1": {"x": 3.0}}, "volume_ml"), seed=0)
    assert metrics == ()
    assert summarise([], seed=0) == ()


def metric(arm, value, low, high, n=42, name="dice"):
    return Metric(arm, name, "all", value, low, high, n)


def test_the_network_wins():
    found = verdict(
        [metric("model", 0.89, 0.88, 0.9), metric("rival", 0.82, 0.8, 0.84), metric("difference", 0.07, 0.06, 0.09)],
        "dice",
        ARMS,
    )
    assert found == (
        "The network's mean Dice is 0.89 (0.88 to 0.90), 0.07 (0.06 to 0.09) above the multi-atlas segmentation "
        "on the same 42 patients."
    )


def test_the_rival_wins():
    found = verdict(
        [
            metric("model", 0.8, 0.78, 0.82),
            metric("rival", 0.85, 0.83, 0.87),
            metric("difference", -0.05, -0.07, -0.03),
        ],
        "dice",
        ARMS,
    )
    assert found == (
        "The hand-designed rival wins: the multi-atlas segmentation's mean Dice is 0.85 (0.83 to 0.87), "
        "0.05 (0.03 to 0.07) above the network on the same 42 patients."
    )


def test_no_difference_is_said_so():
    found = verdict(
        [metric("model", 0.8, 0.78, 0.82), metric("rival", 0.79, 0.77, 0.81), metric("difference", 0.01, -0.01, 0.03)],
        "dice",
        ARMS,
    )
    assert found.startswith("No difference shown: the network's mean Dice is 0.80")
    assert found.endswith("the difference of 0.01 (-0.01 to 0.03) on the same 42 patients could be chance.")


def test_small_differences_get_more_digits_and_lower_can_be_better():
    found = verdict(
        [
            metric("model", 0.801, 0.78, 0.82),
            metric("rival", 0.8, 0.77, 0.81),
            metric("difference", 0.001, 0.0005, 0.002),
        ],
        "dice",
        ARMS,
    )
    assert "0.001 (0.001 to 0.002) above" in found or "0.001 (0.000 to 0.002) above" in found
    name = "hd95_mm"
    found = verdict(
        [
            metric("model", 2.0, 1.5, 2.5, name=name),
            metric("rival", 3.0, 2.5, 3.5, name=name),
            metric("difference", -1.0, -1.5, -0.5, name=name),
        ],
        name,
        ARMS,
    )
    assert found.startswith("The network's mean HD95 is 2.00")
    assert "1.00 (0.50 to 1.50) below the multi-atlas" in found


def test_without_rival_or_with_one_patient():
    assert "no hand-designed rival" in verdict([metric("model", 0.8, 0.78, 0.82)], "dice", ARMS)
    alone = [
        metric("model", 0.8, 0.8, 0.8, 1),
        metric("rival", 0.7, 0.7, 0.7, 1),
        metric("difference", 0.1, 0.1, 0.1, 1),
    ]
    assert "too few to say who wins" in verdict(alone, "dice", ARMS)
    assert verdict([], "dice", ARMS) == "Nothing could be measured of the network."


def test_lists_in_words():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_measures_that_disagree_are_told():
    def both(name, model, rival, low, high):
        middle = (low + high) / 2
        return [
            metric("model", model, model, model, name=name),
            metric("rival", rival, rival, rival, name=name),
            metric("difference", middle, low, high, name=name),
        ]

    dice = both("dice", 0.9, 0.8, 0.05, 0.15)
    assert disagreements(dice + both("hd95_mm", 1.0, 2.0, -1.2, -0.8), "dice", ARMS) == []
    assert disagreements(dice + both("hd95_mm", 1.0, 1.1, -0.2, 0.1), "dice", ARMS) == []
    assert disagreements(dice + both("hd95_mm", 3.0, 2.0, 0.8, 1.2), "dice", ARMS) == [
        "By HD95 the multi-atlas segmentation is better: "
        "3.00 mm for the network, 2.00 mm for the multi-atlas segmentation."
    ]
    assert disagreements(dice + both("volume_error_ml", 3.0, 2.0, 0.8, 1.2), "dice", ARMS) == []
