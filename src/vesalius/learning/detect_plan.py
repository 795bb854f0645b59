"""What a detector will be trained with: from the sizes of the lesions, and from seconds per step measured here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from vesalius.core.case import Case
from vesalius.core.errors import BundleError, UnusableInput, UsageError
from vesalius.imaging.augmentation import AugmentationSettings
from vesalius.imaging.contrast import ViewRecipe
from vesalius.imaging.mammogram import looks_like_mammogram
from vesalius.learning.detect_data import Places
from vesalius.measures.target import most_marks

_MEDIAN_LESION, _SMALL_LESION = 21.0, 5.0  # voxels of the view that the median and a small lesion shall span
_LEAST_EDGE = {True: 160, False: 48}  # a view of the median image is not made smaller than this
_PATCH = {True: 128, False: 48}
_BATCH = {True: 8, False: 2}
_WIDTHS = {True: (16, 32, 48, 64), False: (12, 24, 48, 64)}
_WIDTHS_PRETRAINED = (16, 32, 48, 64, 64)
_RATE, _RATE_PRETRAINED = 2e-3, 6e-4
_PATIENTS_PER_FOLD = 2  # with lesions; fewer make fewer networks
_MAMMOGRAMS_ASKED = 12  # images that are looked at to see whether these are mammograms
_FORMAT = 1

Size = tuple[int, int, int]


@dataclass(frozen=True)
class DetectPlan:
    """Everything that decides the weights beside the data and the seed.

    Args:
        view: how images become views.
        planar: two-dimensional.
        patch: (i, j, k) voxels of the view.
        batch: patches per step.
        widths: channels of the network's levels.
        pretrained: whether its coarser levels start from the shipped EfficientNet-Lite0.
        filters: whether hand-designed filters give a second opinion.
        folds: as many networks, each without one part of the patients; 1 for one that sees all.
        steps: of each network.
        rate, weight_decay, warm_up: of AdamW and the cosine.
        augmentation: how patches are changed.
        device, threads, bfloat16: where and how it is computed.
        most: findings per image and class.
        turns: for each network where the clock changed its number of steps.
        seconds_per_step: as measured.
    """

    view: ViewRecipe
    planar: bool
    patch: Size
    batch: int
    widths: tuple[int, ...]
    folds: int
    steps: int
    rate: float
    weight_decay: float
    warm_up: float
    augmentation: AugmentationSettings
    device: str
    threads: int
    bfloat16: bool = False
    pretrained: bool = False
    filters: bool = False
    most: int = 10
    turns: tuple[tuple[tuple[int, int], ...], ...] = ()
    seconds_per_step: float = 0.0

    @property
    def stride(self) -> Size:
        """Voxels of the view per voxel of heat."""
        return (2, 2, 1) if self.planar else (2, 2, 2)

    @property
    def multiple(self) -> Size:
        """Sizes that the network takes are multiples of these."""
        unit = 2 ** len(self.widths)
        return (unit, unit, 1 if self.planar else unit)

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs, with the plan in words."""
        data = {**asdict(self), "view": self.view.as_json(), "sentences": list(self.sentences())}
        return {"format": _FORMAT, "task": "detection", **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DetectPlan:
        """The plan that `as_json` described.

        Raises:
            UsageError: it is of another task or version, or incomplete.
        """
        remedy = "Fit without --plan."
        if data.get("format") != _FORMAT or data.get("task") != "detection":
            raise UsageError("The stored plan is not one of a detection that this program knows.", remedy=remedy)
        try:
            whole = {"pretrained": False, "filters": False, "most": 10, **data}
            values = {field.name: whole[field.name] for field in fields(cls)}
            changes = dict(values["augmentation"])
            changes["mirror_axes"] = tuple(changes["mirror_axes"])
            values["augmentation"] = AugmentationSettings(**changes)
            values["view"] = ViewRecipe.from_json(values["view"])
            values |= {name: tuple(values[name]) for name in ("patch", "widths")}
            values["turns"] = tuple(tuple((at, to) for at, to in turns) for turns in values["turns"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError, BundleError) as error:
            raise UsageError("The stored plan cannot be read.", remedy=remedy) from error

    def sentences(self) -> Iterator[str]:
        """The plan in plain words."""
        what = "networks, each without one part of the patients" if self.folds > 1 else "network"
        size = " × ".join(str(n) for n in (self.patch[:2] if self.planar else self.patch))
        spacing = " × ".join(f"{n:.3g}" for n in (self.view.spacing[:2] if self.planar else self.view.spacing))
        yield f"Train {self.folds} {what}: a centre heat-map detector of {'-'.join(map(str, self.widths))} channels."
        if self.pretrained:
            yield "Its coarser levels start from EfficientNet-Lite0, which has learned from photographs."
        yield f"Images are seen at a spacing of {spacing}; each step sees {self.batch} patches of {size} voxels."
        if self.view.mammogram:
            yield "The images are mammograms: only the breast is looked at, the chest wall turned to one side."
        if self.filters:
            yield "Hand-designed filters look at the same images and give a second opinion."
        yield f"{self.steps} steps each, at {self.seconds_per_step:.3f} s a step as measured here."


def with_photographs(plan: DetectPlan) -> DetectPlan:
    """The same with a network of planes that starts from the shipped EfficientNet-Lite0."""
    unit = 2 ** len(_WIDTHS_PRETRAINED)
    i, j = (-(-n // unit) * unit for n in plan.patch[:2])
    return replace(plan, pretrained=True, widths=_WIDTHS_PRETRAINED, rate=_RATE_PRETRAINED, patch=(i, j, 1))


def first_plan(cases: Sequence[tuple[Case, Places]], folds: int, device: str, threads: int) -> DetectPlan:
    """The plan before anything was measured.

    Args:
        cases: each with its lesions by image.
        folds: networks asked for; 1 lets the number of patients with lesions decide.
        device, threads: where it is computed.

    Raises:
        UsageError: there is no lesion, or images are partly planes and partly volumes.
    """
    images = [image for case, places in cases for image in case.images if image.id in places]
    shapes, units = np.array([i.grid.canonical()[0].shape for i in images]).reshape(-1, 3), []
    for case, places in cases:
        for image in case.images:
            _, order, _ = image.grid.canonical()
            spacing = np.array(image.grid.spacing)
            units += [(np.array(box.size) * spacing)[list(order)] for _, box in places.get(image.id, [])]
    if not units:
        raise UsageError(
            "There is no lesion in any training case, so nothing can be learned of them.",
            remedy="Label cases that have some, or name another --target.",
        )
    flat = {shape[2] == 1 for shape in shapes.tolist()}
    if len(flat) > 1:
        raise UsageError("Some images are planes and some are volumes.", remedy="Fit them apart.")
    planar = flat.pop()
    channels = max(image.channels for image in images)
    spacings = np.array([image.grid.canonical()[0].spacing for image in images])
    aim = _spacing(np.array(units), shapes, spacings, planar)
    mammogram = planar and channels == 1 and _mammograms(cases)
    with_lesions = len({case.patient for case, places in cases if any(places.values())})
    several = folds if folds > 1 else min(5, with_lesions // _PATIENTS_PER_FOLD)
    unit = 2 ** len(_WIDTHS[planar])
    largest = float(np.percentile((shapes * spacings)[:, : 2 if planar else 3].max(1) / aim[0], 75))
    edge = min(_PATCH[planar], -(-int(largest) // unit) * unit)
    mirror = (1,) if mammogram else (0,)
    return DetectPlan(
        view=ViewRecipe(aim, channels, mammogram), planar=planar, patch=(edge, edge, 1 if planar else edge),
        batch=_BATCH[planar], widths=_WIDTHS[planar], folds=max(1, several), steps=20, rate=_RATE, weight_decay=1e-2,
        warm_up=0.05, device=device, threads=threads,
        most=most_marks(lesions for _, places in cases for lesions in places.values()),
        augmentation=AugmentationSettings(
            rotation=20.0, scaling=0.2, shift=4.0, elastic=2.0, elastic_spacing=24, mirror_axes=mirror, intensity=0.2
        ),
    )  # fmt: skip


def _spacing(sizes: Any, shapes: Any, spacings: Any, planar: bool) -> tuple[float, float, float]:
    """Spacing of the views: coarse enough to be quick, fine enough for the smaller lesions."""
    axes = 2 if planar else 3
    widths = sizes[:, :axes].mean(1)
    wanted = min(float(np.median(widths)) / _MEDIAN_LESION, float(np.percentile(widths, 10)) / _SMALL_LESION)
    extent = float(np.median((shapes * spacings)[:, :axes].max(1)))
    own = float(np.median(spacings[:, :axes].min(1)))
    wanted = max(own, min(wanted, extent / _LEAST_EDGE[planar]))
    whole = max(1, round(wanted / own)) * own  # whole voxels of the usual image need no interpolation
    return (whole, whole, own if planar else whole)


def _mammograms(cases: Sequence[tuple[Case, Places]]) -> bool:
    """Whether most images look like mammograms."""
    images = [image for case, places in cases for image in case.images if image.id in places]
    step = max(1, len(images) // _MAMMOGRAMS_ASKED)
    asked = [image for image in images[::step] if image.modality in ("MG", "")][:_MAMMOGRAMS_ASKED]
    found = []
    for image in asked:
        try:
            found.append(looks_like_mammogram(image.read()[0, ..., 0]))
        except UnusableInput:
            continue
    return bool(found) and float(np.mean(found)) >= 0.6
