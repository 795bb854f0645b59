"""A model of Vesalius beside a plain MONAI DenseNet-121, given the same minutes, cores, training and test cases.

The peer is what MONAI's 2D classification tutorial does (github.com/Project-MONAI/tutorials, 2d_classification):
DenseNet-121 on images scaled to 0..1, random rotation, flip and zoom, Adam with cross-entropy weighted by class,
the epoch that is best on a tenth of the training patients. Its time is the wall time that the model took.

    python bench/densenet_side_by_side.py study --target malignant --minutes 10 --to out.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import DenseNet121
from monai.transforms import Compose, RandFlip, RandRotate, RandZoom

import vesalius as vs
from vesalius.core.case import Case
from vesalius.core.finding import Finding
from vesalius.core.image import Image
from vesalius.core.progress import Silent
from vesalius.core.protocols import Prediction
from vesalius.measures.summary import DIFFERENCE, MODEL, RIVAL
from vesalius.measures.target import Target, find_target
from vesalius.steps.fit import usable
from vesalius.tasks import task_named
from vesalius.tasks.arms import measure_arms

BATCH = 32
RATE = 1e-4
TRANSFORM = Compose(
    [RandRotate(range_x=np.pi / 12, prob=0.5, keep_size=True), RandFlip(spatial_axis=0, prob=0.5),
     RandZoom(min_zoom=0.9, max_zoom=1.1, prob=0.5)]
)  # fmt: skip


class Peer:
    """The fitted DenseNet as a `Model`, so that the same code measures both."""

    def __init__(self, network: torch.nn.Module, size: Sequence[int], target: Target) -> None:
        self.network, self.size, self.target = network.eval(), size, target
        self.card = {"name": "MONAI DenseNet-121"}

    @torch.no_grad()
    def predict(self, images: Sequence[Image]) -> Prediction:
        """Mean probability over the images of a case."""
        batch = torch.stack([prepared(image, self.size) for image in images])
        logits = self.network(batch)
        scores = logits.sigmoid() if self.target.kind == "multilabel" else logits.softmax(1)
        found = zip(self.target.classes, scores.mean(0).tolist(), strict=True)
        return Prediction(findings=tuple(Finding(name, score=value) for name, value in found))


def prepared(image: Image, size: Sequence[int]) -> torch.Tensor:
    """(channels, *size), scaled to 0..1 by its own extremes."""
    array = torch.from_numpy(image.read().astype(np.float32))
    array = array[..., 0] if len(size) == 2 else array
    low, high = array.min(), array.max()
    mode = "bilinear" if len(size) == 2 else "trilinear"
    scaled = (array - low) / max(float(high - low), 1e-6)
    return torch.nn.functional.interpolate(scaled[None], tuple(size), mode=mode, align_corners=False)[0]


def fit_peer(cases: Sequence[Case], target: Target, minutes: float, largest: int, seed: int) -> tuple[Peer, int]:
    """Train until the time is over; returns the best epoch's network and the number of epochs."""
    torch.manual_seed(seed)
    started = time.perf_counter()
    shape = np.median([image.grid.shape for case in cases for image in case.images], axis=0)
    flat = shape[2] == 1
    size = [int(np.clip(round(n / 32) * 32, 32, largest)) for n in shape[: 2 if flat else 3]]
    images = torch.stack([prepared(image, size) for case in cases for image in case.images])
    truth = torch.tensor([target.value(case) for case in cases for _ in case.images])
    patients = sorted({case.patient for case in cases})
    held = set(np.random.default_rng(seed).permutation(patients)[: max(1, len(patients) // 10)])
    inner = torch.tensor([case.patient in held for case in cases for _ in case.images])
    network = DenseNet121(spatial_dims=len(size), in_channels=images.shape[1], out_channels=len(target.classes))
    share = truth[~inner].mean(0).clamp(1e-3, 1)
    lesson = (
        torch.nn.BCEWithLogitsLoss(pos_weight=(1 - share) / share)
        if target.kind == "multilabel"
        else torch.nn.CrossEntropyLoss(weight=1 / share / (1 / share).mean())
    )
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    best, kept, epochs = np.inf, {k: v.clone() for k, v in network.state_dict().items()}, 0
    where = torch.nonzero(~inner).flatten()
    while time.perf_counter() - started < 60 * minutes:
        network.train()
        for chosen in where[torch.randperm(len(where))].split(BATCH):
            if time.perf_counter() - started > 60 * minutes or len(chosen) < 2:
                break
            batch = torch.stack([torch.as_tensor(TRANSFORM(images[n])) for n in chosen])
            loss = lesson(network(batch), truth[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        network.eval()
        with torch.no_grad():
            answers = torch.cat([network(part) for part in images[inner].split(BATCH)])
        value = float(lesson(answers, truth[inner]))
        if value < best:
            best, kept = value, {k: v.clone() for k, v in network.state_dict().items()}
        epochs += 1
    network.load_state_dict(kept)
    return Peer(network, size, target), epochs


def main() -> None:
    """Fit both on the cohort, measure both on its test part, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--target")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", type=Path, help="a model that was fitted before, instead of fitting one now")
    parser.add_argument("--largest", type=int, default=224, help="of the peer's image sides")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path)
    options = parser.parse_args()
    study = vs.split(options.cohort)
    began = time.perf_counter()
    model = options.model or study.folder / "models" / "side-by-side"
    if options.model is None:
        vs.fit(study, "classification", target=options.target, minutes=options.minutes, to=model, seed=options.seed,
               rival=False)  # fmt: skip
    spent = (time.perf_counter() - began) / 60 if options.model is None else options.minutes
    from vesalius.tasks.models import load_model

    ours = load_model(model)
    target = find_target(study, options.target)
    task = task_named("classification", study, ours.card)
    peer, epochs = fit_peer(usable(task, study.part("train"), ()), target, spent, options.largest, options.seed)
    with tempfile.TemporaryDirectory() as spool:
        test = usable(task, study.part("test"), ())
        measured = measure_arms(task, {MODEL: ours, RIVAL: peer}, test, (), Path(spool), Silent())
    figures = [metric.as_json() for metric in task.metrics(measured.scores, seed=options.seed)]
    names = {MODEL: "vesalius", RIVAL: "densenet121", DIFFERENCE: "difference"}
    shown = [row | {"arm": names[row["arm"]]} for row in figures if row["class"] == "all"]
    result = {"minutes": spent, "peer_epochs": epochs, "peer_size": peer.size, "figures": shown}
    for row in shown:
        print(f"{row['arm']:<12} {row['name']:<28} {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})")
    print(f"{spent:.1f} minutes each; the peer saw {epochs} epochs of {peer.size}")
    if options.to:
        options.to.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
