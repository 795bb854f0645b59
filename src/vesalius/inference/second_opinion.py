"""A second opinion on each candidate: what hand-designed filters say of the same image.

Filters and networks miss different lesions, so that both together find more. Each mark of the filters goes to the
best of the network's candidates within its box, or becomes a candidate of its own; the log odds of both are added,
and a candidate that both have seen gets the geometric mean of their sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.core.errors import BundleError
from vesalius.core.finding import Box, Finding
from vesalius.core.grid import Array
from vesalius.imaging.contrast import View
from vesalius.inference.candidates import Candidates

FLOOR = -6.0  # log odds of what one of the two has not marked at all


@dataclass(frozen=True)
class SecondOpinion:
    """Probability of a lesion from the sum of both log odds.

    Args:
        slope, bias: of the logistic function.
    """

    slope: float
    bias: float

    def scores(self, total: Array) -> Array:
        """Probabilities (n,) of sums (n,) that `joined` gave."""
        probability: Array = 1.0 / (1.0 + np.exp(-np.clip(self.slope * total + self.bias, -30, 30)))
        return probability

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs."""
        return {"slope": self.slope, "bias": self.bias}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SecondOpinion:
        """What `as_json` described.

        Raises:
            BundleError: it cannot be read.
        """
        try:
            opinion = cls(float(data["slope"]), float(data["bias"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("The card's second opinion cannot be read.", remedy="Fit the model again.") from error
        if not (np.isfinite(opinion.bias) and 0 < opinion.slope < np.inf):
            raise BundleError("The card's second opinion makes no sense.", remedy="Fit the model again.")
        return opinion


def marks_of(findings: Sequence[Finding], name: str, seen: View) -> Candidates:
    """The findings of a class on one image as candidates of its view.

    Args:
        findings: boxes in the image's own index space, with scores 0..1.
        name: of the class.
        seen: the image's view.
    """
    boxes = [(f.place, f.score) for f in findings if f.name == name and isinstance(f.place, Box)]
    placed = np.array([seen.to_view(box.centre, box.size) for box, _ in boxes]).reshape(-1, 2, 3)
    return Candidates(placed[:, 0], placed[:, 1], np.array([score for _, score in boxes], np.float64))


def joined(found: Candidates, scores: Array, marks: Candidates) -> tuple[Candidates, Array]:
    """The network's candidates and the filters' marks together.

    Args:
        found: the network's candidates.
        scores: (n,) their probabilities.
        marks: of the filters, of the same class on the same view, the best first.

    Returns:
        Candidates, and the sum (n,) of both log odds of each.
    """
    own, theirs = log_odds(scores), log_odds(marks.heat)
    opinion, sizes = np.full(len(found), FLOOR), found.sizes.copy()
    alone = []
    for number, (centre, size) in enumerate(zip(marks.centres, marks.sizes, strict=True)):
        away = np.square((found.centres - centre) / np.maximum(size / 2, 1.0)).sum(1)
        within = np.flatnonzero(away < 1.0)
        if len(within):
            best = within[np.argmax(own[within])]
            if theirs[number] > opinion[best]:
                opinion[best] = theirs[number]
                sizes[best] = np.sqrt(found.sizes[best] * size)
        else:
            alone.append(number)
    every = Candidates(
        np.concatenate([found.centres, marks.centres[alone]]), np.concatenate([sizes, marks.sizes[alone]]),
        np.concatenate([found.heat, np.zeros(len(alone))]),
    )  # fmt: skip
    least = min(FLOOR, float(own.min())) if len(own) else FLOOR
    return every, np.concatenate([own + opinion, least + theirs[alone]])


def log_odds(scores: Array) -> Array:
    """Of probabilities (n,), those of certainty held finite."""
    kept = np.clip(scores, 1e-6, 1 - 1e-6)
    odds: Array = np.log(kept / (1 - kept))
    return odds
