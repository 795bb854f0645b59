"""Fitting: the same plan and seed give the same model, also after an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from learning_cohort import small_cohort
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.progress import Silent
from vesalius.core.protocols import Fitted
from vesalius.imaging.augmentation import AugmentationSettings
from vesalius.learning import fit as fitting
from vesalius.learning import loop, study
from vesalius.learning.data import Patches
from vesalius.learning.ensemble import export_ensemble
from vesalius.learning.fit import FitSettings, fit_segmentation
from vesalius.learning.plan import Plan

PLAN = Plan(
    patch=(16, 16, 16), batch=2, channels=(4, 8), strides=((2, 2, 2),), planar=False, device="cpu",
    bfloat16=False, channels_last=False, threads=1, folds=1, steps=12, rate=5e-3, weight_decay=1e-2,
    warm_up=0.03, augmentation=AugmentationSettings(mirror_axes=(0,)), foreground=0.5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def fitted(cohort: Cohort, plan: Plan | None = PLAN, **changes: Any) -> Fitted:
    stored = None if plan is None else json.loads(json.dumps(plan.as_json()))
    folds = plan.folds if plan is not None else 1
    wanted = {"minutes": 1.0, "inputs": ("T1",), "plan": stored, "folds": folds, **changes}
    return fit_segmentation(cohort, cohort.cases, FitSettings(**wanted), cohort.folder / "work", Silent())


def test_the_same_plan_and_seed_give_the_same_model(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    first, again = fitted(cohort), fitted(cohort)
    assert first.files == again.files
    assert fitted(cohort, seed=1).files["weights.safetensors"] != first.files["weights.safetensors"]
    stored = Plan.from_json(first.card["plan"])
    assert fitted(cohort, stored).files == first.files


class Interrupting(Patches):
    """Patches that are interrupted once, as by Ctrl-C."""

    at: int | None = 7

    def draw(self, number: int) -> Any:
        if number == Interrupting.at:
            Interrupting.at = None
            raise KeyboardInterrupt
        return super().draw(number)


def test_an_interrupted_fit_resumes_to_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(small_cohort(tmp_path / "whole"))
    monkeypatch.setattr(study, "Patches", Interrupting)
    cohort = small_cohort(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        fitted(cohort)
    assert (tmp_path / "cut/work/network0.safetensors").exists()
    assert json.loads((tmp_path / "cut/work/spent.json").read_text())["seconds"] > 0
    assert fitted(cohort, resume=True).files == whole.files


def test_turns_of_the_clock_are_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = small_cohort(tmp_path)
    monkeypatch.setattr(loop, "_GUARD_STEPS", 4)
    share = [0.0]
    monkeypatch.setattr(fitting._Share, "seconds", lambda self: share[0])
    plan = replace(PLAN, steps=30)
    monkeypatch.setattr(fitting, "_measured_plan", lambda *args: plan)
    first = fitted(cohort, None)
    turns = first.card["plan"]["turns"]
    assert turns[0][0] == (4, 5)  # no time left: one more step, and over
    assert fitted(cohort, Plan.from_json(first.card["plan"])).files == first.files


def test_a_network_learns_and_its_ensemble_answers(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path, 10)
    plan = replace(PLAN, steps=80, folds=2, rate=1e-2)
    result = fitted(cohort, plan)
    dice = [float(word.rstrip(".,")) for word in result.card["sentences"][-1].split() if word.startswith("0.")]
    assert len(dice) == 2 and min(dice) > 0.4  # chance is below 0.1
    assert len(result.curve.series) == 2
    check = load(result.files["check.safetensors"])
    assert check["output"].shape == (1, 3, 16, 16, 16)
    np.testing.assert_allclose(np.exp(check["output"]).sum(1), 1, atol=1e-4)


def test_an_ensemble_can_be_trained_by_several_processes(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    plan = replace(PLAN, folds=2)
    whole = fitted(cohort, plan)
    settings = FitSettings(minutes=1, inputs=("T1",), plan=plan.as_json(), folds=2)
    works = [tmp_path / "a", tmp_path / "b"]
    for number, work in enumerate(works):
        alone = replace(settings, only=(number,))
        assert not fit_segmentation(cohort, cohort.cases, alone, work, Silent()).files
    assert export_ensemble(cohort, cohort.cases, settings, works, Silent()).files == whole.files
    some = export_ensemble(cohort, cohort.cases, settings, works[:1], Silent())
    assert "1 of 2 planned networks" in some.card["sentences"][-1]
    with pytest.raises(UsageError, match="Train first"):
        export_ensemble(cohort, cohort.cases, settings, [tmp_path / "neither"], Silent())


def test_planes_are_fitted_in_two_dimensions(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path, 6, (24, 20, 1), channels=3)
    plan = replace(PLAN, patch=(16, 16, 1), planar=True, strides=((2, 2, 1),))
    result = fitted(cohort, plan)
    check = load(result.files["check.safetensors"])
    assert check["input"].shape == (1, 3, 16, 16, 1) and check["output"].shape == (1, 3, 16, 16, 1)
    assert result.card["network"]["multiple"] == [2, 2, 1]


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    def own(channels: int, classes: int, dims: int) -> torch.nn.Module:
        assert dims == 3
        return torch.nn.Conv3d(channels, classes, 3, padding=1)

    cohort = small_cohort(tmp_path)
    result = fitted(cohort, replace(PLAN, channels=(), strides=()), network=own)
    assert len(load(result.files["weights.safetensors"])) <= 2
    with pytest.raises(UsageError, match="of one's own"):
        fitted(cohort, replace(PLAN, channels=(), strides=()))


def test_a_fit_measures_plans_and_says_so(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path)
    result = fitted(cohort, None, minutes=0.2)
    plan = result.card["plan"]
    assert plan["measured"] and plan["seconds_per_step"] > 0 and plan["steps"] >= 20
    assert Plan.from_json(plan).as_json() == plan | {"sentences": list(Plan.from_json(plan).sentences())}
    assert result.card["preparation"]["spacing"] == [1.0, 1.0, 1.0]
    assert any("steps of AdamW" in sentence for sentence in result.card["sentences"])
    json.dumps(result.card)


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path, 2)
    with pytest.raises(UsageError, match="folds need as many patients"):
        fitted(cohort, replace(PLAN, folds=3))
    with pytest.raises(UsageError, match="no named classes"):
        fitted(replace(cohort, labels=()))
    with pytest.raises(UsageError, match="version"):
        fit_segmentation(
            cohort, cohort.cases, FitSettings(1.0, inputs=("T1",), plan={"format": 99}), tmp_path, Silent()
        )


def test_the_ignored_value_has_no_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    label = torch.randint(0, 3, (2, 4, 4, 4))
    label[:, 2:] = 3
    loop.segmentation_loss(logits, label, 3).backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[:, :, 2:] == 0) and torch.any(logits.grad[:, :, :2] != 0)
    loop.segmentation_loss(logits, torch.full_like(label, 3), 3).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_perfect_answer_has_almost_no_loss() -> None:
    label = torch.randint(0, 3, (1, 6, 6, 6))
    logits = 30.0 * torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    assert loop.segmentation_loss(logits, label, 3) < 0.01


def test_ignored_voxels_are_left_out_of_a_whole_fit(tmp_path: Path) -> None:
    cohort = small_cohort(tmp_path, ignore=255)
    assert fitted(cohort, replace(PLAN, steps=20)).files
