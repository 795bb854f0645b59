"""Random changes to a batch of training patches: drawing them is apart from applying them.

`draw` makes an `Augmentation`, plain tensors that can be stored and replayed; `Augmentation.apply` is a pure
function of it and a batch. Everything is batched in torch and works in voxel units of the prepared grid, in
3D and, where the third size is 1, in the plane. The kinds and ranges follow what has proven itself in
nnU-Net (Isensee et al., Nature Methods 2021, supplement 4), made gentler because fits here are short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

ONE_HOT_LIMIT = 8  # with more classes a label is sampled by nearest neighbour: one channel per class costs


@dataclass(frozen=True)
class AugmentationSettings:
    """How strongly to change patches.

    Args:
        rotation: largest rotation about each axis, degrees.
        scaling: largest relative change of size, 0.2 for 0.8 to 1.2; each axis adds a third of it of its own.
        shift: largest translation along each axis, voxels.
        elastic: standard deviation of the displacement of elastic control points, mm.
        elastic_spacing: distance between control points, voxels.
        mirror_axes: axes (0, 1, 2 of i, j, k) that may be mirrored.
        intensity: probability of each change of intensity.
        erase: probability that all beyond a random plane is set to the darkest value (stripped skulls).
    """

    rotation: float = 15.0
    scaling: float = 0.15
    shift: float = 4.0
    elastic: float = 1.5
    elastic_spacing: int = 10
    mirror_axes: tuple[int, ...] = ()
    intensity: float = 0.2
    erase: float = 0.0


@dataclass(frozen=True, eq=False)
class Augmentation:
    """Drawn arguments for a batch of n patches; every field's first size is n.

    Args:
        matrix: (n, 3, 3), output offset from the centre (voxels) to input offset.
        shift: (n, 3) voxels.
        control: (n, 3, a, b, c) displacements at control points, voxels.
        gamma, contrast, brightness, noise, blur: (n,); 1, 1, 0, 0 and 0 change nothing.
        coarse: (n,) factor by which resolution is lowered; 1 changes nothing.
        bias: (n, 1, 4, 4, 4) logarithm of the multiplicative field at its control points.
        plane: (n, 4) unit normal and offset (fraction of half the patch) beyond which all is erased; offset
            inf changes nothing.
        seed: seed of the noise's own generator.
    """

    matrix: Tensor
    shift: Tensor
    control: Tensor
    gamma: Tensor
    contrast: Tensor
    brightness: Tensor
    noise: Tensor
    blur: Tensor
    coarse: Tensor
    bias: Tensor
    plane: Tensor
    seed: int

    def apply(self, image: Tensor, label: Tensor, size: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
        """The changed batch.

        Args:
            image: (n, channels, i, j, k) normalised intensities, of `size` or larger.
            label: (n, i, j, k) integers below `classes` (an ignore value counts as the last class).
            size: size of the patches that come back, cut from the centre.

        Returns:
            Image (n, channels, *size) float32 and label (n, *size) int64. Outside the source both continue
            as they end at its border, as the windows of prediction do.
        """
        image, label = self.move(image, label, size, classes)
        image = self.recolour(image)
        beyond = self._beyond(image)
        if beyond is not None:
            image = torch.where(beyond[:, None], image.amin((2, 3, 4), keepdim=True), image)
            label = label.masked_fill(beyond, 0)
        return image, label

    def move(self, image: Tensor, label: Tensor, size: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
        """The part of `apply` that moves voxels: image and label alike."""
        grid = self._grid(image.shape[2:], size, image.device)
        if classes > ONE_HOT_LIMIT:
            moved = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
            nearest = F.grid_sample(
                label[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
            )
            return moved, nearest[:, 0].long()
        masks = torch.stack([label == value for value in range(1, classes)], 1).to(image.dtype)
        both = torch.cat([image, masks], 1)  # one call: finding the eight neighbours is most of its cost
        moved = F.grid_sample(both, grid, padding_mode="border", align_corners=False)
        channels = image.shape[1]
        foreground = moved[:, channels:]
        background = 1.0 - foreground.sum(1, keepdim=True)
        return moved[:, :channels], torch.cat([background, foreground], 1).argmax(1)

    def carry(self, channels: Tensor, size: Sequence[int]) -> Tensor:
        """The part of `apply` that moves voxels, for channels that are all interpolated linearly.

        Args:
            channels: (n, channels, i, j, k), of `size` or larger.
            size: of what comes back, cut from the centre.
        """
        grid = self._grid(channels.shape[2:], size, channels.device)
        if size[2] == channels.shape[4] == 1:  # four neighbours instead of eight
            planes = F.grid_sample(channels[..., 0], grid[..., 0, 1:], padding_mode="border", align_corners=False)
            return planes[..., None]
        return F.grid_sample(channels, grid, padding_mode="border", align_corners=False)

    def _grid(self, source: Sequence[int], size: Sequence[int], device: torch.device) -> Tensor:
        """Where each output voxel comes from, in `grid_sample`'s coordinates (x is the last axis)."""
        axes = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in size]
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        moved = torch.einsum("nab,bijk->naijk", self.matrix.to(device), offsets)
        moved = moved + self.shift.to(device)[:, :, None, None, None]
        moved = moved + F.interpolate(self.control.to(device), tuple(size), mode="trilinear", align_corners=True)
        extent = torch.tensor([float(n) for n in source], device=device).view(1, 3, 1, 1, 1)
        return (moved * 2 / extent).permute(0, 2, 3, 4, 1).flip(-1)

    def recolour(self, image: Tensor) -> Tensor:
        """The part of `apply` that changes intensities."""
        image = self._soften(image)
        column = (-1, 1, 1, 1, 1)
        if bool((self.bias != 0).any()):
            field = F.interpolate(self.bias, image.shape[2:], mode="trilinear", align_corners=True)
            low = image.amin((2, 3, 4), keepdim=True)
            image = (image - low) * field.to(image.device).exp() + low
        if bool((self.gamma != 1).any()):
            low, high = image.amin((2, 3, 4), keepdim=True), image.amax((2, 3, 4), keepdim=True)
            span = (high - low).clamp_min(1e-6)
            image = ((image - low) / span).clamp_min(1e-6).pow(self.gamma.view(column).to(image)) * span + low
        image = image * self.contrast.view(column).to(image) + self.brightness.view(column).to(image)
        if bool((self.noise > 0).any()):
            own = torch.Generator().manual_seed(self.seed)
            grain = torch.randn(image.shape, generator=own).to(image)
            image = image + grain * self.noise.view(column).to(image)
        return image

    def _soften(self, image: Tensor) -> Tensor:
        """Blur and lower the resolution of the samples drawn for it."""
        changed = [n for n in range(len(image)) if self.blur[n] > 0 or self.coarse[n] > 1]
        if not changed:
            return image
        image = image.clone()
        for n in changed:
            one = image[n : n + 1]
            if self.blur[n] > 0:
                one = _blur(one, float(self.blur[n]))
            if self.coarse[n] > 1:
                small = [max(1, round(size / float(self.coarse[n]))) for size in one.shape[2:]]
                low = F.interpolate(one, small, mode="trilinear", align_corners=False)
                one = F.interpolate(low, one.shape[2:], mode="trilinear", align_corners=False)
            image[n] = one[0]
        return image

    def _beyond(self, image: Tensor) -> Tensor | None:
        """(n, i, j, k), true beyond each sample's plane; None where no plane was drawn."""
        if not bool(torch.isfinite(self.plane[:, 3]).any()):
            return None
        axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in image.shape[2:]]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(image.device)
        plane = self.plane.to(image.device)
        return torch.einsum("nb,bijk->nijk", plane[:, :3], places) > plane[:, 3].view(-1, 1, 1, 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (1, channels, i, j, k), sigma in voxels, along every axis longer than 1."""
    radius = max(1, math.ceil(2 * sigma))
    places = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(3):
        if image.shape[2 + axis] == 1:
            continue
        moved = image.movedim(2 + axis, -1)
        flat = F.pad(moved.reshape(1, -1, moved.shape[-1]), (radius, radius), mode="replicate")
        flat = F.conv1d(flat.reshape(-1, 1, flat.shape[-1]), kernel.view(1, 1, -1))
        image = flat.view(moved.shape).movedim(-1, 2 + axis)
    return image


def draw(
    settings: AugmentationSettings,
    n: int,
    size: Sequence[int],
    spacing: Sequence[float],
    generator: torch.Generator,
) -> Augmentation:
    """Draw the changes for n patches of `size` voxels of `spacing` mm."""
    flat = size[2] == 1

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    def sometimes(value: Tensor, otherwise: float, probability: float = settings.intensity) -> Tensor:
        kept = torch.rand(n, generator=generator) < probability
        return torch.where(kept.view(-1, *[1] * (value.ndim - 1)), value, torch.full_like(value, otherwise))

    angles = uniform(-settings.rotation, settings.rotation, 3) * math.pi / 180
    common, own = uniform(-1, 1, 1), uniform(-1, 1, 3)
    scales = 1 + settings.scaling * (common + own / 3)
    shift = uniform(-settings.shift, settings.shift, 3)
    if flat:
        angles[:, :2], scales[:, 2], shift[:, 2] = 0, 1, 0
    for axis in settings.mirror_axes:
        scales[:, axis] *= torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    steps = torch.diag(torch.tensor([float(value) for value in spacing]))
    matrix = torch.linalg.inv(steps) @ _rotation(angles) @ torch.diag_embed(scales) @ steps
    points = [max(2, round(length / settings.elastic_spacing) + 1) for length in size]
    control = torch.randn(n, 3, *points, generator=generator) * settings.elastic
    control = sometimes(control, 0.0, 0.7) / torch.tensor([float(v) for v in spacing]).view(1, 3, 1, 1, 1)
    if flat:
        control[:, 2] = 0
    normal = F.normalize(torch.randn(n, 3, generator=generator), dim=1)
    offset = sometimes(uniform(0.45, 0.9), math.inf, settings.erase)
    return Augmentation(
        matrix=matrix, shift=shift, control=control,
        gamma=sometimes(uniform(-0.4, 0.4).exp(), 1.0),
        contrast=sometimes(uniform(0.7, 1.35), 1.0),
        brightness=sometimes(uniform(-0.3, 0.3), 0.0),
        noise=sometimes(uniform(0.0, 0.25), 0.0),
        blur=sometimes(uniform(0.4, 1.0), 0.0, settings.intensity / 2),
        coarse=sometimes(uniform(1.0, 2.0), 1.0, settings.intensity / 2),
        bias=sometimes(torch.randn(n, 1, 4, 4, 4, generator=generator) * 0.15, 0.0),
        plane=torch.cat([normal, offset[:, None]], 1),
        seed=int(torch.randint(2**31, (1,), generator=generator)),
    )  # fmt: skip


def identity(n: int) -> Augmentation:
    """The augmentation that changes nothing."""
    still = AugmentationSettings(rotation=0, scaling=0, shift=0, elastic=0, intensity=0)
    drawn = draw(still, n, (2, 2, 2), (1.0, 1.0, 1.0), torch.Generator().manual_seed(0))
    return replace(drawn, control=torch.zeros_like(drawn.control))


def _rotation(angles: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3) from angles (n, 3) about the i, j and k axes, in radians."""
    zero, one = torch.zeros_like(angles[:, 0]), torch.ones_like(angles[:, 0])
    (ci, cj, ck), (si, sj, sk) = angles.cos().unbind(1), angles.sin().unbind(1)
    about_i = torch.stack([one, zero, zero, zero, ci, -si, zero, si, ci], 1).view(-1, 3, 3)
    about_j = torch.stack([cj, zero, sj, zero, one, zero, -sj, zero, cj], 1).view(-1, 3, 3)
    about_k = torch.stack([ck, -sk, zero, sk, ck, zero, zero, zero, one], 1).view(-1, 3, 3)
    return about_k @ about_j @ about_i
