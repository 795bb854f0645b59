"""The small residual network that classification trains from scratch: fast on processors, in 2D and 3D."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_SMALLEST = 4  # an axis is halved only while at least this many voxels remain
_EARLY = 4500  # images with more voxels than this are halved by the stem: full resolution costs most of all
_GROUP = 8  # channels that group normalisation takes together

Triple = tuple[int, int, int]
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class ResidualShape:
    """Width and depth of a `ResidualClassifier`.

    Args:
        widths: channels of each stage.
        strides: halving of (i, j, k) on the way into each stage, each 1 or 2; the stem does the first.
        blocks: residual blocks per stage.
        norm: "batch" or "group".
    """

    widths: tuple[int, ...]
    strides: tuple[Triple, ...]
    blocks: int = 2
    norm: str = "batch"


def residual_shape(size: Sequence[int], width: int = 32, *, blocks: int = 2, norm: str = "batch") -> ResidualShape:
    """Stages that halve the image until about 4 to 7 voxels remain along its longest axis, each one wider.

    Args:
        size: (i, j, k) voxels; k = 1 for planes.
        width: channels of the first stage; the last has at most eight times as many.
        blocks: residual blocks per stage.
        norm: "batch" or "group".
    """
    left = list(size)

    def halved() -> Triple:
        longest = max(left)
        stride = [2 if n >= 2 * _SMALLEST and 2 * n > longest else 1 for n in left]
        left[:] = [-(-n // s) for n, s in zip(left, stride, strict=True)]
        return stride[0], stride[1], stride[2]

    strides = [halved() if math.prod(left) > _EARLY else (1, 1, 1)]
    while max(left) >= 2 * _SMALLEST and len(strides) < 6:
        strides.append(halved())
    widths = [min(round(width * 1.6**n / 8) * 8, 8 * width) for n in range(len(strides))]
    return ResidualShape(tuple(widths), tuple(strides), blocks, norm)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al., CVPR 2016); the shortcut is averaged before it is widened.

    The last normalisation starts at zero, so that every block begins as its shortcut (Goyal et al.,
    arXiv:1706.02677).

    Args:
        dims: 2 or 3.
        before, after: channels.
        stride: of the first convolution.
        norm: "batch" or "group".
    """

    def __init__(self, dims: int, before: int, after: int, stride: Sequence[int], norm: str) -> None:
        super().__init__()
        layers = layers_of(dims)
        last = normalisation(norm, dims, after)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(
            layers.convolution(before, after, 3, tuple(stride), 1, bias=False),
            normalisation(norm, dims, after),
            nn.ReLU(inplace=True),
            layers.convolution(after, after, 3, 1, 1, bias=False),
            last,
        )
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(layers.pool(tuple(stride), ceil_mode=True))
        if before != after:
            shortcut += [layers.convolution(before, after, 1, bias=False), normalisation(norm, dims, after)]
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """(n, before, *sizes) to (n, after, *sizes / stride)."""
        answer: Tensor = self.activation(self.body(features) + self.shortcut(features))
        return answer


class ResidualClassifier(nn.Module):
    """Stem, residual stages, and a linear answer at every place whose mean is the logit of the whole.

    The answer is linear after a mean over places, so the same weights applied at each place are its
    class-activation map (Zhou et al., CVPR 2016).

    Args:
        channels: of the input.
        outputs: logits.
        shape: width and depth.
        dims: 2 or 3.
    """

    def __init__(self, channels: int, outputs: int, shape: ResidualShape, dims: int) -> None:
        super().__init__()
        layers, widths = layers_of(dims), shape.widths
        first = shape.strides[0][:dims]
        kernel = 5 if max(first) > 1 else 3
        self.stem = nn.Sequential(
            layers.convolution(channels, widths[0], kernel, tuple(first), kernel // 2, bias=False),
            normalisation(shape.norm, dims, widths[0]),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = []
        before = widths[0]
        for number, (width, stride) in enumerate(zip(widths, shape.strides, strict=True)):
            for block in range(shape.blocks):
                step = stride[:dims] if number and not block else (1,) * dims
                stages.append(ResidualBlock(dims, before, width, step, shape.norm))
                before = width
        self.stages = nn.Sequential(*stages)
        self.answer = layers.convolution(before, outputs, 1)
        nn.init.normal_(self.answer.weight, std=0.01)
        nn.init.zeros_(self.answer.bias)
        self.dims = dims

    def early(self, image: Tensor) -> Tensor:
        """What several networks may see in common: the image, for all of this one learns."""
        return image

    def late(self, found: Tensor) -> Tensor:
        """From there to the answer at each place."""
        answer: Tensor = self.answer(self.stages(self.stem(found)))
        return answer

    def places(self, image: Tensor) -> Tensor:
        """(n, channels, *sizes) to the answer at each place (n, outputs, *smaller sizes)."""
        return self.late(self.early(image))

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, *sizes) to logits (n, outputs)."""
        return self.places(image).flatten(2).mean(2)


@dataclass(frozen=True)
class Layers:
    """The layers of two or three dimensions; torch's types tell them apart, a network does not."""

    convolution: Any
    batch_norm: Any
    pool: Any


def layers_of(dims: int) -> Layers:
    """The layers of 2 or 3 dimensions."""
    if dims == 2:
        return Layers(nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d)
    return Layers(nn.Conv3d, nn.BatchNorm3d, nn.AvgPool3d)


def normalisation(kind: str, dims: int, channels: int) -> Any:
    """Batch or group normalisation of so many channels."""
    if kind == "group":
        return nn.GroupNorm(max(1, channels // _GROUP), channels)
    return layers_of(dims).batch_norm(channels)


def folded(network: N) -> N:
    """A copy whose batch normalisation is folded into the convolutions before it, with the same answer.

    Exporting folds it anyway, but only after the weights were rounded to half precision.
    """
    copied = copy.deepcopy(network).eval()
    for part in [module for module in copied.modules() if isinstance(module, nn.Sequential)]:
        for number in range(len(part) - 1):
            first, second = part[number], part[number + 1]
            if isinstance(first, nn.Conv2d | nn.Conv3d) and isinstance(second, nn.BatchNorm2d | nn.BatchNorm3d):
                part[number], part[number + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return copied


@torch.no_grad()
def settle(network: nn.Module, batches: Sequence[Tensor]) -> None:
    """Take batch normalisation's statistics anew as plain means over `batches`; averaged weights need it."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    if not norms:
        return
    before = [m.momentum for m in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # cumulative mean
    network.train()
    for batch in batches:
        network(batch)
    network.eval()
    for module, momentum in zip(norms, before, strict=True):
        module.momentum = momentum
