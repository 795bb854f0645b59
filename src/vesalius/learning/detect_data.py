"""Views with their lesions, and batches of patches with the heat that a detector is to give.

Patches are balanced: a share of them holds a lesion, drawn lesion by lesion; the rest lies anywhere in the
body of any image. After part of the training some of those lie on the network's own false alarms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.finding import Box
from vesalius.core.grid import Array
from vesalius.core.image import Image
from vesalius.core.progress import Progress
from vesalius.imaging.augmentation import AugmentationSettings, draw
from vesalius.imaging.contrast import View, ViewRecipe, view
from vesalius.learning.data import HELD_BYTES, open_array, read_patch, store_array
from vesalius.learning.loop import sizes_with_margin
from vesalius.store.sealed import seal_in

HEAT_WIDTH = 0.5  # sigma of a lesion's heat as a share of its half size
_LEAST_SIGMA = 1.0  # voxels of the view
_WITH_LESION = 0.6  # share of the patches that hold a lesion
_HARD = 0.5  # share of the other patches that lie on a false alarm, once there are some
_PLACES = 512  # remembered places in the body of each image


@dataclass(frozen=True, eq=False)
class LookedOver:
    """One image that was looked over, as a view.

    Args:
        case, patient, image: ids.
        role: of the image.
        seen: the view; its array (depth, i, j, k) is float16, in memory or memory-mapped.
        classes: (n,) class of each lesion, from 0.
        centres, sizes: (n, 3) of the lesions, voxels of the view.
        inside: (m, 3) places in the body.
    """

    case: str
    patient: str
    image: str
    role: str
    seen: View
    classes: Array
    centres: Array
    sizes: Array
    inside: Array

    @property
    def array(self) -> Any:
        """The view's array."""
        return self.seen.array

    @property
    def shape(self) -> tuple[int, int, int]:
        """(i, j, k) of the view."""
        i, j, k = self.seen.array.shape[1:]
        return i, j, k


Places = dict[str, list[tuple[int, Box]]]


def look_over(
    cohort: Cohort, cases: Sequence[tuple[Case, Places]], recipe: ViewRecipe, progress: Progress
) -> tuple[list[LookedOver], list[str]]:
    """Make the views of all images that were looked over.

    Args:
        cohort: for its cache folder and digest.
        cases: each with its lesions by image (class, box in the image's index space).
        recipe: of the views.
        progress: shows how far it is.

    Returns:
        The usable views, and a sentence for each image that is left out.
    """
    key = json.dumps([2, cohort.digest, recipe.as_json()], sort_keys=True)
    folder = cohort.folder / "cache" / f"views-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    work = [(case, image, places[image.id]) for case, places in cases for image in case.images if image.id in places]
    voxels, seal = 0, seal_in(cohort.folder, cohort.meta)
    found, left_out = [], []
    for case, image, lesions in progress.track(work, "preparing images", total=len(work)):
        try:
            seen = view(image, recipe)
        except UnusableInput as error:
            left_out.append(f"An image of case {case.id} is left out: {error.what}")
            continue
        array: Any = seen.array.astype(np.float16)
        voxels += 2 * array.size
        if voxels > HELD_BYTES:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{hashlib.sha256(image.id.encode()).hexdigest()[:16]}.b2nd"
            store_array(path, array, seal)
            array = open_array(path, seal)
        found.append(_looked_over(case, image, seen, array, lesions))
    return found, left_out


def _looked_over(case: Case, image: Image, seen: View, array: Any, lesions: Sequence[tuple[int, Box]]) -> LookedOver:
    boxes = [seen.to_view(box.centre, box.size) for _, box in lesions]
    body = np.flatnonzero(seen.array[-1] > 0.25)
    body = body if len(body) else np.arange(seen.array[-1].size)
    body = body[np.linspace(0, len(body) - 1, min(_PLACES, len(body))).astype(int)]
    return LookedOver(
        case.id, case.patient, image.id, image.role, replace(seen, array=array),
        np.array([number for number, _ in lesions], int),
        np.array([centre for centre, _ in boxes]).reshape(-1, 3),
        np.array([size for _, size in boxes]).reshape(-1, 3),
        np.stack(np.unravel_index(body, seen.array.shape[1:]), 1),
    )  # fmt: skip


