"""Networks and frozen features joined to one calibrated answer, weighed on cases that neither learned from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vesalius.core.grid import Array
from vesalius.learning.classify_train import Network, comparable, views_of
from vesalius.networks.classifier import folded

_STEPS = 200
_STRAY = 0.02  # penalty on weights that stray from their start, per case in a hundred
_BLUR = 0.5  # of scores when a threshold is chosen, in their standard deviations
_TRIED = 200


@dataclass(frozen=True)
class Weights:
    """How the parts are joined: logits = network * `network` + frozen * `frozen` + `bias`.

    Args:
        network, frozen: weight of each part, 0 where it does not help.
        bias: of each class.
        loss: cross-entropy out of fold, NaN where nothing was left out.
    """

    network: float
    frozen: float
    bias: tuple[float, ...]
    loss: float = math.nan

    def joined(self, network: Array, frozen: Array) -> Array:
        """(cases, classes) logits from what the parts say."""
        result: Array = self.network * network + self.frozen * frozen + np.array(self.bias)
        return result


def fit_weights(network: Array, frozen: Array, truth: Array, kind: str) -> Weights:
    """The weights with the smallest cross-entropy out of fold; the penalty keeps few cases from saying too much.

    Args:
        network: (cases, classes) of networks that did not learn from the case, NaN where there is none.
        frozen: the same of frozen features.
        truth: (cases, classes).
        kind: of the target.
    """
    known = np.isfinite(network).all(1) & np.isfinite(frozen).all(1)
    classes = truth.shape[1]
    if not known.any():
        return Weights(1.0, 1.0, (0.0,) * classes)
    a, b, t = (torch.from_numpy(np.asarray(x[known], np.float64)) for x in (network, frozen, truth))
    start = torch.zeros(2 + classes, dtype=torch.float64)
    free = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([free], max_iter=_STEPS, line_search_fn="strong_wolfe")
    stray = 100 * _STRAY / len(t)

    def loss_of(values: Tensor) -> Tensor:
        logits = values[0].exp() * a + values[1].exp() * b + values[2:]
        if kind == "multilabel":
            return F.binary_cross_entropy_with_logits(logits, t)
        return -(t * F.log_softmax(logits, 1)).sum(1).mean()

    def closure() -> float:
        optimiser.zero_grad()
        loss = loss_of(free) + stray * ((free[:2] ** 2).sum() + (free[2:] ** 2).sum())
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        bias = free[2:] - (free[2:].mean() if kind != "multilabel" else 0.0)
        network_weight, frozen_weight = (float(value) for value in free[:2].exp())
        return Weights(network_weight, frozen_weight, tuple(float(v) for v in bias), float(loss_of(free)))


def probabilities(logits: Array, kind: str) -> Array:
    """(cases, classes) from logits."""
    tensor = torch.from_numpy(np.asarray(logits, np.float64))
    return (torch.sigmoid(tensor) if kind == "multilabel" else torch.softmax(tensor, 1)).numpy()


def thresholds(logits: Array, truth: Array, kind: str) -> dict[str, Any]:
    """From what on a class is called, chosen out of fold.

    "sensitivity_99" is, for two classes, the probability that 99 of 100 cases of the second one reach.

    For two classes and for several labels: the probability that maximises balanced accuracy after the scores
    are blurred by half of their deviation. The blur stands for another device or another mixture of patients:
    it prefers the middle of a gap between the classes to its edge. Balanced accuracy does not follow the share
    of classes, which differs from place to place.

    Args:
        logits: (cases, classes) out of fold; rows with NaN are left out.
        truth: (cases, classes).
        kind: of the target.
    """
    known = np.isfinite(logits).all(1)
    rule = {"binary": "threshold", "multilabel": "threshold", "ordinal": "expected"}.get(kind, "highest")
    if rule != "threshold":
        return {"rule": rule}
    if kind == "binary":
        scores = [(logits[known, 1] - logits[known, 0], truth[known, 1] > 0.5)]
    else:
        scores = [(logits[known, n], truth[known, n] > 0.5) for n in range(truth.shape[1])]
    found: dict[str, Any] = {"rule": rule, "values": [_threshold(score, positive) for score, positive in scores]}
    if kind == "binary" and scores[0][1].any():
        score, positive = scores[0]
        least = float(np.quantile(score[positive], 0.01, method="lower"))
        found["sensitivity_99"] = 1 / (1 + math.exp(-least))
    return found


def _threshold(score: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """The probability; 0.5 where one of the classes was not seen."""
    if not positive.any() or positive.all():
        return 0.5
    blur = max(_BLUR * float(score.std()), 1e-6)
    tried = np.linspace(score.min(), score.max(), _TRIED)
    above = 1 / (1 + np.exp(np.clip(-(score[None] - tried[:, None]) * 1.702 / blur, -60, 60)))
    sensitivity, specificity = above[:, positive].mean(1), 1 - above[:, ~positive].mean(1)
    best = tried[int(np.argmax(sensitivity + specificity))]
    return float(1 / (1 + math.exp(-best)))


class CalibratedEnsemble(nn.Module):
    """What is exported: every network and the frozen model on every view, joined to calibrated logits, and a map.

    Args:
        networks: trained.
        features: what `frozen` takes, of each view.
        frozen: features to one number per class.
        weights: how they are joined.
        size: (i, j, k) of the frame.
        mirror_axes: axes that are mirrored; the answer is the mean over all views.
        kind: of the target.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        features: nn.Module,
        frozen: nn.Module,
        weights: Weights,
        size: Sequence[int],
        mirror_axes: Sequence[int],
        kind: str,
    ) -> None:
        super().__init__()
        self.networks, self.frozen = [folded(network) for network in networks], frozen
        self._registered = nn.ModuleList(self.networks)
        self.planar = size[2] == 1
        self.features = features
        self.views, self.kind, self.weights = views_of(mirror_axes), kind, weights
        self.bias = nn.Parameter(torch.tensor(weights.bias, dtype=torch.float32))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(n, channels, i, j, k) to logits (n, classes) and the map (n, classes, i', j', k').

        The map is the networks' class-activation map: its mean over places is the class's logit before
        calibration.
        """
        image = image.squeeze(-1) if self.planar else image
        axes = [[2 + axis for axis in view] for view in self.views]
        seen = torch.cat([image.flip(view) if view else image for view in axes])  # all views in one batch
        said: list[Tensor] = []
        maps: list[Tensor] = []
        early = self.networks[0].early(seen)
        for network in self.networks:
            places = network.late(early)
            said.append(self._pooled(comparable(places.flatten(2).mean(2), self.kind)))
            parts = places.chunk(len(axes))
            maps += [part.flip(view) if view else part for part, view in zip(parts, axes, strict=True)]
        network_says, frozen_says = torch.stack(said).mean(0), self._pooled(self.frozen(self.features(seen)))
        logits = self.weights.network * network_says + self.weights.frozen * frozen_says + self.bias
        found = torch.stack(maps).mean(0)
        return logits, found.unsqueeze(-1) if self.planar else found

    def _pooled(self, values: Tensor) -> Tensor:
        """(views * n, classes) to the means over views (n, classes)."""
        return values.reshape(len(self.views), -1, values.shape[1]).mean(0)
