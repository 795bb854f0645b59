"""What will be trained and how: made from the fingerprint, and from seconds per step measured here.

Nothing about speed is guessed. A few steps of each candidate are run on the real data; the way of computing
(precision, memory format, threads) that measured fastest is taken, then the largest network that still gets
enough steps in the time there is. The plan says itself in plain words and stands in the card; a stored plan
is run again without measuring, step for step.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from vesalius.core.cohort import Label
from vesalius.core.errors import UsageError
from vesalius.imaging.augmentation import AugmentationSettings
from vesalius.learning.data import PreparedCase
from vesalius.learning.fingerprint import Fingerprint
from vesalius.networks.unet import UNetShape, unet_shape

Size = tuple[int, int, int]
Measure = Callable[["Plan", float], list[float] | None]  # a plan, and seconds a step that are hopeless

_PATCH_VOXELS = {"cpu": 96_000, "cuda": 112**3}
_PLANE_VOXELS = {"cpu": 192**2, "cuda": 512**2}
_WIDTHS = {"cpu": (48, 32, 16), "cuda": (64, 32)}  # tried from the largest
_ENOUGH_STEPS = {64: 3000, 48: 8000, 32: 500, 16: 0}  # a width is taken if it gets this many in its time
_FEW_STEPS = 500  # with fewer than this a step takes two patches
_ROUND = 8  # patches are multiples of this where the volume is large enough
_SIDED = ("left", "right")
_HOPELESS = 4.0  # a first step this many times slower than the best so far is not repeated
_FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """Everything that decides the weights beside the data and the seed.

    Args:
        patch: (i, j, k) voxels of the prepared grid.
        batch: patches per step.
        channels, strides: of the U-Net (`networks.unet.UNetShape`); both empty for a user's own network.
        planar: two-dimensional network.
        device: "cpu" or "cuda".
        bfloat16, channels_last, threads: how it is computed.
        folds: 1 for one network, else as many networks, each without one part of the patients.
        steps: of each network.
        rate, weight_decay, warm_up: of AdamW and the cosine.
        augmentation: how patches are changed.
        foreground: share of patches centred on a labelled voxel.
        turns: for each network where the clock changed its number of steps: (step, steps).
        seconds_per_step: as measured before training; says nothing when a plan is run elsewhere.
        measured: sentences on the candidates.
    """

    patch: Size
    batch: int
    channels: tuple[int, ...]
    strides: tuple[Size, ...]
    planar: bool
    device: str
    bfloat16: bool
    channels_last: bool
    threads: int
    folds: int
    steps: int
    rate: float
    weight_decay: float
    warm_up: float
    augmentation: AugmentationSettings
    foreground: float
    turns: tuple[tuple[tuple[int, int], ...], ...] = ()
    seconds_per_step: float = 0.0
    measured: tuple[str, ...] = ()

    @property
    def shape(self) -> UNetShape | None:
        """The U-Net's shape; None for a user's own network."""
        return UNetShape(self.channels, self.strides) if self.channels else None

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs, with the plan in words."""
        return {"format": _FORMAT, **asdict(self), "sentences": list(self.sentences())}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The plan that `as_json` described.

        Raises:
            UsageError: it is of another version, or incomplete.
        """
        remedy = "Fit without --plan."
        if data.get("format") != _FORMAT:
            raise UsageError("The stored plan is of a version that this program does not know.", remedy=remedy)
        try:
            values = {field.name: data[field.name] for field in fields(cls)}
            known = {field.name for field in fields(AugmentationSettings)}
            changes = {name: value for name, value in values["augmentation"].items() if name in known}
            changes["mirror_axes"] = tuple(changes["mirror_axes"])
            values["augmentation"] = AugmentationSettings(**changes)
            values["patch"] = tuple(values["patch"])
            values["channels"] = tuple(values["channels"])
            values["strides"] = tuple(tuple(stride) for stride in values["strides"])
            values["turns"] = tuple(tuple((at, to) for at, to in turns) for turns in values["turns"])
            values["measured"] = tuple(values["measured"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError("The stored plan cannot be read.", remedy=remedy) from error

    def sentences(self) -> Iterator[str]:
        """The plan in plain words."""
        size = " × ".join(str(n) for n in (self.patch[:2] if self.planar else self.patch))
        what = "networks, each without one part of the patients" if self.folds > 1 else "network"
        widths = "-".join(map(str, self.channels))
        kind = f"a residual U-Net of {widths} channels" if self.channels else "the network that was given"
        yield f"Train {self.folds} {what}: {kind}, {'2D' if self.planar else '3D'}."
        yield f"Each step sees {self.batch} patches of {size} voxels; {self.foreground:.0%} hold a labelled voxel."
        yield f"{self.steps} steps of AdamW, rate rising to {self.rate:g} and falling to 0 along a cosine."
        precision = "bfloat16 with float32 weights" if self.bfloat16 else "float32"
        order = "channels last" if self.channels_last else "channels first"
        where = f"{self.threads} threads" if self.device == "cpu" else "the GPU"
        yield f"Computed in {precision}, {order}, on {where}."
        if self.augmentation.mirror_axes:
            axes = ", ".join("ijk"[axis] for axis in self.augmentation.mirror_axes)
            yield f"Patches are also mirrored along {axes}, in training and in prediction."


def first_plan(
    found: Fingerprint, labels: Sequence[Label], spacing: Sequence[float], device: str, folds: int, threads: int
) -> Plan:
    """The plan before anything is measured: patch, mirroring and the plain way of computing."""
    size = [max(1, round(n * own / to)) for n, own, to in zip(found.shape, found.spacing, spacing, strict=True)]
    patch = patch_size(size, spacing, patch_limit(found, device))
    sided = any(side in label.name.lower() for label in labels for side in _SIDED)
    plan = Plan(
        patch=patch, batch=4 if device == "cpu" else 8, channels=(), strides=(), planar=found.planar,
        device=device, bfloat16=device == "cuda", channels_last=False, threads=threads, folds=folds, steps=1000,
        rate=2e-3, weight_decay=1e-2, warm_up=0.03, foreground=0.5,
        augmentation=AugmentationSettings(mirror_axes=() if sided else (0,)),
    )  # fmt: skip
    return of_width(plan, spacing, 32)


def patch_size(size: Sequence[int], spacing: Sequence[float], limit: int) -> Size:
    """A patch that covers `size` where it has at most `limit` voxels, else is shortened along its longest.

    Lengths are rounded up to a multiple of what the network halves them by.
    """

    def rounded(lengths: Sequence[int]) -> list[int]:
        units = unet_shape(lengths, spacing).multiple
        return [-(-n // unit) * unit for n, unit in zip(lengths, units, strict=True)]

    lengths = rounded([n if n < 2 * _ROUND else -(-n // _ROUND) * _ROUND for n in size])
    while math.prod(lengths) > limit:
        longest = max(range(3), key=lambda axis: lengths[axis] * spacing[axis] if lengths[axis] > _ROUND else 0)
        if lengths[longest] <= _ROUND:
            break
        lengths[longest] = -(-lengths[longest] // _ROUND) * _ROUND - _ROUND
    i, j, k = rounded(lengths)
    return i, j, k


def of_width(plan: Plan, spacing: Sequence[float], width: int) -> Plan:
    """The plan with a U-Net whose first level has `width` channels."""
    shape = unet_shape(plan.patch, spacing, width, levels=4 if plan.device == "cpu" else 5)
    return replace(plan, channels=shape.channels, strides=shape.strides)


def ways_of_computing(plan: Plan, threads_too: bool) -> list[dict[str, Any]]:
    """Changes to try one after another; each is kept where it measures faster."""
    if plan.device != "cpu":
        return [{"channels_last": True}]
    more: list[int] = []
    while threads_too and (more[-1] if more else 1) < plan.threads:
        more.append(min(2 * (more[-1] if more else 1), plan.threads))
    return [{"bfloat16": True}, {"channels_last": True}, *({"threads": threads} for threads in more)]


def fastest(plan: Plan, measure: Measure, *, threads_too: bool = True) -> Plan:
    """The plan with the way of computing that measured fastest.

    Args:
        plan: where to start.
        measure: seconds of a few steps of a plan, of one where a step is hopelessly slow, or None when the
            time for measuring is over.
        threads_too: whether fewer threads may be tried, from one upwards; they win where other work keeps
            processors busy.
    """
    ways = ways_of_computing(plan, threads_too)
    plan = replace(plan, threads=1) if threads_too and plan.device == "cpu" else plan
    best, said = math.inf, []
    for way in ({}, *ways):
        other = replace(plan, **way)
        spent = measure(other, _HOPELESS * best)
        if spent is None:
            break
        seconds = statistics.median(spent)
        said.append(f"{_way(other)}: {seconds:.3f} s a step.")
        if seconds < 0.97 * best:
            plan, best = other, seconds
    return replace(plan, seconds_per_step=best if math.isfinite(best) else 1.0, measured=tuple(said))


def fitted_to(plan: Plan, spacing: Sequence[float], seconds_each: Callable[[], float], measure: Measure) -> Plan:
    """The widest network that gets enough steps, with the number of steps that fits.

    Args:
        plan: as `fastest` left it.
        spacing: of the prepared grid.
        seconds_each: seconds left for the training of each network, asked after measuring.
        measure: as for `fastest`.
    """
    if not plan.channels:
        return with_steps(plan, seconds_each())
    known, said = {plan.channels: plan.seconds_per_step}, list(plan.measured)
    for width in _WIDTHS[plan.device]:
        other = of_width(plan, spacing, width)
        guess = plan.seconds_per_step * (other.channels[1] / plan.channels[1])  # at least this
        if other.channels not in known and seconds_each() / guess >= _ENOUGH_STEPS[width]:
            spent = measure(other, math.inf)
            if spent is not None:
                known[other.channels] = statistics.median(spent)
                said.append(f"width {width}: {known[other.channels]:.3f} s a step.")
        seconds = known.get(other.channels)
        if seconds is not None and seconds_each() / seconds >= _ENOUGH_STEPS[width]:
            other = replace(other, seconds_per_step=seconds, measured=tuple(said))
            return with_steps(other, seconds_each())
    return with_steps(replace(plan, measured=tuple(said)), seconds_each())


def with_steps(plan: Plan, seconds: float) -> Plan:
    """The plan with as many steps as fit into `seconds`, at least 20.

    Where these are few, patches are dealt out two at a time: more, smaller steps learn more in a short time.
    """
    steps = int(seconds / max(plan.seconds_per_step, 1e-6))
    if steps < _FEW_STEPS and plan.batch > 2:
        smaller = 2 / plan.batch
        plan = replace(plan, batch=2, seconds_per_step=plan.seconds_per_step * smaller)
        steps = int(steps / smaller)
    return replace(plan, steps=max(20, steps))


def _way(plan: Plan) -> str:
    parts = ["bfloat16" if plan.bfloat16 else "float32"]
    parts += ["channels last"] if plan.channels_last else []
    parts += [f"{plan.threads} threads"] if plan.device == "cpu" else []
    return ", ".join(parts)


def patch_limit(found: Fingerprint, device: str) -> int:
    """Most voxels of a patch on this kind of machine."""
    return (_PLANE_VOXELS if found.planar else _PATCH_VOXELS)[device]


def validation_seconds(plan: Plan, parts: Sequence[Sequence[PreparedCase]]) -> float:
    """Seconds that looking at the left-out cases will take, from the measured seconds per step.

    A window costs about half of a patch in training, for want of a backward pass, in float32.
    """
    windows = 0
    for case in (case for part in parts for case in part):
        along = [max(1, math.ceil(2 * n / p) - 1) for n, p in zip(case.shape, plan.patch, strict=True)]
        windows += math.prod(along)
    mirrored = 1 + len(plan.augmentation.mirror_axes)
    return windows * mirrored * 0.5 * plan.seconds_per_step / plan.batch
