"""The shipped EfficientNet-Lite0: known weights, any size, a part that stays, and one graph at the bedside."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional as F

from classify_cohort import shape_cohort
from vesalius.core.progress import Silent
from vesalius.inference.classifier import Classifier
from vesalius.learning import classify_plan as planning
from vesalius.learning.classify import fit_classification
from vesalius.learning.classify_plan import ClassifyPlan
from vesalius.learning.study import FitSettings
from vesalius.measures.target import find_target
from vesalius.networks.efficientnet import (
    FEATURES,
    EfficientNetClassifier,
    EfficientNetFeatures,
    pretrained,
    shipped_bytes,
)
from vesalius.store.bundle import open_bundle, write_bundle


def picture(size: tuple[int, int] = (96, 96)) -> torch.Tensor:
    """The cat that scikit-image ships, x first, as prepared images are."""
    from skimage import data

    image = torch.from_numpy(data.chelsea().copy()).permute(2, 1, 0)[None].float()
    return F.interpolate((image / 255 - 0.5) / 0.25, size, mode="bilinear", antialias=True)


def test_the_weights_are_those_that_the_note_tells_of() -> None:
    note = Path(__file__).parents[1] / "src/vesalius/networks/efficientnet_lite0.txt"
    assert "Apache License" in note.read_text(encoding="utf-8")
    assert hashlib.sha256(shipped_bytes()).hexdigest().startswith("ac3509dfcc42")


@torch.no_grad()
def test_a_picture_is_known_again_however_it_is_changed() -> None:
    """Weights that were read wrongly would not tell a brighter or mirrored picture from another one."""
    from skimage import data

    cup = torch.from_numpy(data.coffee().copy()).permute(2, 1, 0)[None].float()
    cup = F.interpolate((cup / 255 - 0.5) / 0.25, (96, 96), mode="bilinear", antialias=True)
    network = EfficientNetFeatures(3).eval()
    cat, bright, mirrored, other = (network(image)[0, -FEATURES:] for image in (
        picture(), picture() + 0.4, picture().flip(2), cup
    ))  # fmt: skip
    alike = [float(F.cosine_similarity(cat, found, dim=0)) for found in (bright, mirrored, other)]
    assert min(alike[:2]) > 0.75 > 0.5 > alike[2]


@torch.no_grad()
def test_grey_is_three_equal_colours() -> None:
    grey = picture().mean(1, keepdim=True)
    one, three = pretrained(1).eval()(grey), pretrained(3).eval()(grey.repeat(1, 3, 1, 1))
    assert torch.allclose(one, three, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (65, 33), (20, 28)])
def test_every_size_is_answered_and_the_map_is_the_answer(size: tuple[int, int]) -> None:
    network = EfficientNetClassifier(1, 2).eval()
    torch.nn.init.normal_(network.answer.weight)
    image = torch.randn(2, 1, *size)
    places = network.places(image)
    assert places.shape == (2, 2, *(-(-n // 32) for n in size))
    assert torch.allclose(places.flatten(2).mean(2), network(image))


def test_the_first_third_stays_and_the_rest_learns() -> None:
    network = EfficientNetClassifier(1, 2).train()
    torch.nn.init.normal_(network.answer.weight)
    network(torch.randn(2, 1, 64, 64)).square().sum().backward()
    learning = [name for name, parameter in network.named_parameters() if parameter.grad is not None]
    assert not any(name.startswith(("trunk.stem", "trunk.blocks.4.")) for name in learning)
    assert any(name.startswith("trunk.blocks.5.") for name in learning)
    assert all(parameter.requires_grad == (name in learning) for name, parameter in network.named_parameters())


def test_half_precision_learns_the_same() -> None:
    torch.manual_seed(0)
    image, found = torch.randn(2, 1, 64, 64), []
    for half in (False, True):
        network = EfficientNetClassifier(1, 2).train()
        torch.nn.init.constant_(network.answer.weight, 0.01)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = network(image).float().square().sum()
        loss.backward()
        found.append(network.trunk.blocks[12].look.weight.grad.flatten())
    assert float(F.cosine_similarity(found[0], found[1], dim=0)) > 0.98


def test_a_fit_from_photographs_is_one_graph_with_its_source_in_the_card(tmp_path: Path) -> None:
    cohort = shape_cohort(tmp_path / "cohort", 24)
    question = find_target(cohort, "kind")
    settings = FitSettings(minutes=0.08, inputs=(), threads=1, folds=2)
    short = fit_classification(
        cohort, cohort.cases, replace(settings, shipped_weights=False), tmp_path / "short", Silent(), question
    )
    assert "start" not in short.card
    assert short.card["plan"]["network"] == planning.RESIDUAL
    plan = replace(
        ClassifyPlan.from_json(short.card["plan"]), network=planning.EFFICIENTNET, longest=64, size=(64, 56, 1),
        steps=4, batch=4, shipped_features=True, turns=(),
    )  # fmt: skip
    result = fit_classification(
        cohort, cohort.cases, replace(settings, plan=plan.as_json()), tmp_path / "work", Silent(), question
    )
    start = result.card["start"]
    assert start["sha256"] == hashlib.sha256(shipped_bytes()).hexdigest()
    assert (start["licence"], start["network"]) == ("Apache-2.0", "EfficientNet-Lite0")
    assert start["used"] in ("joined", "alone", "no")
    classes = [{"value": n, "name": name, "code": None} for n, name in enumerate(question.classes)]
    card = {"name": "shapes", "task": "classification", "research_only": True, "classes": classes, "inputs": [],
            "kind": question.kind, "target": question.name, **result.card}  # fmt: skip
    write_bundle(tmp_path / "model", result.files, card)
    model = Classifier(open_bundle(tmp_path / "model"), threads=1)
    assert model.verify() < 1e-3
    assert model.predict(cohort.cases[0].images).details["map_0"].shape[0] == 2
    again = fit_classification(
        cohort, cohort.cases, replace(settings, plan=result.card["plan"]), tmp_path / "again", Silent(), question
    )
    assert again.files["weights.safetensors"] == result.files["weights.safetensors"]
