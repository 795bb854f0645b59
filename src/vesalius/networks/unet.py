"""The residual U-Net that segmentation uses unless a user brings another network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_SMALLEST = 4  # an axis is halved only while at least this many voxels remain
_ANISOTROPIC = 2.0  # an axis this many times coarser than the finest waits until the others caught up
_FULL = 4  # times fewer channels at full resolution than at half

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class UNetShape:
    """Width and depth of a U-Net.

    Args:
        channels: feature maps per level, full resolution first.
        strides: halving of (i, j, k) from level to level, each 1 or 2.
    """

    channels: tuple[int, ...]
    strides: tuple[Triple, ...]

    @property
    def multiple(self) -> Triple:
        """Sizes of windows must be multiples of this."""
        i = j = k = 1
        for a, b, c in self.strides:
            i, j, k = i * a, j * b, k * c
        return i, j, k


def unet_shape(
    patch: Sequence[int], spacing: Sequence[float], width: int = 32, levels: int = 4, widest: int = 256
) -> UNetShape:
    """As many levels as the patch carries, `levels` at most; every level below the first doubles the width.

    Full resolution has a quarter of the channels of half resolution: eight times as many voxels make it the
    most expensive level by far, and outlines need little more than the image's own edges there.

    Args:
        patch: (i, j, k) voxels; k = 1 for images of one plane.
        spacing: mm; coarse axes are halved later, so that features become isotropic (Isensee et al., Nature
            Methods 18:203, 2021).
        width: channels at half resolution.
        levels: most levels.
        widest: most channels of a level.
    """
    size, step = [*map(float, patch)], [*map(float, spacing)]
    strides: list[Triple] = []
    while len(strides) < levels - 1:
        finest = min(s for s, n in zip(step, size, strict=True) if n > 1) if max(size) > 1 else 1.0
        stride = [2 if n >= 2 * _SMALLEST and s < _ANISOTROPIC * finest else 1 for n, s in zip(size, step, strict=True)]
        if stride == [1, 1, 1]:
            break
        size = [n / s for n, s in zip(size, stride, strict=True)]
        step = [n * s for n, s in zip(step, stride, strict=True)]
        strides.append((stride[0], stride[1], stride[2]))
    strides = strides or [(1, 1, 1)]
    deeper = [min(width * 2**level, widest) for level in range(len(strides))]
    return UNetShape((max(4, width // _FULL), *deeper), tuple(strides))


class Residual(nn.Module):
    """Convolutions with instance normalisation beside a shortcut (He et al., CVPR 2016).

    Args:
        dims: 2 or 3.
        before, after: channels.
        stride: of the first convolution; the shortcut is averaged over as many voxels.
        convolutions: 1 or 2.
    """

    def __init__(self, dims: int, before: int, after: int, stride: tuple[int, ...] = (), convolutions: int = 2) -> None:
        super().__init__()
        stride = stride or (1,) * dims
        layers = _layers(dims)
        body = [layers.convolution(before, after, 3, stride, 1, bias=False), layers.norm(after, affine=True)]
        for _ in range(convolutions - 1):
            body.append(nn.LeakyReLU(0.01, inplace=True))
            body.append(layers.convolution(after, after, 3, 1, 1, bias=False))
            body.append(layers.norm(after, affine=True))
        self.body = nn.Sequential(*body)
        shortcut: list[nn.Module] = [layers.pool(stride)] if max(stride) > 1 else []
        if before != after:
            shortcut.append(layers.convolution(before, after, 1, bias=False))
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """(n, before, *sizes) to (n, after, *sizes / stride)."""
        answer: Tensor = self.activation(self.body(features) + self.shortcut(features))
        return answer


class ResidualUNet(nn.Module):
    """A U-Net (Ronneberger et al., MICCAI 2015) of residual blocks, light at full resolution.

    Args:
        in_channels: input channels.
        classes: output channels, background included.
        shape: width and depth.
        dims: 3, or 2 for images of one plane.
    """

    def __init__(self, in_channels: int, classes: int, shape: UNetShape, dims: int) -> None:
        super().__init__()
        layers, widths = _layers(dims), shape.channels
        self.stem = nn.Sequential(
            layers.convolution(in_channels, widths[0], 3, 1, 1, bias=False),
            layers.norm(widths[0], affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )
        self.down, self.rise, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, whole in enumerate(shape.strides):
            stride, above, below = whole[:dims], widths[level], widths[level + 1]
            self.down.append(Residual(dims, above, below, stride))
            self.rise.append(layers.rise(below, above, stride, stride))
            self.up.append(Residual(dims, 2 * above, above, convolutions=2 if level else 1))
        self.answer = layers.convolution(widths[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(n, in_channels, *sizes) to logits (n, classes, *sizes); sizes are multiples of `shape.multiple`."""
        levels = [self.stem(image)]
        for down in self.down:
            levels.append(down(levels[-1]))
        features = levels.pop()
        for rise, up in zip(reversed(self.rise), reversed(self.up), strict=True):
            features = up(torch.cat([rise(features), levels.pop()], 1))
        logits: Tensor = self.answer(features)
        return logits


class OfVolumes(nn.Module):
    """Lets a network of planes take volumes of one slice: (n, c, i, j, 1) to (n, classes, i, j, 1)."""

    def __init__(self, planar: nn.Module) -> None:
        super().__init__()
        self.planar = planar

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the one slice."""
        logits: Tensor = self.planar(image.squeeze(-1))
        return logits.unsqueeze(-1)


@dataclass(frozen=True)
class _Layers:
    """The layers of two or three dimensions; torch's types tell them apart, a network does not."""

    convolution: Any
    rise: Any
    norm: Any
    pool: Any


def _layers(dims: int) -> _Layers:
    if dims == 2:
        return _Layers(nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d, nn.AvgPool2d)
    return _Layers(nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d, nn.AvgPool3d)
