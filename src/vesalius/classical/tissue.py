"""Tissue segmentation: intensities clustered into classes, neighbours leaning towards one another.

See `mixture` for the method. What training patients teach is small: how bright each class is, and (for
volumes of one anatomy) where it usually lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vesalius.classical.align import align
from vesalius.classical.atlas import box_corners, common_reference, guide, pack_arrays, unpack_arrays
from vesalius.classical.cases import case_images, drawn
from vesalius.classical.frame import (
    Float32,
    Frame,
    Volume,
    budget_spacing,
    label_map,
    read_inputs,
    read_truth,
    transform,
)
from vesalius.classical.kept import Kept, rival_card
from vesalius.classical.mixture import FitRules, Gaussians, adapt, learn_gaussians, mean_field
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, FloatArray, Grid
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction


@dataclass(frozen=True)
class TissueSettings:
    """How the mixture is learned and applied.

    Args:
        patients: training patients looked at.
        overview: voxels in which the mixture adapts to an image, and in which images are aligned.
        detail: voxels of the final labelling; finer images are labelled at a coarser spacing.
        background: Gaussians of everything that is no class.
        components: Gaussians of each class.
        strength: how much the log odds of a class rise when all neighbours agree.
        sweeps: mean-field updates of the final labelling.
        rounds, shading, trust: see `mixture.FitRules`.
        floor: least share that the spatial prior gives any class.
    """

    patients: int = 12
    overview: int = 120_000
    detail: int = 8_000_000
    background: int = 4
    components: int = 1
    strength: float = 1.5
    sweeps: int = 6
    rounds: int = 20
    shading: int = 3
    trust: float = 0.1
    floor: float = 0.005


# Without a prior on place, only what training patients look like tells shading from structure: the field may
# only tilt, and brightness stays closer to theirs.
ANYWHERE = TissueSettings(trust=2.0, shading=1, strength=3.0)


@dataclass(frozen=True)
class TissueMixture:
    """The rival: `fit` learns brightness and, if `spatial`, usual places.

    Args:
        seed: draws the patients and voxels looked at.
        spatial: learn where each class lies, by aligning training patients to one of them.
        settings: sizes and numbers; `ANYWHERE` suits `spatial=False`.
    """

    seed: int = 0
    spatial: bool = True
    settings: TissueSettings = TissueSettings()

    @property
    def name(self) -> str:
        """What reports call it."""
        return "intensity mixture with spatial prior" if self.spatial else "intensity mixture"

    def fit(self, cases: Sequence[Case], cohort: Cohort, inputs: Sequence[str]) -> TissueModel:
        """Learn from up to `settings.patients` training patients.

        Raises:
            UnusableInput: no training case has outlines.
        """
        values = [label.value for label in cohort.labels]
        known: list[tuple[Volume, Array]] = []
        for case in drawn(cases, self.seed):
            if len(known) == self.settings.patients:
                break
            try:
                known.append(_overview(case, inputs, self.settings.overview))
            except UnusableInput:
                continue  # the store has said so already; other patients take its place
        if not known:
            raise UnusableInput("The intensity mixture needs training patients with outlines.")
        gaussians = _gaussians(known, values, cohort.ignore, self.settings, self.seed)
        maps = [_classes(labels, values, cohort.ignore) for _, labels in known]
        place = _place(known, maps, self.seed) if self.spatial else _nowhere(maps)
        how = (
            f"{self.name}: Gaussians over intensity, with a smooth shading of the image and a Markov random "
            f"field between neighbours, adapted to each scan; learned from {len(known)} training patients."
        )
        parameters = {**asdict(self.settings), "spatial": self.spatial}
        card = rival_card(self.name, how, parameters, cohort, inputs=tuple(inputs), seed=self.seed)
        return TissueModel(card, gaussians, place)


def _overview(case: Case, inputs: Sequence[str], voxels: int) -> tuple[Volume, Array]:
    volume = read_inputs(case_images(case, inputs), inputs, scale=True)
    volume = volume.at(budget_spacing(volume.grid, voxels))
    label = case.label_image
    assert label is not None
    return volume, read_truth(label, volume.grid)


def _classes(labels: Array, values: Sequence[int], ignore: int | None) -> Float32:
    """(classes with background, i, j, k) 0 or 1; all 0 where truth is to be ignored."""
    named = np.stack([labels == value for value in values])
    known = np.ones(labels.shape, bool) if ignore is None else labels != ignore
    rest = (known & ~named.any(axis=0))[None]
    return np.concatenate([rest, named]).astype(np.float32)


def _gaussians(
    known: Sequence[tuple[Volume, Array]],
    values: Sequence[int],
    ignore: int | None,
    settings: TissueSettings,
    seed: int,
) -> Gaussians:
    rng = np.random.default_rng(seed)
    samples: list[list[Array]] = [[] for _ in range(len(values) + 1)]
    for volume, labels in known:
        for store, mask in zip(samples, _classes(labels, values, ignore), strict=True):
            found = np.flatnonzero(mask)
            chosen = rng.choice(found, min(len(found), 4000), replace=False)
            store.append(volume.array.reshape(len(volume.array), -1)[:, chosen].T)
    joined = [np.concatenate(store) for store in samples]
    channels = known[0][0].array.shape[0]
    # A class that no training patient shows gets a Gaussian that fits nothing well.
    joined = [part if len(part) else np.full((1, channels), -10.0) for part in joined]
    return learn_gaussians(joined, [settings.background] + [settings.components] * len(values))


@dataclass(frozen=True, eq=False)
class Place:
    """Where classes usually lie.

    Args:
        shares: (classes with background, i, j, k) on the reference's grid, or (classes,) for anywhere.
        reference: the training image that others are aligned to; None for anywhere.
    """

    shares: Float32
    reference: Volume | None

    def on(self, volume: Volume, seed: int, floor: float) -> tuple[Float32, FloatArray | None]:
        """Prior probabilities (classes, i, j, k) on an image's grid, and the pose they were found at."""
        shape = volume.grid.shape
        if self.reference is None:
            return np.broadcast_to(self.shares[:, None, None, None], (len(self.shares), *shape)).copy(), None
        if self.reference.frame.dimension != volume.frame.dimension:
            raise UnusableInput("The rival was fitted on images with another number of dimensions.")
        pose = align(self.reference, guide(volume), seed)
        return self.at(volume.grid, pose, floor), pose

    def at(self, grid: Grid, pose: FloatArray, floor: float) -> Float32:
        """Prior probabilities (classes, i, j, k) on a grid whose pose is known."""
        assert self.reference is not None
        points = transform(np.linalg.inv(pose), Frame.of(grid).points())
        shares = Volume(self.shares, self.reference.grid).sample(points).reshape(-1, *grid.shape)
        shares[0] += np.maximum(1.0 - shares.sum(axis=0), 0.0)  # beyond the reference is background
        shares += floor
        return np.asarray(shares / shares.sum(axis=0))


