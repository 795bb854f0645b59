"""Multi-atlas segmentation: training patients' outlines, carried over by registration, vote voxel by voxel.

Sources: Heckemann et al., NeuroImage 2006 (fusion of propagated labels); Aljabar et al., NeuroImage 2009
(choosing the atlases most like the patient); Artaechevarria et al., IEEE TMI 2009 (locally weighted votes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vesalius.classical.align import displace, local_contrast
from vesalius.classical.atlas import (
    Atlas,
    Reference,
    box_corners,
    coarse,
    common_reference,
    guide,
    pack_arrays,
    region,
    unpack_arrays,
)
from vesalius.classical.cases import case_images, drawn
from vesalius.classical.frame import (
    Frame,
    Volume,
    budget_spacing,
    label_map,
    read_inputs,
    read_truth,
    transform,
)
from vesalius.classical.fusion import Ballot
from vesalius.classical.kept import Kept, rival_card
from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import FloatArray, Grid
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction


@dataclass(frozen=True)
class AtlasSettings:
    """How many atlases, at what size, and how they vote.

    Args:
        pool: training patients kept.
        used: atlases that vote on one patient, those most like it.
        overview: voxels of the whole image in which images are aligned and chosen.
        detail: voxels around the outlines in which displacements are found and votes are cast. This bounds
            time and memory per patient, whatever the image's size.
        steps: demons iterations at half and at full resolution.
        sharpness: how fast a vote's weight falls with the local squared difference of intensities.
        reach: voxels around its registered place from which an atlas may vote.
        reach_until: voxels around the outlines above which there is no such search, which would take most
            of the time.
    """

    pool: int = 20
    used: int = 10
    overview: int = 150_000
    detail: int = 500_000
    steps: tuple[int, int] = (20, 15)
    sharpness: float = 16.0
    reach: int = 1
    reach_until: int = 250_000


@dataclass(frozen=True)
class MultiAtlas:
    """The rival: `fit` chooses and aligns the atlases.

    Args:
        seed: draws the atlases and the voxels that alignment is judged on.
        settings: sizes and numbers.
    """

    seed: int = 0
    settings: AtlasSettings = AtlasSettings()
    name: str = "multi-atlas segmentation"

    def fit(self, cases: Sequence[Case], cohort: Cohort, inputs: Sequence[str]) -> MultiAtlasModel:
        """Pack and align up to `settings.pool` training patients, one case each as far as they go round.

        Raises:
            UnusableInput: fewer than two training cases have outlines.
        """
        values = [label.value for label in cohort.labels]
        overviews: list[Volume] = []
        boxes: list[FloatArray] = []
        chosen: list[Case] = []
        for case in drawn(cases, self.seed):
            if len(chosen) == self.settings.pool:
                break
            try:
                overview, box = _overview(case, inputs, values, self.settings)
            except UnusableInput:
                continue  # the store has said so already; other patients take its place
            if box is None or (overviews and overview.frame.dimension != overviews[0].frame.dimension):
                continue
            overviews.append(overview)
            boxes.append(box)
            chosen.append(case)
        if len(chosen) < 2:
            raise UnusableInput("Atlases need at least two training patients with outlines.")
        reference, poses = common_reference(overviews, boxes, self.seed)
        spacing = _detail_spacing(chosen, boxes, self.settings, len(values))
        atlases = [
            _packed(case, inputs, spacing, box, pose) for case, box, pose in zip(chosen, boxes, poses, strict=True)
        ]
        used = min(self.settings.used, len(atlases))
        how = (
            f"{self.name}: for each scan the {used} most similar of {len(atlases)} training patients are "
            "registered to it (affine, then demons), and their outlines vote, weighted by local similarity."
        )
        parameters = {**asdict(self.settings), "spacing_mm": list(spacing), "atlases": len(atlases)}
        card = rival_card(self.name, how, parameters, cohort, inputs=tuple(inputs), seed=self.seed)
        return MultiAtlasModel(card, reference, tuple(atlases), tuple(spacing))


def _overview(
    case: Case, inputs: Sequence[str], values: Sequence[int], settings: AtlasSettings
) -> tuple[Volume, FloatArray | None]:
    """A case's coarse first input, and the corners around its outlines."""
    images = case_images(case, inputs)
    volume = guide(read_inputs(images, inputs), images[0].channels)
    label = case.label_image
    assert label is not None
    box = box_corners(read_truth(label, volume.grid), volume.frame, values)
    return coarse(volume, settings.overview), box


def _detail_spacing(
    cases: Sequence[Case], boxes: Sequence[FloatArray], settings: AtlasSettings, classes: int
) -> tuple[float, ...]:
    """mm along the canonical axes at which the largest outlines with their margin fit the budget."""
    canonical = cases[0].images[0].grid.canonical()[0]
    extent = np.asarray(canonical.shape) * np.asarray(canonical.spacing)
    size = 1.5 * np.max([box.max(axis=0) - box.min(axis=0) for box in boxes], axis=0)
    axes = list(Frame.of(canonical).axes)
    extent[axes] = np.minimum(extent[axes], size)
    budget = settings.detail // max(1, classes // 8)
    return budget_spacing(canonical, budget, extent)


def _margin(grid: Grid, corners: FloatArray) -> list[float]:
    """Voxels of surroundings kept: a fifth of the outlines' extent, at least eight voxels."""
    frame = Frame.of(grid)
    extent = (corners.max(axis=0) - corners.min(axis=0)) / frame.spacing
    return [max(8.0, 0.2 * float(size)) for size in extent]


