"""Classification learns within its budget, says how sure it is, and behaves on what cannot be learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from classify_cohort import shape_cohort
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.progress import Silent
from vesalius.core.protocols import Fitted
from vesalius.imaging.whole import WholePreparation
from vesalius.inference.classifier import Classifier
from vesalius.learning.classify import fit_classification
from vesalius.learning.classify_changes import ChangeSettings, draw_changes
from vesalius.learning.study import FitSettings
from vesalius.measures.target import Target, find_target
from vesalius.store.bundle import open_bundle, write_bundle

SHORT = 0.12  # minutes


def fitted(cohort: Cohort, work: Path, target: Target | None = None, **changes: Any) -> tuple[Fitted, Target]:
    question = target or find_target(cohort, "kind")
    settings = replace(FitSettings(minutes=SHORT, inputs=(), threads=1, folds=2), **changes)
    return fit_classification(cohort, cohort.cases, settings, work, Silent(), question), question


def bundle_of(folder: Path, result: Fitted, question: Target) -> Classifier:
    classes = [{"value": n, "name": name, "code": None} for n, name in enumerate(question.classes)]
    card = {
        "name": "shapes", "task": "classification", "research_only": True, "classes": classes, "inputs": [],
        "kind": question.kind, "target": question.name, **result.card,
    }  # fmt: skip
    write_bundle(folder, result.files, card)
    return Classifier(open_bundle(folder), threads=1)


def test_a_bundle_answers_with_probabilities_a_class_and_a_map(tmp_path: Path) -> None:
    cohort = shape_cohort(tmp_path / "cohort", 40)
    result, question = fitted(cohort, tmp_path / "work")
    model = bundle_of(tmp_path / "model", result, question)
    assert model.verify() < 1e-3
    unseen = shape_cohort(tmp_path / "other", 80).cases[40:]
    right = 0
    for case in unseen:
        answer = model.predict(case.images)
        assert [finding.name for finding in answer.findings] == ["0", "1"]
        assert sum(finding.score for finding in answer.findings) == pytest.approx(1.0, abs=1e-5)
        assert answer.details["map_0"].shape == (2, 24, 20, 1)
        right += answer.details["predicted"] == question.classes[int(case.covariates["kind"])]
    assert right >= 0.8 * len(unseen)


def test_the_same_plan_and_seed_give_the_same_files(tmp_path: Path) -> None:
    cohort = shape_cohort(tmp_path / "cohort", 12)
    first, _ = fitted(cohort, tmp_path / "a", minutes=0.06)
    second, _ = fitted(cohort, tmp_path / "b", plan=first.card["plan"])
    assert first.files["weights.safetensors"] == second.files["weights.safetensors"]


@pytest.mark.parametrize(("size", "channels"), [((12, 12, 12), 1), ((20, 16, 1), 3)])
def test_volumes_and_colours(tmp_path: Path, size: tuple[int, int, int], channels: int) -> None:
    cohort = shape_cohort(tmp_path / "cohort", 12, size=size, channels=channels)
    result, question = fitted(cohort, tmp_path / "work", minutes=0.06)
    model = bundle_of(tmp_path / "model", result, question)
    answer = model.predict(cohort.cases[0].images)
    assert answer.details["map_0"].shape == (2, *size)


def test_three_patients_leave_nobody_out_and_say_so(tmp_path: Path) -> None:
    cohort = shape_cohort(tmp_path / "cohort", 3)
    result, question = fitted(cohort, tmp_path / "work", minutes=0.06)
    assert any("too few patients" in sentence for sentence in result.card["sentences"])
    assert bundle_of(tmp_path / "model", result, question).predict(cohort.cases[0].images).findings


@pytest.mark.parametrize("case", ["one class", "blank"])
def test_what_cannot_be_learned_is_refused(tmp_path: Path, case: str) -> None:
    cohort = shape_cohort(tmp_path / "cohort", 6, classes=1 if case == "one class" else 2, blank=case == "blank")
    with pytest.raises(UsageError, match="one class" if case == "one class" else "No training case"):
        fitted(cohort, tmp_path / "work", minutes=0.06)


def test_several_labels_and_order_and_views(tmp_path: Path) -> None:
    cohort = shape_cohort(tmp_path / "cohort", 18, classes=3, views=2)
    result, question = fitted(cohort, tmp_path / "work", find_target(cohort, "kind", ordinal=True), minutes=0.06)
    model = bundle_of(tmp_path / "model", result, question)
    assert model.predict(cohort.cases[2].images[:1]).details["predicted"] in question.classes
    both = tuple(
        replace(case, covariates={"a": float(n % 2), "b": float(n % 3 > 0)}) for n, case in enumerate(cohort.cases)
    )
    several = replace(cohort, cases=both)
    result, question = fitted(several, tmp_path / "work2", find_target(several, "a,b"), minutes=0.06)
    assert question.kind == "multilabel"
    found = bundle_of(tmp_path / "model2", result, question).predict(several.cases[0].images)
    assert isinstance(found.details["predicted"], list)


def test_changes_without_strength_change_nothing() -> None:
    still = ChangeSettings(
        rotation=0, scaling=0, shear=0, shift=0, mirror_axes=(), intensity=0, erase=0, mix=0, speckle=0
    )
    for size in ((9, 7), (6, 5, 4)):
        image = torch.randn(3, 2, *size)
        drawn = draw_changes(still, 3, 2, size, torch.Generator().manual_seed(0))
        changed, truth = drawn.apply(image.clone(), torch.eye(3))
        assert torch.allclose(changed, image, atol=1e-4)
        assert torch.equal(truth, torch.eye(3))


def test_speckle_multiplies_and_is_for_ultrasound_only() -> None:
    from vesalius.learning.classify_data import Look
    from vesalius.learning.classify_plan import changes_for

    look = Look(500, (320.0, 270.0, 1.0), (320, 270, 1), 1, "US", False)
    assert changes_for(look, 96).speckle > 0
    for other in (replace(look, modality="CR"), replace(look, channels=3)):
        assert changes_for(other, 96).speckle == 0
    settings = ChangeSettings(speckle=0.2, intensity=0.0)
    drawn = replace(draw_changes(settings, 1, 1, (64, 64), torch.Generator()), speckle=torch.tensor([0.2]))
    spread = [float(drawn.recolour(torch.full((1, 1, 64, 64), level)).std()) for level in (-2.0, 0.0, 2.0)]
    assert spread[0] == pytest.approx(0.0, abs=1e-6)
    assert spread[2] == pytest.approx(2 * spread[1], rel=1e-3)


def test_a_mirrored_axis_is_mirrored() -> None:
    settings = ChangeSettings(rotation=0, scaling=0, shear=0, shift=0, mirror_axes=(0,), intensity=0, erase=0, mix=0)
    image = torch.randn(16, 1, 8, 6)
    drawn = draw_changes(settings, 16, 1, (8, 6), torch.Generator().manual_seed(1))
    moved = drawn.move(image)
    kinds = [
        "same" if torch.allclose(a, b, atol=1e-4) else "flip" if torch.allclose(a, b.flip(1), atol=1e-4) else "other"
        for a, b in zip(moved, image, strict=True)
    ]
    assert set(kinds) == {"same", "flip"}


def test_a_preparation_survives_its_card() -> None:
    from vesalius.learning.classify_data import Look, preparation_for

    look = Look(5, (320.0, 270.0, 1.0), (320, 270, 1), 1, "US", False)
    made = preparation_for(look, (), 128)
    assert made.size == (128, 108, 1)
    assert WholePreparation.from_json(made.as_json()) == made
    assert np.prod(preparation_for(replace(look, shape=(28, 28, 28), extent=(28.0,) * 3), (), 28).size) == 28**3


def test_half_weights_are_the_same_on_both_sides() -> None:
    from safetensors.numpy import load
    from torch import nn

    from vesalius.learning.classify_stack import CalibratedEnsemble, Weights
    from vesalius.learning.export import check_volume, compare, export_module
    from vesalius.networks.classifier import ResidualClassifier, residual_shape, settle
    from vesalius.networks.frozen import FrozenFeatures, LinearHead, RandomCosines

    torch.manual_seed(0)
    network = ResidualClassifier(1, 2, residual_shape((16, 16, 1), 16), 2)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 1.0, 0.5)
    settle(network, [torch.randn(16, 1, 16, 16)])
    extractor = FrozenFeatures((16, 16))
    features = extractor(torch.randn(50, 1, 16, 16))
    directions, phases = torch.randn(512, features.shape[1]) * 0.05, torch.rand(512) * 6
    bend = RandomCosines(features.mean(0), features.std(0), directions, phases)
    head = nn.Sequential(bend, LinearHead(torch.randn(2, 512), torch.zeros(2)))
    whole = CalibratedEnsemble([network], extractor, head, Weights(0.5, 9.0, (0.0, 0.1)), (16, 16, 1), (0,), "binary")
    axes = {name: {0: "n"} for name in ("image", "logits", "map")}
    files = export_module(whole, check_volume(1, (16, 16, 1)), axes)
    check = load(files["check.safetensors"])
    assert compare(files, check["input"], check["output"]) < 1e-4
    assert compare(files, check["input"], check["map"], "map") < 1e-4


@pytest.mark.parametrize("longest", [24, 64, 80, 96, 112])
def test_an_empty_image_stays_empty_however_it_is_enlarged(longest: int) -> None:
    from vesalius.core.errors import UnusableInput
    from vesalius.imaging.whole import prepare_whole
    from vesalius.learning.classify_data import look, preparation_for

    cohort = shape_cohort(Path("nowhere"), 1, blank=True)
    preparation = preparation_for(look(cohort.cases, ()), (), longest)
    with pytest.raises(UnusableInput, match="same value everywhere"):
        prepare_whole(cohort.cases[0].images[0], preparation)