def _place(known: Sequence[tuple[Volume, Array]], maps: Sequence[Float32], seed: int) -> Place:
    """The aligned mean of the training patients' classes, a little smoothed."""
    from scipy import ndimage

    dimension = known[0][0].frame.dimension
    pairs = [(volume, classes) for (volume, _), classes in zip(known, maps, strict=True)]
    pairs = [pair for pair in pairs if pair[0].frame.dimension == dimension]
    boxes = []
    for volume, classes in pairs:
        corners = box_corners(classes[1:].any(axis=0).astype(int), volume.frame, [1])
        boxes.append(volume.frame.corners if corners is None else corners)
    reference, poses = common_reference([volume for volume, _ in pairs], boxes, seed)
    points = reference.volume.frame.points()
    total = np.zeros((len(maps[0]), len(points)), np.float32)
    for (volume, classes), pose in zip(pairs, poses, strict=True):
        total += Volume(classes, volume.grid).sample(transform(pose, points))
    shares = total.reshape(-1, *reference.volume.grid.shape)
    sigma = [1.0 if size > 1 else 0.0 for size in shares.shape[1:]]
    shares = np.stack([ndimage.gaussian_filter(share, sigma, mode="nearest") for share in shares])
    seen = shares.sum(axis=0)
    shares = np.where(seen > 0.5, shares / np.maximum(seen, 0.5), 0.0)
    return Place(shares.astype(np.float16).astype(np.float32), reference.volume)


