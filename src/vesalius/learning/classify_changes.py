"""Random changes to whole images for classification: drawing them is apart from applying them.

Stronger than what segmentation takes (`imaging.augmentation`): a few hundred images are seen hundreds of
times each, and nothing but their class must survive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ChangeSettings:
    """How strongly to change images.

    Args:
        rotation: largest rotation about each axis, degrees.
        scaling: largest change of size, as a share; each axis adds a third of it of its own.
        shear: largest shear, as a share.
        shift: largest translation, as a share of the size.
        mirror_axes: axes (0, 1, 2 of i, j, k) that may be mirrored.
        turn: whether quarter turns in the plane may happen (photographs through a microscope or of skin).
        intensity: probability of each change of intensity.
        speckle: largest deviation of multiplicative noise (ultrasound).
        colour: largest change of each channel's gain, as a share.
        erase: probability that a box of up to half of each side is set to zero (DeVries and Taylor,
            arXiv:1708.04552).
        mix: alpha of mixup (Zhang et al., ICLR 2018); 0 for none.
    """

    rotation: float = 10.0
    scaling: float = 0.12
    shear: float = 0.05
    shift: float = 0.06
    mirror_axes: tuple[int, ...] = (0,)
    turn: bool = False
    intensity: float = 0.2
    speckle: float = 0.0
    colour: float = 0.0
    erase: float = 0.1
    mix: float = 0.0


@dataclass(frozen=True, eq=False)
class Changes:
    """Drawn arguments for n images; every field's first size is n.

    Args:
        matrix: (n, dims, dims + 1) for `affine_grid`, in torch's order of axes (the last one first).
        gain, gamma, offset: (n, channels), (n,), (n,); 1, 1 and 0 change nothing.
        noise, speckle: (n,) deviations; 0 changes nothing.
        coarse: (n,) factor by which resolution is lowered; 1 changes nothing.
        box: (n, dims, 2) bounds of the erased box as shares of the size; empty where they are equal.
        partner: (n,) with which other image each is mixed.
        share: (n,) of itself that each keeps; 1 where nothing is mixed.
        seed: of the noise.
    """

    matrix: Tensor
    gain: Tensor
    gamma: Tensor
    offset: Tensor
    noise: Tensor
    speckle: Tensor
    coarse: Tensor
    box: Tensor
    partner: Tensor
    share: Tensor
    seed: int

    def apply(self, image: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The changed batch.

        Args:
            image: (n, channels, *sizes) normalised intensities of mean 0 and deviation 1 or so.
            truth: (n, outputs) shares of each class.

        Returns:
            Image of the same shape and truth, mixed alike.
        """
        image = self.recolour(self.move(image))
        image = self._erased(image)
        if bool((self.share < 1).any()):
            column = self.share.view(-1, *[1] * (image.ndim - 1))
            image = column * image + (1 - column) * image[self.partner]
            truth = self.share[:, None] * truth + (1 - self.share[:, None]) * truth[self.partner]
        return image, truth

    def move(self, image: Tensor) -> Tensor:
        """Turned, scaled and shifted; beyond the border the image is reflected."""
        grid = F.affine_grid(self.matrix, list(image.shape), align_corners=False)
        return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)

    def recolour(self, image: Tensor) -> Tensor:
        """Changed intensities."""
        column = (-1, *[1] * (image.ndim - 1))
        for n in torch.nonzero(self.coarse > 1).flatten().tolist():
            mode = "bilinear" if image.ndim == 4 else "trilinear"
            small = [max(2, round(size / float(self.coarse[n]))) for size in image.shape[2:]]
            low = F.interpolate(image[n : n + 1], small, mode=mode, align_corners=False, antialias=image.ndim == 4)
            image[n] = F.interpolate(low, image.shape[2:], mode=mode, align_corners=False)[0]
        if bool((self.gamma != 1).any()):
            places = tuple(range(1, image.ndim))
            low, high = image.amin(places, keepdim=True), image.amax(places, keepdim=True)
            span = (high - low).clamp_min(1e-6)
            image = ((image - low) / span).clamp_min(1e-4).pow(self.gamma.view(column)) * span + low
        image = image * self.gain.view(*self.gain.shape, *[1] * (image.ndim - 2)) + self.offset.view(column)
        own = torch.Generator().manual_seed(self.seed)
        if bool((self.speckle > 0).any()):
            grain = torch.randn(image.shape, generator=own) * self.speckle.view(column)
            image = image + grain * (image + 2.0).clamp_min(0)  # 2 deviations below the mean is about black
        if bool((self.noise > 0).any()):
            image = image + torch.randn(image.shape, generator=own) * self.noise.view(column)
        return image

    def _erased(self, image: Tensor) -> Tensor:
        kept = torch.ones(len(image), 1, *image.shape[2:])
        sizes = torch.tensor(image.shape[2:])
        bounds = (self.box * sizes.view(1, -1, 1)).round().int().tolist()
        for n, box in enumerate(bounds):
            erased: tuple[int | slice, ...] = (n, 0, *(slice(low, high) for low, high in box))
            kept[erased] = 0.0
        return image * kept


