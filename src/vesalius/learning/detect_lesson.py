"""One step of a detector's training: heat and sizes against the lesions, and its own false alarms again."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vesalius.core.grid import Array
from vesalius.imaging.resample import Float32
from vesalius.inference.candidates import candidates
from vesalius.inference.heat import HeatGeometry, RunHeat, heat_map
from vesalius.learning.detect_data import LesionPatches, LookedOver
from vesalius.learning.detect_plan import DetectPlan

_SIZE_WEIGHT = 0.2  # of the size's loss against the heat's
_SIZE_FROM = 0.3  # heat from which a place answers for the size
_MINED_AT = 0.45  # share of the steps after which false alarms are looked for
_ALARMS = 3  # false alarms remembered per image
_LEAST_HALF = 2.5  # voxels of the view: a hit is at most this far beside a lesion that is smaller


def detection_loss(heat: Tensor, size: Tensor, wanted: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
    """Quality focal loss of the heat (Li et al., NeurIPS 2020) plus smooth L1 of the log sizes.

    Args:
        heat: logits (n, classes, ...).
        size: log sizes (n, 2 or 3, ...).
        wanted: heat 0..1 (n, classes, ...).
        lengths: log sizes (n, 3, ...).
        weight: (n, 1, ...) how much a place answers for the size.
    """
    gap = (wanted - heat.sigmoid()).abs().square()
    cross = F.binary_cross_entropy_with_logits(heat, wanted, reduction="none")
    first = (gap * cross).sum() / wanted.sum().clamp_min(10.0)
    weight = torch.where(weight > _SIZE_FROM, weight, torch.zeros_like(weight))
    far = F.smooth_l1_loss(size, lengths[:, : size.shape[1]], reduction="none")
    return first + _SIZE_WEIGHT * (far * weight).sum() / weight.sum().clamp_min(1.0)


class DetectionLesson:
    """A step of training by its number, for `loop.train`.

    Args:
        patches: where batches come from.
        plan: what is planned.
        alarms: file that the false alarms are kept in, so that an interrupted fit goes on with them.
    """

    def __init__(self, patches: LesionPatches, plan: DetectPlan, alarms: Path) -> None:
        self.patches, self.plan, self.alarms = patches, plan, alarms
        self._mine_at = int(_MINED_AT * plan.steps)
        if alarms.exists():
            kept = json.loads(alarms.read_text(encoding="utf-8"))
            patches.alarms = [(int(number), np.array(place)) for number, place in kept]

    def __call__(self, network: nn.Module, optimiser: torch.optim.Optimizer, number: int) -> float:
        """Draw, learn, and once look for false alarms; returns the loss."""
        if number == self._mine_at and not self.patches.alarms:
            self._mine(network)
        seen, wanted, lengths, weight = (item.to(self.plan.device) for item in self.patches.draw(number))
        half = torch.autocast(self.plan.device, torch.bfloat16) if self.plan.bfloat16 else contextlib.nullcontext()
        with half:
            heat, size = network(seen)
        loss = detection_loss(heat.float(), size.float(), wanted, lengths, weight)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        return float(loss.detach())

    def _mine(self, network: nn.Module) -> None:
        """Remember where the network is wrong on its own training images."""
        network.eval()
        run = runner(network, self.plan.device)
        geometry = HeatGeometry(self.plan.stride, self.plan.multiple)
        found: list[tuple[int, Array]] = []
        for number, image in enumerate(self.patches.images):
            heat, sizes = heat_map(image.array, run, geometry)
            for of_class in range(len(heat)):
                first = candidates(heat[of_class], sizes, self.plan.stride).first(_ALARMS)
                found += [(number, place) for place in first.centres if not hits(image, place).any()]
        network.train()
        self.patches.alarms = found
        self.alarms.parent.mkdir(parents=True, exist_ok=True)
        self.alarms.write_text(json.dumps([[n, place.tolist()] for n, place in found]), encoding="utf-8")


def runner(network: nn.Module, device: str) -> RunHeat:
    """A network as `heat_map` runs it."""

    @torch.no_grad()
    def run(batch: Float32) -> tuple[Float32, Float32]:
        heat, size = network(torch.from_numpy(batch).to(device))
        return heat.float().cpu().numpy(), size.float().cpu().numpy()

    return run


def hits(image: LookedOver, place: Array, of_class: int | None = None) -> Array:
    """Which lesions of an image a place lies in, (n,) bool; of one class only where one is given."""
    half = np.maximum(image.sizes / 2, _LEAST_HALF)
    inside: Array = np.square((image.centres - place) / half).sum(1) <= 1.0
    return inside if of_class is None else inside & (image.classes == of_class)