def _nowhere(maps: Sequence[Float32]) -> Place:
    """How often each class occurs, wherever."""
    shares = np.mean([classes.reshape(len(classes), -1).mean(axis=1) for classes in maps], axis=0) + 1e-4
    return Place(np.asarray(shares / shares.sum(), dtype=np.float32), None)


class TissueModel:
    """A mixture that adapts to each new image."""

    kind = "tissue"

    def __init__(self, card: Mapping[str, Any], gaussians: Gaussians, place: Place) -> None:
        self.card = card
        self.gaussians = gaussians
        self.place = place

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Label one image.

        Raises:
            UnusableInput: the images are constant, or planes where volumes were learned from.
        """
        parameters = self.card["parameters"]
        volume = read_inputs(images, self.card["inputs"], scale=True)
        volume = volume.at(budget_spacing(volume.grid, int(parameters["detail"])))
        overview = volume.at(budget_spacing(volume.grid, int(parameters["overview"])))
        prior, pose = self.place.on(overview, int(self.card["seed"]), float(parameters["floor"]))
        rules = FitRules(
            int(parameters["rounds"]),
            float(parameters["strength"]),
            int(parameters["shading"]),
            float(parameters["trust"]),
        )
        found, field = adapt(overview.array, self.gaussians, prior, overview.grid.spacing, rules)
        corrected = volume.array / Volume(field, overview.grid).on(volume.grid).array
        if pose is not None:
            prior = self.place.at(volume.grid, pose, float(parameters["floor"]))
        else:
            prior = self.place.on(volume, 0, 0.0)[0]
        energy = _energy(corrected, found, prior)
        shares = mean_field(energy, volume.grid.spacing, rules.strength, int(parameters["sweeps"]))
        values = [int(item["value"]) for item in self.card["classes"]]
        return Prediction(label_map=label_map(shares[1:], volume.grid, images[0].grid, values))

    def keep(self) -> Kept:
        """Everything that `from_kept` needs."""
        mixture = self.gaussians
        arrays: dict[str, Array] = {
            "means": mixture.means,
            "variances": mixture.variances,
            "weights": mixture.weights,
            "owner": mixture.owner,
            "shares": self.place.shares,
        }
        grid = None
        if self.place.reference is not None:
            arrays["reference"] = self.place.reference.array
            grid = {**self.place.reference.grid.as_json(), "frame_of_reference": None}
        return Kept(self.kind, {"card": self.card, "grid": grid}, {"mixture": pack_arrays(arrays)})

    @classmethod
    def from_kept(cls, kept: Kept) -> TissueModel:
        """The model that `keep` described; it answers exactly alike."""
        arrays = unpack_arrays(kept.files["mixture"])
        names = ("means", "variances", "weights", "owner")
        grid = kept.values["grid"]
        reference = None if grid is None else Volume(arrays["reference"], Grid.from_json(grid))
        gaussians = Gaussians(*(arrays[name] for name in names))
        return cls(kept.values["card"], gaussians, Place(arrays["shares"], reference))


def _energy(values: Float32, gaussians: Gaussians, prior: Float32) -> Float32:
    """(classes, i, j, k) log of likelihood times prior, slice by slice to spare memory."""
    energy = np.log(prior + 1e-6, dtype=np.float32)
    for number in range(values.shape[1]):
        part = values[:, number].reshape(len(values), -1).astype(np.float64)
        likelihood = gaussians.of_classes(gaussians.log_likelihood(part))
        energy[:, number] += likelihood.reshape(energy[:, number].shape).astype(np.float32)
    return np.asarray(energy)