class LesionPatches:
    """Draws batches of patches; a batch depends on the seed, its number and the false alarms known.

    Args:
        images: to draw from.
        size: (i, j, k) of the patches.
        batch: patches per batch.
        classes: number of classes.
        seed: of every draw.
        augmentation: how patches are changed.
        fixed: last channels of a view that are no intensities.
    """

    def __init__(
        self,
        images: Sequence[LookedOver],
        size: Sequence[int],
        batch: int,
        classes: int,
        seed: int,
        augmentation: AugmentationSettings,
        fixed: int = 3,
    ) -> None:
        self.images, self.batch, self.classes, self.seed = tuple(images), batch, classes, seed
        self.size, self.augmentation, self.fixed = tuple(size), augmentation, fixed
        self.alarms: list[tuple[int, Array]] = []  # image number and place of false alarms
        self._margin = sizes_with_margin((self.size[0], self.size[1], self.size[2]), augmentation)
        self._lesions = [(n, m) for n, image in enumerate(self.images) for m in range(len(image.classes))]

    def draw(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Batch `number`.

        Returns:
            Views (n, depth, *size); heat (n, classes, *size / 2) in 0..1; log sizes (n, 3, *size / 2) of the
            nearest lesion; and how much each place counts for the size (n, 1, *size / 2).
        """
        rng = np.random.default_rng([self.seed, number])
        own = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
        parts = [self._patch(rng) for _ in range(self.batch)]
        drawn = draw(self.augmentation, self.batch, self.size, (1.0, 1.0, 1.0), own)
        moved = drawn.carry(torch.from_numpy(np.stack(parts)), self.size)
        depth = self.images[0].array.shape[0]
        seen, target = moved[:, :depth], moved[:, depth:]
        coloured = drawn.recolour(seen[:, : depth - self.fixed])
        seen = torch.cat([coloured, seen[:, depth - self.fixed :]], 1)
        stride = tuple(1 if n == 1 else 2 for n in self.size)
        heat = F.max_pool3d(target[:, : self.classes], stride, stride)
        length = drawn.matrix.norm(dim=1).log().view(-1, 3, 1, 1, 1)  # input voxels per output voxel
        size = F.avg_pool3d(target[:, self.classes :], stride, stride) - length
        return seen, heat, size, heat.amax(1, keepdim=True)

    def _patch(self, rng: np.random.Generator) -> Array:
        """(depth + classes + 3, *margin) float32: the view, its heat and log sizes."""
        chosen, centre = self._choose(rng)
        image = self.images[chosen]
        start = [
            -((extent - length) // 2) if length <= extent and extent - length > 8
            else round(float(place)) - extent // 2
            for length, extent, place in zip(image.shape, self._margin, centre, strict=True)
        ]  # fmt: skip
        start[2] = 0 if image.shape[2] == 1 else start[2]
        seen = read_patch(image.array, start, self._margin).astype(np.float32)
        heat, size = target_of(image, start, self._margin, self.classes)
        return np.concatenate([seen, heat, size])

    def _choose(self, rng: np.random.Generator) -> tuple[int, Array]:
        """An image and the place that its patch is centred on."""
        if self._lesions and rng.random() < _WITH_LESION:
            chosen, lesion = self._lesions[int(rng.integers(len(self._lesions)))]
            reach = np.array(self.size) * 0.3
            return chosen, self.images[chosen].centres[lesion] + rng.uniform(-reach, reach)
        if self.alarms and rng.random() < _HARD:
            chosen, place = self.alarms[int(rng.integers(len(self.alarms)))]
            return chosen, place + rng.uniform(-0.2, 0.2, 3) * self.size
        chosen = int(rng.integers(len(self.images)))
        inside = self.images[chosen].inside
        return chosen, inside[int(rng.integers(len(inside)))]


def target_of(image: LookedOver, start: Sequence[int], size: Sequence[int], classes: int) -> tuple[Array, Array]:
    """Heat (classes, *size) in 0..1 and log sizes (3, *size) of the nearest lesion in part of a view."""
    heat = np.zeros((classes, *size), np.float32)
    lengths = np.zeros((3, *size), np.float32)
    nearest = np.full(tuple(size), np.inf, np.float32)
    for number, centre, extent in zip(image.classes, image.centres, image.sizes, strict=True):
        sigma = np.maximum(0.5 * HEAT_WIDTH * extent, _LEAST_SIGMA)
        axes = [
            ((np.arange(first, first + n) - place) / wide) ** 2
            for first, n, place, wide in zip(start, size, centre, sigma, strict=True)
        ]
        away = (axes[0][:, None, None] + axes[1][:, None] + axes[2]).astype(np.float32)
        heat[number] = np.maximum(heat[number], np.exp(-0.5 * away))
        closer = away < nearest
        nearest[closer] = away[closer]
        for axis in range(3):
            lengths[axis][closer] = np.log(max(float(extent[axis]), 1.0))
    return heat, lengths
