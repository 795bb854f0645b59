"""The plan's arithmetic, without a clock."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning_cohort import LABELS, small_cohort
from vesalius.core.cohort import Label
from vesalius.learning import plan as planning
from vesalius.learning.fingerprint import Fingerprint, fingerprint, preparation_for
from vesalius.learning.loop import Schedule, rate_at, sparkline
from vesalius.learning.plan import Plan
from vesalius.networks.unet import unet_shape

FOUND = Fingerprint(
    cases=100, shape_low=(31, 40, 24), shape=(35, 50, 36), shape_high=(43, 59, 47), spacing=(1.0, 1.0, 1.0),
    spacings_differ=False, physical=True, planar=False, modality=("MR",), channels=(1,),
    percentiles=((0.0, 1.0, 2.0),), moments=((1.0, 0.5),), volumes={1: (1.6, 1.0), 2: (1.4, 1.0)},
)  # fmt: skip
SPACING = (1.0, 1.0, 1.0)


def first(labels: tuple[Label, ...] = LABELS, threads: int = 2) -> Plan:
    return planning.first_plan(FOUND, labels, SPACING, "cpu", 1, threads)


def speeds(plan: Plan, hopeless: float = 0) -> list[float]:
    """A machine on which bfloat16 halves the time, channels last costs, and width costs in proportion."""
    seconds = 0.2 * plan.channels[1] / 32 * (0.5 if plan.bfloat16 else 1) * (1.2 if plan.channels_last else 1)
    return [seconds * 2 / plan.threads] * 3


def test_the_fastest_way_of_computing_is_taken() -> None:
    plan = planning.fastest(first(), speeds)
    assert (plan.bfloat16, plan.channels_last, plan.threads) == (True, False, 2)
    assert plan.seconds_per_step == pytest.approx(0.1)
    assert len(plan.measured) == 4


def test_fewer_threads_win_where_other_work_keeps_the_processors_busy() -> None:
    plan = planning.fastest(first(), lambda p, _: [1.0 if p.threads == 2 else 0.3])
    assert plan.threads == 1
    assert planning.fastest(first(), lambda p, _: [1.0], threads_too=False).threads == 2


def test_threads_are_tried_by_doubling() -> None:
    ways = planning.ways_of_computing(first(threads=6), threads_too=True)
    assert [way["threads"] for way in ways if "threads" in way] == [2, 4, 6]


def test_measuring_stops_when_its_time_is_over() -> None:
    plan = planning.fastest(first(), lambda p, _: None if p.bfloat16 else [0.4])
    assert not plan.bfloat16 and plan.seconds_per_step == 0.4


@pytest.mark.parametrize("minutes", [2, 15, 60, 600])
def test_the_schedule_fits_the_time(minutes: int) -> None:
    plan = planning.fitted_to(planning.fastest(first(), speeds), SPACING, lambda: 60.0 * minutes, speeds)
    assert plan.steps * speeds(plan)[0] <= 60 * minutes
    assert (plan.steps + 2) * speeds(plan)[0] > 60 * minutes


def test_more_time_buys_a_wider_network() -> None:
    widths = [
        planning.fitted_to(planning.fastest(first(), speeds), SPACING, lambda s=s: s, speeds).channels[0]
        for s in (10.0, 900.0, 36000.0)
    ]
    assert widths == sorted(widths) and widths[0] < widths[-1]


def test_sided_classes_are_not_mirrored() -> None:
    assert first().augmentation.mirror_axes == (0,)
    assert first((Label(1, "Left hippocampus"), Label(2, "Right hippocampus"))).augmentation.mirror_axes == ()


def test_the_patch_covers_small_volumes() -> None:
    assert first().patch == (40, 56, 40)


@given(
    size=st.tuples(*[st.integers(1, 600)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
)
def test_patches_are_bounded_and_suit_their_network(
    size: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    patch = planning.patch_size(size, spacing, 96_000)
    shape = unet_shape(patch, spacing)
    assert all(n % unit == 0 for n, unit in zip(patch, shape.multiple, strict=True))
    assert math.prod(patch) <= 1.5 * 96_000
    assert all(n == 1 for n, whole in zip(patch, size, strict=True) if whole == 1)


def test_thick_slices_are_halved_later() -> None:
    assert unet_shape((128, 128, 16), (0.8, 0.8, 5.0)).strides == ((2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert unet_shape((128, 128, 1), (1.0, 1.0, 1.0)).strides == ((2, 2, 1),) * 3


def test_ct_is_clipped_and_large_volumes_are_made_coarser() -> None:
    ct = replace(FOUND, modality=("CT",), shape=(512, 512, 800), spacing=(0.8, 0.8, 0.8))
    preparation = preparation_for(ct, ("CT",), 20_000_000)
    assert preparation.normalisation[0].kind == "clip_zscore"
    assert preparation.normalisation[0].mean == 1.0
    assert preparation.spacing is not None
    voxels = math.prod(n * 0.8 / to for n, to in zip(ct.shape, preparation.spacing, strict=True))
    assert 15_000_000 < voxels <= 20_000_000
    assert preparation_for(replace(FOUND, physical=False, planar=True), ("US",), 10**9).spacing is None


def test_a_fingerprint_counts_what_is_there(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path, 5)
    found = fingerprint(cohort, cohort.cases, ("T1",))
    assert (found.cases, found.shape, found.spacing) == (5, (16, 18, 20), (1.0, 1.0, 1.0))
    assert found.volumes[1][1] == 1.0 and 0.03 < found.volumes[1][0] < 0.3  # a ball of about 3 mm radius
    assert 150 < found.percentiles[0][1] < 350


def test_the_rate_rises_then_falls_to_nothing() -> None:
    schedule = Schedule(
        steps=100, rate=1e-3, weight_decay=0.01, warm_up=0.05, size=(8, 8, 8), spacing=SPACING, classes=3,
        bfloat16=False, channels_last=False, device="cpu", seed=0, augmentation=first().augmentation,
    )  # fmt: skip
    rates = [rate_at(schedule, step / 100) for step in range(101)]
    assert max(rates) <= 1e-3 and rates.index(max(rates)) in range(4, 7)
    assert rates[-1] == pytest.approx(0, abs=1e-9) and rates[6:] == sorted(rates[6:], reverse=True)


def test_a_curve_in_one_line() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert len(sparkline([float(n) for n in range(500)])) == 24
    assert sparkline([1.0]) == "▁"