def _packed(case: Case, inputs: Sequence[str], spacing: Sequence[float], box: FloatArray, pose: FloatArray) -> Atlas:
    volume = read_inputs(case_images(case, inputs), inputs)
    volume = _detail(volume, spacing, box)
    label = case.label_image
    assert label is not None
    return Atlas.pack(volume, read_truth(label, volume.grid), pose)


def _detail(volume: Volume, spacing: Sequence[float], corners: FloatArray) -> Volume:
    """The surroundings of the outlines at the spacing of the votes; the rest is never resampled."""
    own = volume.grid
    wanted = [max(a, b) if size > 1 else a for a, b, size in zip(own.spacing, spacing, own.shape, strict=True)]
    fine = own if np.allclose(wanted, own.spacing, rtol=0.01) else own.resampled(wanted)
    return volume.on(region(fine, corners, _margin(fine, corners)))


class MultiAtlasModel:
    """Atlases that outline a new patient. One atlas is unpacked at a time."""

    kind = "multi-atlas"

    def __init__(
        self,
        card: Mapping[str, Any],
        reference: Reference,
        atlases: tuple[Atlas, ...],
        spacing: tuple[float, ...],
    ) -> None:
        self.card = card
        self.reference = reference
        self.atlases = atlases
        self.spacing = spacing
        self._values = [int(item["value"]) for item in card["classes"]]

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Outline one patient.

        Raises:
            UnusableInput: the images are constant, or planes where volumes were learned from.
        """
        volume = read_inputs(images, self.card["inputs"])
        parameters, seed = self.card["parameters"], int(self.card["seed"])
        channels = images[0].channels
        overview = coarse(Volume(volume.array[:channels], volume.grid), int(parameters["overview"]))
        pose = self.reference.pose_of(overview, seed)
        ranked = self.reference.ranking(overview, pose)[: int(parameters["used"])]
        corners = transform(pose, self.reference.points)
        target = _detail(volume, self.spacing, _ends(corners))
        frame = target.frame
        target = Volume(local_contrast(target.array, frame), target.grid)
        small = int(np.prod(frame.shape)) <= int(parameters["reach_until"])
        reach = int(parameters["reach"]) if small else 0
        ballot = Ballot(target.array, frame, len(self._values), float(parameters["sharpness"]), reach)
        for number in ranked:
            atlas = self.atlases[int(number)]
            self._vote(atlas, atlas.pose @ np.linalg.inv(pose), target, channels, ballot)
        shares = ballot.shares.reshape(-1, *target.grid.shape)
        found = label_map(shares, target.grid, images[0].grid, self._values)
        return Prediction(label_map=found, details={"atlases": [int(number) for number in ranked]})

    def _vote(self, atlas: Atlas, relative: FloatArray, target: Volume, channels: int, ballot: Ballot) -> None:
        """Register one atlas to the target and let it vote.

        Args:
            atlas: its packed image and labels.
            relative: affine map from the target's frame coordinates to the atlas's.
            target: by `local_contrast`.
            channels: how many of its channels belong to the first input, which registration goes by.
            ballot: takes the votes.
        """
        image, labels = atlas.unpack()
        image = Volume(local_contrast(image.array, image.frame), image.grid)
        steps = self.card["parameters"]["steps"]
        frame = target.frame
        points = frame.points()
        start = guide(image, channels).sample(transform(relative, points))[0]
        still = target.array[:channels].mean(axis=0)
        points = points + displace(still, start, frame, (int(steps[0]), int(steps[1])))
        places = transform(relative, points)
        ignore = self.card["ignore"]
        known = np.ones(labels.shape, bool) if ignore is None else labels != ignore
        layers = np.stack([known, *(labels == value for value in self._values)]).astype(np.float32)
        known_there, *shares = Volume(layers, image.grid).sample(places)
        ballot.cast(image.sample(places), np.stack(shares), known_there)

    def keep(self) -> Kept:
        """Everything that `from_kept` needs."""
        files = {f"atlas-{number:03d}": atlas.data for number, atlas in enumerate(self.atlases)}
        files["reference"] = pack_arrays(
            {
                "image": self.reference.volume.array,
                "points": self.reference.points,
                "looks": self.reference.looks,
                "poses": np.stack([atlas.pose for atlas in self.atlases]),
            }
        )
        grid = self.reference.volume.grid.as_json()
        grid["frame_of_reference"] = None  # it plays no part in alignment
        return Kept(self.kind, {"card": self.card, "grid": grid, "spacing": list(self.spacing)}, files)

    @classmethod
    def from_kept(cls, kept: Kept) -> MultiAtlasModel:
        """The model that `keep` described; it answers exactly alike."""
        arrays = unpack_arrays(kept.files["reference"])
        volume = Volume(arrays["image"], Grid.from_json(kept.values["grid"]))
        reference = Reference(volume, arrays["points"], arrays["looks"])
        atlases = tuple(Atlas(pose, kept.files[f"atlas-{number:03d}"]) for number, pose in enumerate(arrays["poses"]))
        return cls(kept.values["card"], reference, atlases, tuple(kept.values["spacing"]))


def _ends(points: FloatArray) -> FloatArray:
    return np.stack([points.min(axis=0), points.max(axis=0)])
