"""The bedside of classification: probabilities, the card's rule, pooled images, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from classify_cohort import shape_image
from vesalius.core.errors import BundleError, UnusableInput
from vesalius.imaging.prepare import Normalisation
from vesalius.imaging.whole import WholePreparation
from vesalius.inference.classifier import Classifier, probabilities
from vesalius.learning.export import check_volume, export_module
from vesalius.store.bundle import open_bundle, write_bundle
from vesalius.tasks.models import load_model

PREPARATION = WholePreparation((), (24, 20, 1), (1.0, 1.0, 1.0), 1, Normalisation("unit", mean=0.5, std=0.25))


class Brightness(nn.Module):
    """Three classes by the mean of the image; its map is the image itself."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        mean = image.flatten(1).mean(1, keepdim=True)
        logits = torch.cat([mean * 0, mean * 2, mean * 4], 1)
        return logits, image.repeat(1, 3, 1, 1, 1)


def bundle(folder: Path, **changes: Any) -> Path:
    axes = {name: {0: "n"} for name in ("image", "logits", "map")}
    files = export_module(Brightness(), check_volume(1, PREPARATION.size), axes)
    classes = [{"value": n, "name": name, "code": None} for n, name in enumerate(("low", "middle", "high"))]
    card = {
        "name": "brightness", "task": "classification", "research_only": True, "classes": classes, "inputs": [],
        "kind": "multiclass", "target": "brightness", "preparation": PREPARATION.as_json(), "network": {},
        "threshold": {"rule": "highest"}, **changes,
    }  # fmt: skip
    return write_bundle(folder, files, card)


def test_a_model_is_loaded_by_its_task_and_answers(tmp_path: Path) -> None:
    model = load_model(bundle(tmp_path / "model"), threads=1)
    assert isinstance(model, Classifier)
    assert model.verify() < 1e-3
    answer = model.predict([shape_image(3, 1)])
    assert [finding.name for finding in answer.findings] == ["low", "middle", "high"]
    assert sum(finding.score for finding in answer.findings) == pytest.approx(1, abs=1e-5)
    best = max(answer.findings, key=lambda finding: finding.score)
    assert answer.details["predicted"] == best.name
    assert answer.details["map_0"].shape == (3, 24, 20, 1)


def test_images_of_any_size_and_number_are_pooled(tmp_path: Path) -> None:
    model = load_model(bundle(tmp_path / "model"), threads=1)
    images = [shape_image(n, n % 2, size) for n, size in enumerate([(24, 20, 1), (300, 200, 1), (7, 40, 1)])]
    logs = [np.log([f.score for f in model.predict([image]).findings]) for image in images]
    together = np.log([f.score for f in model.predict(images).findings])
    mean = np.mean(logs, 0)
    assert np.allclose(together - together[0], mean - mean[0], atol=1e-4)
    details = model.predict(images[1:]).details
    assert details["map_0"].shape == (3, 300, 200, 1) and details["map_1"].shape == (3, 7, 40, 1)


def test_a_view_that_cannot_be_used_is_left_out_of_several(tmp_path: Path) -> None:
    model = load_model(bundle(tmp_path / "model"), threads=1)
    good, blank = shape_image(3, 1), shape_image(1, 1, blank=True)
    alone, both = model.predict([good]), model.predict([blank, good])
    assert [f.score for f in both.findings] == [f.score for f in alone.findings]
    assert list(both.details["aside"]) == [blank.id] and set(both.details) == {"predicted", "aside", "map_1"}
    with pytest.raises(UnusableInput, match="None of the case's images"):
        model.predict([blank, blank])


def test_what_cannot_be_answered_is_said(tmp_path: Path) -> None:
    model = load_model(bundle(tmp_path / "model"), threads=1)
    with pytest.raises(UnusableInput, match="no image"):
        model.predict([])
    with pytest.raises(UnusableInput, match="same value"):
        model.predict([shape_image(1, 1, blank=True)])
    with pytest.raises(UnusableInput, match="planes"):
        model.predict([shape_image(1, 1, (12, 12, 12))])


def test_ordered_classes_are_called_by_their_expectation(tmp_path: Path) -> None:
    model = load_model(bundle(tmp_path / "model", kind="ordinal", threshold={"rule": "expected"}), threads=1)
    answer = model.predict([shape_image(3, 1)])
    expected = sum(n * finding.score for n, finding in enumerate(answer.findings))
    assert answer.details["predicted"] == ("low", "middle", "high")[round(expected)]


def test_several_labels_are_called_by_their_own_thresholds(tmp_path: Path) -> None:
    rule = {"rule": "threshold", "values": [0.4, 1.0, 0.0]}
    model = load_model(bundle(tmp_path / "model", kind="multilabel", threshold=rule), threads=1)
    answer = model.predict([shape_image(3, 1)])
    assert answer.details["predicted"] == ["low", "high"]
    assert answer.findings[0].score == pytest.approx(0.5)


@pytest.mark.parametrize("broken", [{"kind": "places"}, {"kind": "multilabel", "threshold": {"rule": "threshold"}}])
def test_a_card_that_contradicts_itself_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    folder = bundle(tmp_path / "model", **broken)
    with pytest.raises(BundleError):
        Classifier(open_bundle(folder))


def test_probabilities_of_extreme_logits_are_finite() -> None:
    extreme = np.array([-1e4, 0.0, 1e4], np.float32)
    assert np.allclose(probabilities(extreme, "multiclass"), [0, 0, 1])
    assert np.allclose(probabilities(extreme, "multilabel"), [0, 0.5, 1])
