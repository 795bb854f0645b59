"""One fit's study: what was asked for, the prepared cases, and who learns from which of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.grid import Array
from vesalius.core.progress import Progress
from vesalius.imaging.augmentation import AugmentationSettings
from vesalius.imaging.prepare import Preparation
from vesalius.learning.data import Patches, PreparedCase, prepare_cases
from vesalius.learning.fingerprint import Fingerprint, fingerprint, preparation_for
from vesalius.learning.loop import Schedule, sizes_with_margin
from vesalius.learning.plan import Plan, patch_limit
from vesalius.learning.validate import dice_per_class
from vesalius.networks.unet import OfVolumes, ResidualUNet

NetworkMaker = Callable[[int, int, int], nn.Module]
Parts = list[tuple[list[PreparedCase], list[PreparedCase]]]

_INNER_SHARE, _INNER_MOST = 0.05, 8  # patients that one network leaves out to be looked at afterwards
_INNER_FROM = 20  # with fewer patients none is left out
_PATCHES_PER_VOLUME = 200  # the median volume is made coarser until it has no more voxels than this many


@dataclass(frozen=True)
class FitSettings:
    """What `fit_segmentation` is asked for.

    Args:
        minutes: budget from the call to its return.
        seed: every random choice follows from it.
        folds: 1 for one network; 2 or more for an ensemble, each without one fold. A stored plan says itself.
        resume: go on from what an interrupted call left in `work`.
        device: "cpu" or "cuda"; CUDA where there is one if left out.
        plan: a stored plan (`Plan.as_json`), run again step for step whatever time it takes.
        inputs: role of each input, in order.
        network: a network of the user's own: `network(channels, classes, dimensions)` gives a module from
            (n, channels, *sizes) to logits (n, classes, *sizes), for sizes that are multiples of 8.
        augmentation: how patches are changed; the plan's own if left out.
        threads: processor threads; measured if left out.
        only: train only these networks of the folds and export nothing, so that several processes can share
            an ensemble; `ensemble.export_ensemble` then puts their work together.
        weights: a file of a pretrained backbone whose features classification may take; see `classify_weights`.
        weights_licence: of that file, for the card.
        shipped_weights: whether classification and detection of planes may start from the shipped EfficientNet-Lite0.
        hide_marks: whether classification hides what devices burned into planes; see `imaging.marks`.
    """

    minutes: float
    seed: int = 0
    folds: int = 1
    resume: bool = False
    device: str | None = None
    plan: Mapping[str, Any] | None = None
    inputs: tuple[str, ...] = ("image",)
    network: NetworkMaker | None = None
    augmentation: AugmentationSettings | None = None
    threads: int | None = None
    only: tuple[int, ...] | None = None
    weights: Path | None = None
    weights_licence: str = ""
    shipped_weights: bool = True
    hide_marks: bool = False


@dataclass(frozen=True)
class Study:
    """What every part of one fit needs."""

    cases: Sequence[PreparedCase]
    preparation: Preparation
    classes: Mapping[int, int]
    ignore: int | None
    settings: FitSettings
    spacing: tuple[float, float, float]
    channels: int
    device: str
    work: Path
    progress: Progress

    def checkpoint(self, number: int) -> Path:
        """Where the loop keeps network `number`."""
        return self.work / f"network{number}.safetensors"

    def network(self, plan: Plan, number: int) -> nn.Module:
        """Fresh weights of network `number`, the same for the same seed."""
        torch.manual_seed(self.settings.seed * 1009 + number)
        dims, classes = (2 if plan.planar else 3), len(self.classes) + 1
        shape = plan.shape
        if self.settings.network is not None:
            net = self.settings.network(self.channels, classes, dims)
        elif shape is not None:
            net = ResidualUNet(self.channels, classes, shape, dims)
        else:
            raise UsageError("The stored plan is for a network of one's own.", remedy="Give that network again.")
        return OfVolumes(net) if plan.planar else net

    def schedule(self, plan: Plan, number: int) -> Schedule:
        """What the loop does for network `number`."""
        turns = plan.turns[number] if number < len(plan.turns) else ()
        return Schedule(
            steps=plan.steps, rate=plan.rate, weight_decay=plan.weight_decay, warm_up=plan.warm_up,
            size=plan.patch, spacing=self.spacing, classes=len(self.classes) + 1, bfloat16=plan.bfloat16,
            channels_last=plan.channels_last, device=plan.device, seed=self.settings.seed * 1009 + number,
            augmentation=plan.augmentation, turns=turns,
        )  # fmt: skip

    def patches(self, plan: Plan, number: int, cases: Sequence[PreparedCase]) -> Patches:
        """Where the batches of network `number` come from."""
        return Patches(
            cases, sizes_with_margin(plan.patch, plan.augmentation), plan.batch,
            self.settings.seed * 1009 + number, self.classes, self.ignore, plan.foreground,
        )  # fmt: skip

    def dice(self, plan: Plan, network: nn.Module, cases: Sequence[PreparedCase]) -> Array:
        """Dice (cases, classes) as the bedside would have it."""
        axes = plan.augmentation.mirror_axes
        return dice_per_class(network, cases, self.classes, self.ignore, plan.patch, axes, plan.device)


def study_of(
    cohort: Cohort, train_cases: Sequence[Case], settings: FitSettings, work: Path, progress: Progress
) -> tuple[Study, Fingerprint, Parts]:
    """Look at the cohort, prepare its cases and divide them among the networks."""
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if settings.folds < 1:
        raise UsageError("The number of folds is 1 or more.")
    if not cohort.labels:
        raise UsageError("The cohort has no named classes.", remedy="Run label with --names.")
    found = fingerprint(cohort, train_cases, settings.inputs)
    progress.say(found.sentence())
    voxels = patch_limit(found, device) * _PATCHES_PER_VOLUME
    preparation = preparation_for(found, settings.inputs, voxels)
    cases, left_out = prepare_cases(cohort, train_cases, preparation, progress)
    for sentence in left_out:
        progress.say(sentence)
    if not cases:
        raise UsageError("No training case can be used.", remedy="See the reasons above.")
    classes = {label.value: number for number, label in enumerate(cohort.labels, 1)}
    spacing = preparation.spacing or found.spacing
    study = Study(
        cases, preparation, classes, cohort.ignore, settings, spacing, cases[0].channels, device, work, progress
    )
    return study, found, divided(cases, settings)


def divided(cases: Sequence[PreparedCase], settings: FitSettings) -> Parts:
    """For each network the cases it learns from and those it is looked at on; patients are never shared."""
    groups = groups_of([case.patient for case in cases], settings.folds, settings.seed)
    return [
        ([c for c in cases if c.patient not in group], [c for c in cases if c.patient in group]) for group in groups
    ]


def groups_of(patients: Sequence[str], folds: int, seed: int) -> list[set[str]]:
    """The patients that each network does not learn from: folds, or a few for one network of many patients.

    Raises:
        UsageError: there are fewer patients than folds.
    """
    known = sorted(set(patients))
    order = [known[n] for n in np.random.default_rng(seed).permutation(len(known))]
    if folds == 1:
        few = 0 if len(order) < _INNER_FROM else max(1, min(_INNER_MOST, int(_INNER_SHARE * len(order))))
        return [set(order[:few])]
    if len(order) < folds:
        raise UsageError(f"{folds} folds need as many patients; there are {len(order)}.", remedy="Ask for fewer.")
    return [set(order[number::folds]) for number in range(folds)]
