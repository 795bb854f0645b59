"""A second look at each candidate: a classifier on what the network and the image say about it.

The features stand for what a reader would check: how sure the network is, here and compared with its other
candidates; whether the place is brighter than its surroundings, points within it, lines that converge on it;
where it lies in the body. The classifier is a sum of logistic regression and small trees, kept as plain
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.core.errors import BundleError
from vesalius.core.grid import Array
from vesalius.imaging.resample import Float32
from vesalius.inference.candidates import Candidates

_LEAST_HALF, _MOST_HALF = 2.5, 40.0  # voxels of the view: half sizes that surroundings are measured at
_COARSE = 512  # voxels along the longest axis that the depth in the body is measured on
_SAMPLE = 1 << 20  # voxels that the whole image's figures are taken from
_RING = 1.8  # outer edge of the surroundings, in half sizes

FEATURES = (
    "heat", "heat below the best", "rank", "heat inside", "heat around", "heat in image", "size", "elongation",
    "local inside", "local step", "local spread", "grey inside", "grey step", "fine inside", "fine step",
    "fine most", "points", "body inside", "body around", "depth in body", "along i", "along j", "convergence",
    "grey of body", "spread of body", "cluster", "cluster rank",
)  # fmt: skip


def features(view: Float32, heat: Float32, found: Candidates, stride: Sequence[int]) -> Array:
    """What is known of each candidate, (n, len(FEATURES)).

    Args:
        view: (depth, i, j, k) as `imaging.contrast.view` gives it.
        heat: (i', j', k') probabilities of the candidates' class.
        found: candidates, best first.
        stride: voxels of the view per voxel of heat.
    """
    if not len(found):
        return np.zeros((0, len(FEATURES)))
    view = np.asarray(view[:], np.float32)
    grey = view[0] if len(view) == 5 else view[:-4].mean(0)
    local, fine, clusters, body = view[-4], view[-3], view[-2], view[-1]
    inside = body > 0.25
    inside = inside if inside.any() else np.ones_like(inside)
    step = max(1, max(inside.shape) // _COARSE)
    depth = _depth(inside[::step, ::step, ::step]) * step
    sample = np.flatnonzero(inside)[:: max(1, inside.size // _SAMPLE)]
    spans = [np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(2)]
    usual_fine = float(np.percentile(fine.reshape(-1)[sample], 95))
    tissue = np.ascontiguousarray(grey).reshape(-1)[sample]
    image = [_logit(float(heat.mean())), float(tissue.mean()), float(tissue.std())]
    best = _logit(found.heat[0])
    rows = []
    for rank, (centre, size, peak) in enumerate(zip(found.centres, found.sizes, found.heat, strict=True)):
        half = np.clip(size / 2, _LEAST_HALF, _MOST_HALF)
        part, away, offsets = _surroundings(view.shape[1:], centre, half)
        near, ring = away < 1.0, (away >= 1.0) & (away < _RING)
        coarse, coarse_away, _ = _surroundings(heat.shape, (centre + 0.5) / stride - 0.5, half / stride)
        hot, warm = coarse_away < 1.0, (coarse_away >= 1.0) & (coarse_away < _RING)
        l_in, l_out = _mean(local[part], near), _mean(local[part], ring)
        g_in, g_out = _mean(grey[part], near), _mean(grey[part], ring)
        f_in, f_out = _mean(fine[part], near), _mean(fine[part], ring)
        place = tuple(np.clip(np.rint(centre / step).astype(int), 0, np.array(depth.shape) - 1))
        towards = -offsets / np.maximum(np.sqrt(np.square(offsets).sum(0)), 0.5)
        pointing = (_slopes(local[part]) * towards).sum(0)
        logit = _logit(peak)
        rows.append([
            logit, logit - best, np.log1p(rank), _logit(_mean(heat[coarse], hot)), _logit(_mean(heat[coarse], warm)),
            image[0], float(np.log(np.maximum(size[:2].mean(), 1.0))),
            float(np.log(max(size[:2].max(), 1.0) / max(size[:2].min(), 1.0))),
            l_in, l_in - l_out, _spread(local[part], near), g_in, g_in - g_out, f_in, f_in - f_out,
            float(fine[part][near].max()) if near.any() else 0.0,
            float(np.log1p((fine[part][near] > usual_fine).sum())),
            _mean(body[part], near), _mean(body[part], ring), float(np.log1p(depth[place])),
            *(_along(centre[axis], spans[axis]) for axis in range(2)),
            _mean(pointing, (away > 0.3) & (away < 1.3)), image[1], image[2],
            float(np.log1p(clusters[part][near].max())) if near.any() else 0.0, 0.0,
        ])  # fmt: skip
    table = np.array(rows)
    order = np.argsort(-table[:, -2], kind="stable")
    table[order, -1] = np.log1p(np.arange(len(order)))
    return table


@dataclass(frozen=True)
class SecondLook:
    """Logistic regression on standardised features, and trees that add to it.

    Args:
        mean, scale: of the features.
        weights, bias: of the regression.
        trees: each tree's arrays `feature` (-1 for a leaf), `threshold`, `left`, `right`, `value`.
        share: weight of the trees' sum against the regression's, 0..1.
    """

    mean: Array
    scale: Array
    weights: Array
    bias: float
    trees: tuple[Mapping[str, Array], ...] = ()
    start: float = 0.0
    share: float = 0.0

    def scores(self, table: Array) -> Array:
        """Probability (n,) that each candidate (n, features) is a lesion."""
        if not len(table):
            return np.zeros(0)
        straight = (table - self.mean) / self.scale @ self.weights + self.bias
        total = (1.0 - self.share) * straight
        if self.trees:
            total = total + self.share * (self.start + sum(_grown(tree, table) for tree in self.trees))
        probability: Array = 1.0 / (1.0 + np.exp(-np.clip(total, -30, 30)))
        return probability

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs."""
        return {
            "features": list(FEATURES),
            "mean": self.mean.tolist(), "scale": self.scale.tolist(), "weights": self.weights.tolist(),
            "bias": self.bias, "start": self.start, "share": self.share,
            "trees": [{name: array.tolist() for name, array in tree.items()} for tree in self.trees],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SecondLook:
        """The classifier that `as_json` described.

        Raises:
            BundleError: it is of other features, or cannot be read.
        """
        try:
            if tuple(data["features"]) != FEATURES:
                raise ValueError("other features")
            trees = tuple(_tree(tree) for tree in data["trees"])
            arrays = [np.array(data[name], np.float64) for name in ("mean", "scale", "weights")]
            if any(array.shape != (len(FEATURES),) for array in arrays) or not (arrays[1] > 0).all():
                raise ValueError("other sizes")
            return cls(
                arrays[0], arrays[1], arrays[2], float(data["bias"]), trees, float(data["start"]), float(data["share"])
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BundleError("The card's second look cannot be read.", remedy="Fit the model again.") from error


def _tree(data: Mapping[str, Any]) -> dict[str, Array]:
    """A tree whose children always come after their parent, so that walking down it ends."""
    tree: dict[str, Array] = {name: np.array(data[name], np.int64) for name in ("feature", "left", "right")}
    tree |= {name: np.array(data[name], np.float64) for name in ("threshold", "value")}
    count = len(tree["feature"])
    inner = tree["feature"] >= 0
    numbers = np.arange(count)[inner]
    for side in ("left", "right"):
        if len(tree[side]) != count or not ((tree[side][inner] > numbers) & (tree[side][inner] < count)).all():
            raise ValueError("a tree that does not end")
    if (tree["feature"] >= len(FEATURES)).any() or len(tree["threshold"]) != count or len(tree["value"]) != count:
        raise ValueError("other features")
    return tree


def _grown(tree: Mapping[str, Array], table: Array) -> Array:
    """The tree's value for each row."""
    at = np.zeros(len(table), np.int64)
    while (tree["feature"][at] >= 0).any():
        feature = tree["feature"][at]
        low = table[np.arange(len(table)), np.maximum(feature, 0)] <= tree["threshold"][at]
        at = np.where(feature < 0, at, np.where(low, tree["left"][at], tree["right"][at]))
    value: Array = tree["value"][at]
    return value


def _depth(inside: Array) -> Array:
    """Distance to what is not inside, the edge of the image included."""
    from scipy import ndimage

    edge = [(1, 1) if size > 1 else (0, 0) for size in inside.shape]
    depth: Array = ndimage.distance_transform_edt(np.pad(inside, edge))
    return depth[tuple(slice(1, -1) if size > 1 else slice(None) for size in inside.shape)]


def _slopes(values: Array) -> Array:
    """Unit vectors (3, ...) of the steepest rise, shorter where there is none."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(values, [0.0 if n == 1 else 1.0 for n in values.shape])
    slopes = np.stack(
        [np.gradient(smooth, axis=a) if n > 1 else np.zeros_like(smooth) for a, n in enumerate(values.shape)]
    )
    unit: Array = slopes / np.maximum(np.sqrt(np.square(slopes).sum(0)), 1e-3)
    return unit


def _surroundings(shape: Sequence[int], centre: Array, half: Array) -> tuple[tuple[slice, ...], Array, Array]:
    """The part of a volume around a place, the distance from it in half sizes, and the offsets (3, ...)."""
    low = [int(np.clip(np.floor(c - _RING * h), 0, n - 1)) for c, h, n in zip(centre, half, shape, strict=True)]
    high = [
        int(np.clip(np.ceil(c + _RING * h) + 1, a + 1, n)) for c, h, n, a in zip(centre, half, shape, low, strict=True)
    ]
    axes = [np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True)]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"))
    scaled = offsets / np.maximum(half, 1e-6)[:, None, None, None]
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), np.sqrt(np.square(scaled).sum(0)), offsets


def _mean(values: Array, where: Array) -> float:
    return float(values[where].mean()) if where.any() else float(values.mean())


def _spread(values: Array, where: Array) -> float:
    return float(values[where].std()) if where.any() else 0.0


def _along(place: float, span: Array) -> float:
    """Where a place lies between the first and the last of the body, 0..1."""
    return float((place - span[0]) / max(1, span[-1] - span[0]))


def _logit(share: float) -> float:
    kept = float(np.clip(share, 1e-6, 1 - 1e-6))
    return float(np.log(kept / (1 - kept)))
