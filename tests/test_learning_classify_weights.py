"""A pretrained backbone from a local file: checked tensor by tensor, used frozen, exported, named in the card."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import save_file
from torch import nn

from classify_cohort import shape_cohort
from vesalius.core.errors import UsageError
from vesalius.core.progress import Silent
from vesalius.inference.classifier import Classifier
from vesalius.learning import classify_frozen
from vesalius.learning.classify import fit_classification, folds_of
from vesalius.learning.classify_data import WholeCases
from vesalius.learning.classify_weights import affordable, read_pretrained
from vesalius.learning.study import FitSettings
from vesalius.measures.target import find_target
from vesalius.networks.backbone import Backbone, BackboneShape, wanted_tensors
from vesalius.store.bundle import open_bundle, write_bundle

KINDS = {"ResNet-18": ((2, 2, 2, 2), False), "ResNet-34": ((3, 4, 6, 3), False), "ResNet-50": ((3, 4, 6, 3), True)}


def random_weights(kind: str = "ResNet-18", width: int = 4) -> dict[str, torch.Tensor]:
    """What training may have left: random convolutions, and normalisation that is no identity."""
    torch.manual_seed(0)
    backbone = Backbone(BackboneShape(*KINDS[kind], width))
    for name, tensor in backbone.state_dict().items():
        if ("bn" in name or "downsample.1" in name) and tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return {**backbone.state_dict(), "fc.weight": torch.zeros(7, 3), "fc.bias": torch.zeros(7)}


def written(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file(weights, path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_of_the_family_is_known_and_folding_changes_nothing(tmp_path: Path, kind: str) -> None:
    weights = random_weights(kind)
    path = written(tmp_path / "some.safetensors", weights)
    found = read_pretrained(path, "CC0")
    assert (found.kind, found.name, found.licence) == (kind, "some.safetensors", "CC0")
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    plain = Backbone(BackboneShape(*KINDS[kind], 4))
    plain.load_state_dict(weights, strict=False)
    image = torch.randn(2, 1, 40, 30)
    with torch.no_grad():
        expected, answer = plain.eval()(image), found.backbone(image)
    assert answer.shape == (2, found.backbone.shape.features)
    assert torch.allclose(answer, expected, rtol=0.02, atol=0.02 * float(expected.std()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.backbone.modules())


def test_names_and_sizes_are_those_of_the_published_files() -> None:
    wanted = dict(wanted_tensors(Backbone(BackboneShape(*KINDS["ResNet-50"]))))
    assert len(wanted) == 265
    assert wanted["conv1.weight"] == (64, 3, 7, 7)
    assert wanted["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert wanted["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert wanted["layer4.0.bn3.running_var"] == (2048,)
    assert len(dict(wanted_tensors(Backbone(BackboneShape(*KINDS["ResNet-18"]))))) == 100


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer2.0.bn1.bias": None}, "layer2.0.bn1.bias is missing"),
        ({"layer3.1.conv2.weight": torch.zeros(16, 16, 5, 5)}, r"layer3.1.conv2.weight has the size \(16, 16, 5, 5\)"),
        ({"layer1.0.conv1.weight": torch.full((4, 4, 3, 3), float("nan"))}, "no finite number"),
        ({"layer1.0.conv1.weight": torch.full((4, 4, 3, 3), 3e6)}, "overflow half precision"),
        ({"conv1.weight": None}, "conv1.weight is missing"),
        ({"layer4.2.conv1.weight": torch.zeros(32, 32, 3, 3)}, "2, 2, 2, 3 blocks"),
        ({"head.weight": torch.zeros(2)}, "head.weight belongs to no ResNet-18"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    weights = {name: tensor for name, tensor in {**random_weights(), **change}.items() if tensor is not None}
    with pytest.raises(UsageError, match=said):
        read_pretrained(written(tmp_path / "some.safetensors", weights))


def test_pickles_are_refused_and_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(random_weights(), path)
    with pytest.raises(UsageError, match="not a safetensors file") as refused:
        read_pretrained(path)
    assert "save_file" in refused.value.remedy
    with pytest.raises(UsageError, match="no file of weights"):
        read_pretrained(tmp_path / "none.safetensors")


def test_the_size_follows_from_the_time_there_is(tmp_path: Path) -> None:
    found = read_pretrained(written(tmp_path / "some.safetensors", random_weights()))
    assert affordable(found, 1, (24, 20, 1), 10, 100.0) == found.backbone.longest == 224
    assert affordable(found, 1, (24, 20, 1), 10, 0.0) == 64


class Telling(nn.Module):
    """Stands for weights that know the answer: the first pixel."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, 0, :1, 0]


