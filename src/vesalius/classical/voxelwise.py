"""Each voxel judged by how it and its surroundings look and where it lies: logistic regression.

The rival that always applies: photographs, ultrasound and anything else without an anatomy that could be
aligned. Features are intensities smoothed at rising widths, their edges, and the position; their squares and
products let the regression draw curved borders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vesalius.classical.atlas import pack_arrays, unpack_arrays
from vesalius.classical.cases import case_images, drawn
from vesalius.classical.frame import Float32, Volume, budget_spacing, label_map, read_inputs, read_truth
from vesalius.classical.kept import Kept, rival_card
from vesalius.classical.mixture import mean_field, softmax
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, FloatArray
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction


@dataclass(frozen=True)
class VoxelSettings:
    """How the regression is learned and applied.

    Args:
        patients: training patients looked at.
        voxels: size of the working image; finer images are judged at a coarser spacing.
        samples: voxels learned from per patient, shared evenly among the classes present.
        widths: standard deviations of the smoothing, as shares of the largest side.
        penalty: ridge on the coefficients.
        strength, sweeps: Markov random field, see `mixture.mean_field`.
    """

    patients: int = 60
    voxels: int = 60_000
    samples: int = 600
    widths: tuple[float, ...] = (0.005, 0.015, 0.03, 0.06, 0.12)
    penalty: float = 1e-3
    strength: float = 3.0
    sweeps: int = 6


@dataclass(frozen=True)
class VoxelRegression:
    """The rival: `fit` learns the coefficients and how readily each class is given."""

    seed: int = 0
    settings: VoxelSettings = VoxelSettings()
    name: str = "voxel-wise logistic regression"

    def fit(self, cases: Sequence[Case], cohort: Cohort, inputs: Sequence[str]) -> VoxelModel:
        """Learn from up to `settings.patients` training patients.

        Raises:
            UnusableInput: no training case has outlines.
        """
        values = [label.value for label in cohort.labels]
        features: list[Float32] = []
        truths: list[Array] = []
        rng = np.random.default_rng(self.seed)
        used = 0
        for case in drawn(cases, self.seed):
            if used == self.settings.patients:
                break
            try:
                volume = _working(case_images(case, inputs), inputs, self.settings.voxels)
            except UnusableInput:
                continue  # the store has said so already; other patients take its place
            label = case.label_image
            assert label is not None
            truth = _positions(read_truth(label, volume.grid), values, cohort.ignore)
            chosen = _spread(truth, self.settings.samples, rng)
            features.append(voxel_features(volume, self.settings.widths)[:, chosen].T)
            truths.append(truth[chosen])
            used += 1
        if not features:
            raise UnusableInput("The regression needs training patients with outlines.")
        scale, weights = _regress(np.concatenate(features), np.concatenate(truths), len(values) + 1, self.settings)
        how = (
            f"{self.name} on smoothed intensities, edges and position, with a Markov random field between "
            f"neighbours; learned from {used} training patients."
        )
        card = rival_card(self.name, how, asdict(self.settings), cohort, inputs=tuple(inputs), seed=self.seed)
        plain = VoxelModel(card, scale, weights, np.zeros(len(values) + 1))
        return VoxelModel(card, scale, weights, _readiness(plain, cases, inputs, values, cohort.ignore, self.seed))


def _working(images: Sequence[Image], inputs: Sequence[str], voxels: int) -> Volume:
    volume = read_inputs(images, inputs)
    return volume.at(budget_spacing(volume.grid, voxels))


def _positions(labels: Array, values: Sequence[int], ignore: int | None) -> Array:
    """(n,) position of each voxel's class, 0 for background, -1 for what is to be ignored."""
    flat = labels.ravel()
    result = np.zeros(flat.shape, np.int64)
    for number, value in enumerate(values, start=1):
        result[flat == value] = number
    if ignore is not None:
        result[flat == ignore] = -1
    return result


def _spread(truth: Array, count: int, rng: np.random.Generator) -> Array:
    """Voxels drawn evenly from the classes that are present."""
    present = [np.flatnonzero(truth == number) for number in np.unique(truth[truth >= 0])]
    each = max(1, count // max(1, len(present)))
    chosen = [rng.choice(found, min(each, len(found)), replace=False) for found in present]
    return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)


def voxel_features(volume: Volume, widths: Sequence[float]) -> Float32:
    """(features, voxels): smoothed intensities, edge strengths and position, then squares and products."""
    from scipy import ndimage

    frame = volume.frame
    side = float((np.asarray(frame.shape) * frame.spacing).max())
    plain = [np.linspace(-1.0, 1.0, size).reshape([-1 if a == axis else 1 for a in range(frame.dimension)])
             for axis, size in enumerate(frame.shape)]  # fmt: skip
    features = [np.broadcast_to(place, frame.shape).ravel() for place in plain]
    for channel in volume.array:
        values = channel.reshape(frame.shape)
        for width in widths:
            sigma = width * side / frame.spacing
            features.append(ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=3.0).ravel())
        edges = ndimage.gaussian_gradient_magnitude(values, widths[1] * side / frame.spacing, mode="nearest")
        features.append(edges.ravel())
    first = np.stack(features).astype(np.float32)
    rows, columns = np.triu_indices(len(first))
    return np.concatenate([first, first[rows] * first[columns]])


