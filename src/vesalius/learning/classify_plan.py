"""What classification will train and how: from the look of the images, and from seconds per step measured here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from vesalius.core.errors import UsageError
from vesalius.imaging.whole import Triple
from vesalius.learning.classify_changes import ChangeSettings
from vesalius.learning.classify_data import Look, preparation_for

Measure = Callable[["ClassifyPlan"], float | None]  # seconds per step of one network while all are trained

RESIDUAL, EFFICIENTNET = "residual", "efficientnet-lite0"

_FORMAT = 1
_NATIVE = {2: 40, 3: 32}  # images up to this long are taken as they are
_LONGEST = {2: (224, 192, 160, 128, 96, 64, 48), 3: (96, 80, 64, 48, 40, 32)}
_WIDTHS = (32, 24, 16)
_LONGEST_PRETRAINED = (224, 192, 160, 128, 112, 96, 64)
_ENLARGED = 4.0  # times that images are enlarged for a network that has seen photographs, at most
# Passes over the images that one network should see; a size or width is taken if it gets them. In 240 seconds
# on 500 ultrasound images, 96 pixels and width 32 (85 passes, AUROC 0.927) beat 128 and 24 (0.903).
_ENOUGH_PASSES = 90.0
_ENOUGH_VISITS, _MOST_PASSES = 80_000, 25.0  # thousands of images need fewer passes
# A pretrained network needs fewer. On 513 ultrasound images of 224 pixels and 240 seconds of one processor (21 passes),
# AUROC was 0.965 and 0.948 in two of five folds, against 0.927 in the first with the residual network of 96.
_PASSES_PRETRAINED, _VISITS_PRETRAINED, _PASSES_OF_MANY = 12.0, 30_000, 5.0
_LEAST_PASSES = 3.0  # with fewer, a smaller network learns more from scratch
_SMALL = 48  # voxels; images up to this long are changed gently
_FOLDS, _FOLDS_OF_MANY, _MANY = 5, 3, 3000


@dataclass(frozen=True)
class ClassifyPlan:
    """Everything that decides the weights beside the data and the seed.

    Args:
        size: (i, j, k) of the frame that images are brought to.
        longest: voxels along its longest axis, from which `size` was made.
        network: "residual", from scratch (`networks.classifier`), or "efficientnet-lite0", from weights that have
            seen photographs (`networks.efficientnet`).
        width, blocks, norm: of the residual networks.
        folds: as many networks, each without one part of the patients; 1 where there are too few patients.
        batch, steps, rate, weight_decay, warm_up, smooth: of AdamW, its cosine, and the truth's smoothing.
        bfloat16, channels_last, threads: how it is computed; threads of each network.
        changes: how images are changed.
        device: "cpu" or "cuda".
        turns: for each network where the clock changed its number of steps: (step, steps).
        seconds_per_step: of one network while all are trained side by side.
        measured: sentences on the candidates.
        backbone_longest: pixels of the longer side that a pretrained backbone looks at; 0 where there is none.
        shipped_features: whether frozen features of the shipped network are tried too.
    """

    size: Triple
    longest: int
    network: str
    width: int
    blocks: int
    norm: str
    folds: int
    batch: int
    steps: int
    rate: float
    weight_decay: float
    warm_up: float
    smooth: float
    bfloat16: bool
    channels_last: bool
    threads: int
    changes: ChangeSettings
    device: str
    turns: tuple[tuple[tuple[int, int], ...], ...] = ()
    seconds_per_step: float = 0.0
    measured: tuple[str, ...] = ()
    backbone_longest: int = 0
    shipped_features: bool = False

    @property
    def planar(self) -> bool:
        """Whether the images have one slice."""
        return self.size[2] == 1

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs, with the plan in words."""
        values = asdict(self)
        if not self.backbone_longest:
            del values["backbone_longest"]
        return {"format": _FORMAT, "task": "classification", **values, "sentences": list(self.sentences())}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassifyPlan:
        """The plan that `as_json` described.

        Raises:
            UsageError: it is of another version or task, or incomplete.
        """
        remedy = "Fit without --plan."
        if data.get("format") != _FORMAT or data.get("task") != "classification":
            raise UsageError("The stored plan is not one of classification that this program knows.", remedy=remedy)
        try:
            whole = {"backbone_longest": 0, "network": RESIDUAL, "shipped_features": False, **data}
            values = {field.name: whole[field.name] for field in fields(cls)}
            changes = dict(values["changes"])
            changes["mirror_axes"] = tuple(changes["mirror_axes"])
            values["changes"] = ChangeSettings(**changes)
            values["size"] = tuple(values["size"])
            values["turns"] = tuple(tuple((at, to) for at, to in turns) for turns in values["turns"])
            values["measured"] = tuple(values["measured"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("The stored plan cannot be read.", remedy=remedy) from error

    def sentences(self) -> Iterator[str]:
        """The plan in plain words."""
        size = " × ".join(str(n) for n in (self.size[:2] if self.planar else self.size))
        what = f"{self.folds} networks, each without one part of the patients" if self.folds > 1 else "one network"
        kind = f"residual, {self.width} channels wide at first"
        if self.network == EFFICIENTNET:
            kind = "EfficientNet-Lite0, which has learned from photographs,"
        yield f"Train {what}: {kind} on images of {size} voxels."
        yield f"{self.steps} steps of {self.batch} images, rate up to {self.rate:g} and falling to 0 along a cosine."
        precision = "bfloat16 with float32 weights" if self.bfloat16 else "float32"
        order = "channels last" if self.channels_last else "channels first"
        yield f"Computed in {precision}, {order}, {self.threads} threads for each network, all side by side."
        if self.changes.mirror_axes:
            axes = ", ".join("ijk"[axis] for axis in self.changes.mirror_axes)
            yield f"Images are also mirrored along {axes}, in training and in prediction."
        else:
            yield "Images are not mirrored: the class may depend on the side."


def folds_for(groups_of_class: Sequence[int], asked: int, images: int) -> int:
    """How many folds there can be: 1 where a class has fewer than two groups of patients.

    Args:
        groups_of_class: groups that have each class.
        asked: what the user asked for; 1 leaves it to the plan.
        images: to learn from.
    """
    wanted = asked if asked > 1 else (_FOLDS if images <= _MANY else _FOLDS_OF_MANY)
    most = min(groups_of_class)
    return min(wanted, most) if most >= 2 else 1


def first_plan(
    found: Look, folds: int, images: int, device: str, threads: int, network: str = RESIDUAL
) -> ClassifyPlan:
    """The plan before anything is measured: the smallest frame and the plain way of computing."""
    dims = 2 if found.planar else 3
    longest = _lengths(found, dims, network)[-1]
    most, rate = (16, 3e-4) if network == EFFICIENTNET else (32, 2e-3)
    return ClassifyPlan(
        size=preparation_for(found, (), longest).size, longest=longest, network=network, width=_WIDTHS[-1], blocks=2,
        norm="batch", folds=folds, batch=int(min(most, max(4, images // 4))), steps=1000, rate=rate, weight_decay=0.05,
        warm_up=0.1, smooth=0.05, bfloat16=device == "cpu", channels_last=dims == 2,
        threads=max(1, threads // max(1, folds)), changes=changes_for(found, longest), device=device,
    )  # fmt: skip


def changes_for(found: Look, longest: int) -> ChangeSettings:
    """How strongly images are changed: small ones little, because warping blurs what they have.

    On 624 ultrasound images of 28 pixels, two folds, 100 seconds each: gentle changes AUROC 0.891, with mixing
    0.897, strong ones with mixing 0.859. On 512 of 96 pixels, one fold: strong ones with mixing 0.927, without it
    0.910, gentle ones without it 0.909.
    """
    colour = found.channels == 3
    changes = ChangeSettings(
        rotation=20.0 if colour else 10.0, speckle=0.2 if found.modality in ("US", "IVUS", "") and not colour else 0.0,
        colour=0.1 if colour else 0.0, mirror_axes=(), mix=0.1,
    )  # fmt: skip
    if longest <= _SMALL:
        return changes
    return replace(
        changes, rotation=changes.rotation + 3, scaling=0.18, shear=0.08, shift=0.08, intensity=0.25, erase=0.2, mix=0.2
    )


def mirror_candidates(found: Look, names: Sequence[str]) -> tuple[int, ...]:
    """Axes along which it is worth asking whether images may be mirrored.

    None where a class names a side. Grey planes are asked left to right only: up and down mean something in
    projections and under a transducer. Photographs and volumes are asked along every axis; volumes that know
    their place in the patient only from left to right.
    """
    if any(word in name.lower() for name in names for word in ("left", "right")):
        return ()
    if found.planar:
        return (0, 1) if found.channels == 3 else (0,)
    return (0,) if found.placed else (0, 1, 2)


def _lengths(found: Look, dims: int, network: str) -> list[int]:
    """Candidates for the longest side of the frame, largest first."""
    native = max(found.shape[:dims])
    if network == EFFICIENTNET:
        return [n for n in _LONGEST_PRETRAINED if n <= native * _ENLARGED] or [_LONGEST_PRETRAINED[-1]]
    if native <= _NATIVE[dims]:
        return [max(native, 12)]
    return [n for n in _LONGEST[dims] if n <= native * 1.1] or [_LONGEST[dims][-1]]


def fitted_to(plan: ClassifyPlan, found: Look, images: int, seconds: float, measure: Measure) -> ClassifyPlan:
    """The largest frame and the widest network that still see the images often enough in their time.

    Args:
        plan: as `first_plan` left it.
        found: the look of the images.
        images: that each network learns from.
        seconds: left for training.
        measure: seconds per step while all networks train side by side, None when measuring must end.
    """
    dims, said = (2 if found.planar else 3), list(plan.measured)
    for precise in (not plan.bfloat16, True):
        other = replace(plan, bfloat16=not precise)
        spent = measure(other)
        if spent is None:
            break
        said.append(f"{'bfloat16' if other.bfloat16 else 'float32'}: {1000 * spent:.0f} ms a step.")
        if not plan.seconds_per_step or spent < 0.97 * plan.seconds_per_step:
            plan = replace(other, seconds_per_step=spent)
    needed = min(_ENOUGH_PASSES * images, max(_ENOUGH_VISITS, _MOST_PASSES * images))
    if plan.network == EFFICIENTNET:
        needed = min(_PASSES_PRETRAINED * images, max(_VISITS_PRETRAINED, _PASSES_OF_MANY * images))
    known: dict[tuple[int, int], float] = {(plan.longest, plan.width): plan.seconds_per_step or 1.0}
    best = plan
    for longest in reversed(_lengths(found, dims, plan.network)):
        for width in _widths(plan, longest):
            other = replace(
                plan, longest=longest, width=width, size=preparation_for(found, (), longest).size,
                changes=changes_for(found, longest),
            )  # fmt: skip
            if seconds / _guess(known, best, other) * plan.batch < needed:
                continue
            measured = known.get((longest, width)) or measure(other)
            if measured is None:
                break
            known[(longest, width)] = measured
            said.append(f"{longest} voxels, width {width}: {1000 * measured:.0f} ms a step.")
            if seconds / measured * plan.batch >= needed:
                best = replace(other, seconds_per_step=measured)
    steps = max(20, int(seconds / max(best.seconds_per_step, 1e-6)))
    return replace(best, steps=steps, measured=tuple(said))


def _widths(plan: ClassifyPlan, longest: int) -> Sequence[int]:
    """Candidates for the width, narrowest first."""
    if plan.network == EFFICIENTNET:
        return (plan.width,)
    # Narrow networks are for the smallest frame only: a larger one does not pay before the full width does.
    return _WIDTHS[::-1] if longest == plan.longest else _WIDTHS[:1]


def learns_enough(plan: ClassifyPlan, images: int) -> bool:
    """Whether a pretrained network sees each of so many images often enough to be better than one from scratch."""
    return plan.steps * plan.batch >= _LEAST_PASSES * images


def _guess(known: Mapping[tuple[int, int], float], plan: ClassifyPlan, other: ClassifyPlan) -> float:
    """At least how long a step takes, from the nearest one that was measured."""
    base = known[(plan.longest, plan.width)]
    voxels = math.prod(other.size) / math.prod(plan.size)
    return base * max(1.0, 0.7 * voxels * (other.width / plan.width))