def test_inner_validation_takes_what_helps_and_leaves_what_does_not() -> None:
    rng = np.random.default_rng(0)
    truth = np.eye(2, dtype=np.float32)[np.arange(60) % 2]
    images = rng.normal(size=(60, 1, 16, 16, 1)).astype(np.float16)
    images[:, 0, 0, 0, 0] = truth[:, 1]
    cases = WholeCases(images, np.arange(60), truth, tuple(map(str, range(60))), np.arange(60))
    folds = folds_of(cases, 3, 0)
    without = classify_frozen.fit_frozen(cases, folds, (), 0)
    helped = classify_frozen.fit_frozen(cases, folds, (), 0, Telling())
    assert helped.used in ("joined", "alone")
    assert helped.error < 0.1 < without.error
    images[:, 0, 0, 0, 0] = 0
    useless = classify_frozen.fit_frozen(cases, folds, (), 0, Telling())
    assert useless.error <= classify_frozen.fit_frozen(cases, folds, (), 0).error


def test_a_fit_with_weights_is_one_graph_with_its_source_in_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "some.safetensors", random_weights())
    cohort = shape_cohort(tmp_path / "cohort", 24)
    question = find_target(cohort, "kind")
    settings = FitSettings(
        minutes=0.08, inputs=(), threads=1, folds=2, weights=path, weights_licence="CC0", hide_marks=True
    )
    real = classify_frozen._fit

    def joined(view: Any, features: Any, used: str, *given: Any) -> classify_frozen.Frozen:
        found = real(view, features, used, *given)
        return replace(found, error=0.0) if used == "joined" else found

    monkeypatch.setattr(classify_frozen, "_fit", joined)  # random weights would be left out
    result = fit_classification(cohort, cohort.cases, settings, tmp_path / "work", Silent(), question)
    said = result.card["weights"]
    assert said["file"] == "some.safetensors"
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (said["licence"], said["network"], said["used"]) == ("CC0", "ResNet-18", "joined")
    assert said["longest"] == result.card["plan"]["backbone_longest"] >= 64
    assert result.card["preparation"]["hide_marks"] is True
    classes = [{"value": n, "name": name, "code": None} for n, name in enumerate(question.classes)]
    card = {"name": "shapes", "task": "classification", "research_only": True, "classes": classes, "inputs": [],
            "kind": question.kind, "target": question.name, **result.card}  # fmt: skip
    write_bundle(tmp_path / "model", result.files, card)
    assert sorted(file.name for file in (tmp_path / "model").glob("*.onnx")) == ["model.onnx"]
    model = Classifier(open_bundle(tmp_path / "model"), threads=1)
    assert model.verify() < 1e-3
    assert sum(finding.score for finding in model.predict(cohort.cases[0].images).findings) == pytest.approx(
        1, abs=1e-5
    )
    again = fit_classification(
        cohort, cohort.cases, replace(settings, plan=result.card["plan"]), tmp_path / "again", Silent(), question
    )
    assert again.files["weights.safetensors"] == result.files["weights.safetensors"]


def test_volumes_are_refused(tmp_path: Path) -> None:
    cohort = shape_cohort(tmp_path / "cohort", 6, size=(12, 12, 12))
    for changes in ({"weights": tmp_path / "some.safetensors"}, {"hide_marks": True}):
        settings = FitSettings(minutes=0.05, inputs=(), threads=1, **changes)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="is for planes"):
            fit_classification(cohort, cohort.cases, settings, tmp_path / "w", Silent(), find_target(cohort, "kind"))
