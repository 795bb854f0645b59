"""A fitted grouping: which group a new case belongs to, and how unusual it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from safetensors.numpy import load, save

from vesalius.classical.clusters.space import Groups, Space
from vesalius.classical.table import Scale, case_features
from vesalius.core.errors import BundleError
from vesalius.core.finding import Finding
from vesalius.core.grid import Array, FloatArray
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction
from vesalius.inference.bundled import Bundled
from vesalius.store.bundle import Bundle

FILE = "clusters.safetensors"
ANOMALY = "anomaly"


def unusualness(space: Space, groups: Groups, found: Sequence[Mapping[str, float]]) -> tuple[FloatArray, FloatArray]:
    """(cases, dimensions) coordinates, and (cases,) distance from everything known.

    The distance adds what lies along the main directions (to the nearest group) and what they leave out, each
    over its mean in training.
    """
    points, residual = space.place(found)
    return points, groups.distances(points).min(axis=1) + residual


class ClusterModel(Bundled):
    """Answers with a probability for each group and with how unusual a case is.

    Args:
        bundle: a verified bundle whose card has the task "clustering".
        threads: not used; there is nothing to spread over threads.

    Raises:
        BundleError: the bundle lacks the file, or it does not fit the card.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        super().__init__(bundle)
        try:
            stored = load(bundle.path(FILE).read_bytes())
            names = tuple(bundle.card["features"])
            scale = Scale(stored["middle"], stored["spread"])
            self._space = Space(names, scale, stored["mean"], stored["directions"], float(stored["residual"][0]))
            self._groups = Groups(stored["means"], stored["variances"], stored["weights"])
            self._known: Array = stored["known"]
            sound = len(names) == len(scale.middle) == self._space.directions.shape[1]
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise BundleError(
                "The model's groups cannot be read.", remedy="Fit it again.", file=bundle.folder
            ) from error
        if not sound or len(bundle.card["classes"]) != len(self._groups.means):
            raise BundleError("The model's groups do not fit its card.", remedy="Fit it again.", file=bundle.folder)

    def verify(self) -> float:
        """Largest difference of the stored directions from orthonormal ones: there is no other side to compare with."""
        axes = self._space.directions
        return float(np.abs(axes @ axes.T - np.eye(len(axes))).max())

    def predict(self, images: Sequence[Image]) -> Prediction:
        """The group of one case.

        Returns:
            One finding per group with its probability, and a finding `anomaly`: the share of training cases
            (each left out of the fit in turn) that are less unusual. `details` holds `predicted`, the
            `coordinates` along the main directions, and `silhouette` (-1 to 1: how much nearer the own group
            is than the next; 0 where there is one only).

        Raises:
            UnusableInput: there is no image, or it cannot be described.
        """
        found = [case_features(images)]
        points, distance = unusualness(self._space, self._groups, found)
        shares = self._groups.membership(points)[0]
        names = [str(entry["name"]) for entry in self.card["classes"]]
        anomaly = float((self._known < distance[0]).mean())
        findings = [Finding(name, score=float(share)) for name, share in zip(names, shares, strict=True)]
        return Prediction(
            findings=(*findings, Finding(ANOMALY, score=anomaly)),
            details={
                "predicted": names[int(np.argmax(shares))],
                "coordinates": points[0].tolist(),
                "silhouette": _silhouette(points[0], self._groups.means),
            },
        )


def as_file(space: Space, groups: Groups, known: FloatArray) -> bytes:
    """What `ClusterModel` reads: the space, its groups, and the sorted distances of training cases left out in turn."""
    arrays = {
        "middle": space.scale.middle, "spread": space.scale.spread, "mean": space.mean,
        "directions": space.directions, "residual": np.array([space.residual]),
        "means": groups.means, "variances": groups.variances, "weights": groups.weights, "known": np.sort(known),
    }  # fmt: skip
    # The format writes memory as it lies, so a view in another order would come back as other numbers.
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _silhouette(point: FloatArray, means: FloatArray) -> float:
    """Of distances to the groups' means (simplified silhouette; Hruschka et al., Inf Sci 2006)."""
    if len(means) < 2:
        return 0.0
    nearest, next_one = np.sort(np.linalg.norm(means - point, axis=1))[:2]
    return float((next_one - nearest) / max(next_one, 1e-12))