def draw_changes(
    settings: ChangeSettings, n: int, channels: int, size: Sequence[int], generator: torch.Generator
) -> Changes:
    """Draw the changes for n images of `size` (i, j) or (i, j, k)."""
    dims = len(size)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    def sometimes(value: Tensor, otherwise: float, probability: float = settings.intensity) -> Tensor:
        kept = torch.rand(n, generator=generator) < probability
        return torch.where(kept.view(-1, *[1] * (value.ndim - 1)), value, torch.full_like(value, otherwise))

    matrix = _affine(settings, n, size, generator)
    sides = uniform(0.1, 0.5, dims)
    low = uniform(0.0, 1.0, dims) * (1 - sides)
    box = sometimes(torch.stack([low, low + sides], 2), 0.0, settings.erase)
    share = torch.ones(n)
    if settings.mix > 0 and n > 1:
        # A draw of Beta(a, a) from two of Gamma(a, 1): torch's own draws take no generator.
        powers = torch.rand(2, n, generator=generator).pow(1 / settings.mix)
        share = powers[0] / powers.sum(0).clamp_min(1e-12)
        share = torch.maximum(share, 1 - share)
    gain = sometimes(uniform(0.7, 1.4, 1), 1.0).repeat(1, channels)
    if settings.colour and channels > 1:
        gain = gain * (1 + settings.colour * uniform(-1, 1, channels))
    return Changes(
        matrix=matrix, gain=gain,
        gamma=sometimes(uniform(-0.4, 0.4).exp(), 1.0), offset=sometimes(uniform(-0.4, 0.4), 0.0),
        noise=sometimes(uniform(0.0, 0.2), 0.0), speckle=sometimes(uniform(0.0, 1.0) * settings.speckle, 0.0),
        coarse=sometimes(uniform(1.0, 2.0), 1.0, settings.intensity / 3), box=box,
        partner=torch.randperm(n, generator=generator), share=share,
        seed=int(torch.randint(2**31, (1,), generator=generator)),
    )  # fmt: skip


def _affine(settings: ChangeSettings, n: int, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """(n, dims, dims + 1): output place to input place in torch's coordinates, -1 to 1 with the last axis first."""
    dims = len(size)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * 2 - 1

    scale = torch.exp(math.log1p(settings.scaling) * (uniform(1) + uniform(dims) / 3))
    matrix = torch.diag_embed(scale)
    shear = uniform(dims, dims) * settings.shear
    matrix = matrix + shear * (1 - torch.eye(dims))
    angles = uniform(3) * settings.rotation * math.pi / 180
    planes = [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]
    for number, (a, b) in enumerate(planes):
        angle = angles[:, number]
        if settings.turn and number == 0:
            angle = angle + torch.randint(4, (n,), generator=generator) * (math.pi / 2)
        turn = torch.eye(dims).repeat(n, 1, 1)
        turn[:, a, a] = turn[:, b, b] = angle.cos()
        turn[:, a, b], turn[:, b, a] = -angle.sin(), angle.sin()
        matrix = turn @ matrix
    for axis in settings.mirror_axes:
        if axis < dims:
            flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
            matrix[:, :, axis] = matrix[:, :, axis] * flip[:, None]
    extent = torch.tensor([float(s) for s in size])
    matrix = matrix * extent.view(1, 1, -1) / extent.view(1, -1, 1)  # from voxels to shares of each axis
    shift = 2 * settings.shift * uniform(dims, 1)
    return torch.cat([matrix, shift], 2).flip(1)[:, :, [*range(dims - 1, -1, -1), dims]]
