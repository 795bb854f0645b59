"""What a case's other mammograms say of a mark: the opposite breast, and the other view of the same breast.

Breasts are nearly symmetric, so that what is marked alike at the mirrored place is more often normal tissue; and a
lesion lies about as far from the nipple on either view of its breast (van Engeland and Karssemeijer, Medical Physics
34:898, 2007). A logistic regression weighs both beside the mark's own log odds. Where one of the images is missing,
what it would say counts as its average over the training marks; where both are, the mark keeps its score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.core.errors import BundleError
from vesalius.core.grid import Array
from vesalius.imaging.contrast import View
from vesalius.inference.candidates import Candidates
from vesalius.inference.second_opinion import FLOOR, log_odds

FEATURES = (
    "own",
    "at the mirrored place",
    "above the opposite breast",
    "as far from the nipple",
    "above the other view",
)
_NEAR = 0.1  # of the breast's longer side: how far apart two marks may lie that are at one place
_TIP = 0.03  # of the breast's depth: what ends within this share of its far end is the nipple's height


@dataclass(frozen=True, eq=False)
class Pose:
    """Which breast a mammogram shows, in which view, and where it lies in the image's view.

    Args:
        view: "MLO" or "CC" where the role says so, else the role.
        side: "L" or "R" where the role says so, else where the chest wall lies.
        named: whether the role says so.
        low, span: (2,) first voxel and extent of the breast along i and j; the chest wall is at low i.
        nipple: (2,) voxel that lies farthest from the chest wall.
    """

    view: str
    side: str
    named: bool
    low: Array
    span: Array
    nipple: Array


def pose_of(role: str, seen: View) -> Pose | None:
    """The pose of an image's view; None where it shows no breast.

    Args:
        role: of the image: "MLO-L", "CC-R", or one that says neither.
        seen: its view.
    """
    if not seen.breast:
        return None
    inside = np.asarray(seen.array[-1], np.float32)[..., 0] > 0.25
    along, down = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(along):
        return None
    low = np.array([along[0], down[0]], np.float64)
    span = np.array([np.ptp(along), np.ptp(down)], np.float64) + 1
    tip = inside[int(along[-1] - _TIP * span[0]) :]
    nipple = np.array([along[-1], np.flatnonzero(tip.any(0)).mean()], np.float64)
    named = re.fullmatch(r"(.+)-([LR])", role)
    view, side = named.groups() if named else (role, "wall at high i" if seen.turned else "wall at low i")
    return Pose(view, side, named is not None, low, span, nipple)


def tables_of(poses: Sequence[Pose | None], marks: Sequence[Candidates], scores: Sequence[Array]) -> list[Array]:
    """What is known of each mark of a case from its images together, (n, len(FEATURES)) by image.

    Args:
        poses: of the case's images.
        marks: of one class, by image, in the voxels of the image's view.
        scores: (n,) probabilities of the marks.

    Returns:
        Log odds; NaN where there is no image that would say it.
    """
    own = [log_odds(score) for score in scores]
    tables = []
    for number, (pose, mine) in enumerate(zip(poses, marks, strict=True)):
        table = np.full((len(mine), len(FEATURES)), np.nan)
        table[:, 0] = own[number]
        places = mine.centres[:, :2]
        for other, theirs, odds in zip(poses, marks, own, strict=True):
            if pose is None or other is None or not _comparable(pose, other, poses):
                continue
            there, reach = theirs.centres[:, :2], _NEAR * other.span.max()
            if other.side != pose.side:
                mirrored = other.low + (places - pose.low) / pose.span * other.span
                near = np.linalg.norm(mirrored[:, None] - there, axis=2) < reach
                _take_in(table, 1, near, odds)
            else:
                far = np.linalg.norm(places - pose.nipple, axis=1)
                near = np.abs(far[:, None] - np.linalg.norm(there - other.nipple, axis=1)) < reach
                _take_in(table, 3, near, odds)
        tables.append(table)
    return tables


def _comparable(pose: Pose, other: Pose, poses: Sequence[Pose | None]) -> bool:
    """Whether one shows the opposite breast in the same view, or the same breast in another view.

    Where roles do not name the view, only a pair of images is compared: of four, nobody could say which are alike.
    """
    if pose.named and other.named:
        return (pose.view == other.view) != (pose.side == other.side)
    alike = [one for one in poses if one is not None and one.view == pose.view]
    return not pose.named and other.view == pose.view and other.side != pose.side and len(alike) == 2


def _take_in(table: Array, column: int, near: Array, odds: Array) -> None:
    """Raise a column to the best log odds near each mark, lower the next to its lead over the whole image."""
    best = np.where(near, odds, FLOOR).max(1, initial=FLOOR)
    table[:, column] = np.fmax(table[:, column], best)
    if len(odds):
        table[:, column + 1] = np.fmin(table[:, column + 1], table[:, 0] - odds.max())


def has_partner(table: Array) -> Array:
    """(n,) True for marks of which another image says something."""
    return np.asarray(np.isfinite(table[:, 1:]).any(axis=1))


@dataclass(frozen=True)
class OtherViews:
    """Logistic regression on what `tables_of` gives.

    Args:
        mean, scale: (len(FEATURES),) of the training marks, of those that have the feature.
        weights, bias: of the regression.
    """

    mean: Array
    scale: Array
    weights: Array
    bias: float

    def scores(self, table: Array) -> Array:
        """Probability (n,) that each mark (n, len(FEATURES)) is a lesion; its own where nothing else is said."""
        standard = np.nan_to_num((table - self.mean) / self.scale)
        total = np.where(has_partner(table), standard @ self.weights + self.bias, table[:, 0])
        probability: Array = 1.0 / (1.0 + np.exp(-np.clip(total, -30, 30)))
        return probability

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs."""
        return {
            "features": list(FEATURES), "mean": self.mean.tolist(), "scale": self.scale.tolist(),
            "weights": self.weights.tolist(), "bias": self.bias,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OtherViews:
        """The regression that `as_json` described.

        Raises:
            BundleError: it is of other features, or cannot be read.
        """
        try:
            if tuple(data["features"]) != FEATURES:
                raise ValueError("other features")
            mean, scale, weights = (np.array(data[name], np.float64) for name in ("mean", "scale", "weights"))
            every = np.concatenate([mean, scale, weights, [float(data["bias"])]])
            if any(array.shape != (len(FEATURES),) for array in (mean, scale, weights)) or not (scale > 0).all():
                raise ValueError("other sizes")
            if not np.isfinite(every).all():
                raise ValueError("no numbers")
            return cls(mean, scale, weights, float(data["bias"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("The card's other views cannot be read.", remedy="Fit the model again.") from error
