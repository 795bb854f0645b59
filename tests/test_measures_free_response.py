import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.core.finding import Box
from vesalius.core.grid import Grid
from vesalius.measures.free_response import RATES, FreeResponse
from vesalius.measures.matching import box_agreement, centre_agreement, match

PLANE = Grid.from_parts((1000, 800, 1), placed=False, unit="pixel")
VOLUME = Grid.from_parts((100, 100, 50), spacing=(1.0, 1.0, 2.0))


def box(x, y, width=20.0, height=20.0, z=0.0, depth=1.0):
    return Box("i", (x, y, z), (width, height, depth))


def brute(score, hit, lesions, images, rate):
    """Sensitivity at a rate by trying every threshold."""
    best = 0.0
    for threshold in sorted(set(score)):
        above = [h for s, h in zip(score, hit, strict=True) if s >= threshold]
        if sum(h == 0 for h in above) <= rate * images + 1e-9:
            best = max(best, sum(h == 1 for h in above) / lesions)
    return best


def brute_precision(score, hit, lesions):
    """Average precision by the definition: for every found lesion the best precision at that recall or more."""
    order = np.argsort(-np.array(score), kind="stable")
    points, found, named = [], 0, 0
    for place, index in enumerate(order):
        found, named = found + hit[index], named + 1
        last = place + 1 == len(order) or score[order[place + 1]] != score[index]
        if last:
            points.append((found, found / named))
    return sum(max((p for f, p in points if f >= n), default=0.0) for n in range(1, lesions + 1)) / lesions


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), max_size=40), st.integers(1, 6))
def test_agrees_with_brute_force(marks, images):
    score, hit = [float(s) for s, _ in marks], [h for _, h in marks]
    lesions = sum(hit) + 2
    owner = [n % images for n in range(len(marks))]
    per_case = np.full(images, lesions / images)
    curve = FreeResponse(score, hit, owner, per_case, np.ones(images)).curve()
    for rate in RATES:
        assert curve.sensitivity_at(rate)[0] == pytest.approx(brute(score, hit, lesions, images, rate))
    assert curve.cpm()[0] == pytest.approx(np.mean([brute(score, hit, lesions, images, rate) for rate in RATES]))
    assert curve.average_precision()[0] == pytest.approx(brute_precision(score, hit, lesions))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1), st.integers(0, 3)), max_size=30),
       st.tuples(*[st.integers(0, 3)] * 4))  # fmt: skip
def test_a_weight_is_the_same_as_that_many_copies_of_a_case(marks, times):
    lesions = np.array([sum(h for _, h, o in marks if o == case) + 1.0 for case in range(4)])
    images = np.array([1.0, 2.0, 1.0, 4.0])
    score, hit, owner = ([m[part] for m in marks] for part in range(3))
    one = FreeResponse(score, hit, owner, lesions, images).curve(np.array([times], float))
    copies = [(s, h, (o, n)) for s, h, o in marks for n in range(times[o])]
    cases = [(case, n) for case in range(4) for n in range(times[case])]
    if not cases:
        assert np.isnan(one.cpm()[0])
        return
    copied = FreeResponse(
        [s for s, _, _ in copies], [h for _, h, _ in copies], [cases.index(o) for _, _, o in copies],
        [lesions[case] for case, _ in cases], [images[case] for case, _ in cases],
    ).curve()  # fmt: skip
    assert one.cpm()[0] == pytest.approx(copied.cpm()[0])
    assert one.average_precision()[0] == pytest.approx(copied.average_precision()[0])


def test_no_marks_find_nothing_and_second_marks_count_for_nothing():
    empty = FreeResponse([], [], [], [1.0, 2.0], [1.0, 1.0]).curve()
    assert (empty.cpm()[0], empty.average_precision()[0]) == (0.0, 0.0)
    once = FreeResponse([0.9, 0.5], [1, 0], [0, 0], [1.0], [1.0]).curve()
    twice = FreeResponse([0.9, 0.8, 0.5], [1, np.nan, 0], [0, 0, 0], [1.0], [1.0]).curve()
    assert np.array_equal(once.alarms, twice.alarms) and np.array_equal(once.found, twice.found)


def test_a_lesion_is_found_once_by_its_surest_mark():
    lesions = [box(100, 100), box(150, 100, 60, 60)]
    marks = [box(100, 100), box(102, 100), box(140, 100), box(101, 99), box(500, 500)]
    assert match(centre_agreement(marks, lesions, PLANE), 0.0) == [1, -1, 2, -1, 0]
    lesions = [box(100, 100), box(130, 100, 60, 60)]
    between = [box(108, 100), box(108, 101)]  # inside both: the better met first, then the one that is left
    assert match(centre_agreement(between, lesions, PLANE), 0.0) == [2, 1]
    assert match(np.zeros((2, 0)), 0.0) == [0, 0]


def test_a_hit_is_a_centre_in_the_ellipse():
    lesion = [box(100, 100, 80, 40)]
    inside, corner, outside = box(139, 100), box(135, 115), box(142, 100)
    found = centre_agreement([inside, corner, outside], lesion, PLANE)[:, 0]
    assert found[0] > 0 > found[1] and found[2] < 0
    tiny = [box(100, 100, 1, 1)]  # counts as wide as 1 % of the longest side: 10 pixels to each side
    assert match(centre_agreement([box(109, 100)], tiny, PLANE), 0.0) == [1]
    assert match(centre_agreement([box(111, 100)], tiny, PLANE), 0.0) == [0]
    ball = [box(50, 50, 20, 20, z=25, depth=10)]
    near, far = box(50, 50, z=29), box(50, 50, z=31)
    assert match(centre_agreement([near, far], ball, VOLUME), 0.0) == [1, 0]


def test_overlap_of_boxes():
    first = [box(10, 10, 10, 10), box(10, 10, 10, 10, depth=5)]
    assert box_agreement(first[:1], [box(15, 10, 10, 10)], PLANE)[0, 0] == pytest.approx(50 / 150)
    assert box_agreement(first[1:], [box(10, 10, 10, 10, z=2.5, depth=5)], VOLUME)[0, 0] == pytest.approx(1 / 3)
    assert box_agreement(first[:1], [box(50, 50)], PLANE)[0, 0] == 0.0
    assert box_agreement(first[:1], first[1:], PLANE)[0, 0] == 1.0  # in a plane depth does not count