def _regress(features: Float32, truth: Array, classes: int, settings: VoxelSettings) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation of the features (2, f), and multinomial coefficients (classes, f + 1)."""
    from scipy import optimize

    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    design = np.concatenate([(features - mean) / deviation, np.ones((len(features), 1))], axis=1)
    design = design.astype(np.float64)
    target = np.eye(classes)[truth]

    def cost(flat: FloatArray) -> tuple[float, FloatArray]:
        weights = flat.reshape(classes, -1)
        odds = design @ weights.T
        log_sum = np.logaddexp.reduce(odds, axis=1)
        error = np.exp(odds - log_sum[:, None]) - target
        value = (log_sum - (odds * target).sum(axis=1)).mean() + settings.penalty * (weights**2).sum()
        slope = error.T @ design / len(design) + 2 * settings.penalty * weights
        return float(value), slope.ravel()

    start = np.zeros(classes * design.shape[1])
    found = optimize.minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return np.stack([mean, deviation]).astype(np.float64), found.x.reshape(classes, -1)


def _readiness(
    model: VoxelModel,
    cases: Sequence[Case],
    inputs: Sequence[str],
    values: Sequence[int],
    ignore: int | None,
    seed: int,
) -> FloatArray:
    """What to take off the background's log odds so that Dice on training patients is best.

    The regression learned from equal numbers of voxels per class; how rare the classes really are, and what
    that does to Dice, is settled here.
    """
    energies = []
    for case in drawn(cases, seed)[:10]:
        try:
            volume = _working(case_images(case, inputs), inputs, int(model.card["parameters"]["voxels"]))
        except UnusableInput:
            continue
        label = case.label_image
        assert label is not None
        truth = _positions(read_truth(label, volume.grid), values, ignore)
        energies.append((model.energy(volume)[:, truth >= 0], truth[truth >= 0]))
    best, kept = -1.0, np.zeros(len(values) + 1)
    for offset in np.arange(-1.0, 5.1, 0.5):
        change = np.zeros(len(values) + 1)
        change[0] = offset
        score = _mean_dice(energies, change)
        if score > best:
            best, kept = score, change
    return kept


def _mean_dice(energies: Sequence[tuple[Float32, Array]], change: FloatArray) -> float:
    scores = []
    for energy, truth in energies:
        found = (energy + change[:, None]).argmax(axis=0)
        for number in range(1, len(change)):
            one, other = found == number, truth == number
            size = int(one.sum() + other.sum())
            scores.append(2 * int((one & other).sum()) / size if size else 1.0)
    return float(np.mean(scores)) if scores else 0.0


class VoxelModel:
    """Coefficients that judge each voxel of a new image."""

    kind = "voxelwise"

    def __init__(self, card: Mapping[str, Any], scale: FloatArray, weights: FloatArray, readiness: FloatArray) -> None:
        self.card = card
        self.scale = scale
        self.weights = weights
        self.readiness = readiness

    def energy(self, volume: Volume) -> Float32:
        """(classes, voxels) log odds."""
        features = voxel_features(volume, self.card["parameters"]["widths"])
        features = (features - self.scale[0][:, None]) / self.scale[1][:, None]
        odds = self.weights[:, :-1] @ features + self.weights[:, -1:]
        return np.asarray(odds + self.readiness[:, None], dtype=np.float32)

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Label one image.

        Raises:
            UnusableInput: the images are constant, or planes where volumes were learned from.
        """
        parameters = self.card["parameters"]
        volume = _working(images, self.card["inputs"], int(parameters["voxels"]))
        if volume.frame.dimension != self._dimension(len(volume.array)):
            raise UnusableInput("The rival was fitted on images with another number of dimensions or channels.")
        energy = np.log(softmax(self.energy(volume)) + 1e-6).reshape(-1, *volume.grid.shape)
        shares = mean_field(energy, volume.grid.spacing, float(parameters["strength"]), int(parameters["sweeps"]))
        values = [int(item["value"]) for item in self.card["classes"]]
        return Prediction(label_map=label_map(shares[1:], volume.grid, images[0].grid, values))

    def _dimension(self, channels: int) -> int:
        """Dimensions of the images learned from, found from the number of coefficients; 0 if none fits."""
        each = len(self.card["parameters"]["widths"]) + 1
        for dimension in (2, 3):
            first = dimension + channels * each
            if first + first * (first + 1) // 2 == self.weights.shape[1] - 1:
                return dimension
        return 0

    def keep(self) -> Kept:
        """Everything that `from_kept` needs."""
        arrays = {"scale": self.scale, "weights": self.weights, "readiness": self.readiness}
        return Kept(self.kind, {"card": self.card}, {"coefficients": pack_arrays(arrays)})

    @classmethod
    def from_kept(cls, kept: Kept) -> VoxelModel:
        """The model that `keep` described; it answers exactly alike."""
        arrays = unpack_arrays(kept.files["coefficients"])
        return cls(kept.values["card"], arrays["scale"], arrays["weights"], arrays["readiness"])
