"""A residual network with the layout of torchvision's ResNet-18, 34 and 50, as an extractor of features.

He, Zhang, Ren and Sun, CVPR 2016; in the bottleneck the stride stands in the 3 × 3 convolution (torchvision's
"v1.5"). It never learns here, so normalisation is folded into the convolutions as soon as weights are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Of the colours that such networks learn from (ImageNet's), with 0 for black and 1 for white.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CENTRE, _SCALE = 0.5, 0.25  # what a prepared image was brought to 0 and 1 by


@dataclass(frozen=True)
class BackboneShape:
    """What differs between the members of the family.

    Args:
        blocks: in each of the four layers.
        bottleneck: three convolutions per block instead of two.
        width: channels of the first layer; 64 in the published ones.
        channels: of the input, 1 or 3.
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    width: int = 64
    channels: int = 3

    @property
    def features(self) -> int:
        """Numbers that an image becomes."""
        return 8 * self.width * (4 if self.bottleneck else 1)


class _Block(nn.Module):
    """Two convolutions, or three where the middle one is narrow, beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        after = 4 * width if bottleneck else width
        plan = [(before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1)]
        plan = plan if bottleneck else [(before, width, 3, stride), (width, width, 3, 1)]
        self.number = len(plan)
        for number, (first, last, kernel, step) in enumerate(plan, 1):
            self.add_module(f"conv{number}", nn.Conv2d(first, last, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(last))
        self.downsample: nn.Sequential | None = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, features: Tensor) -> Tensor:
        found = features
        for number in range(1, self.number + 1):
            found = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(found))
            found = F.relu(found) if number < self.number else found
        shortcut = features if self.downsample is None else self.downsample(features)
        return F.relu(found + shortcut)


class Backbone(nn.Module):
    """Prepared planes (n, channels, i, j) to pooled features (n, f).

    Args:
        shape: of the network.
        longest: pixels that the longer side of a plane is brought to.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: BackboneShape, longest: int = 224) -> None:
        super().__init__()
        self.shape, self.longest = shape, longest
        self.conv1 = nn.Conv2d(shape.channels, shape.width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.width)
        before = shape.width
        for number, blocks in enumerate(shape.blocks):
            width, layer = shape.width * 2**number, []
            for block in range(blocks):
                layer.append(_Block(before, width, 2 if number and not block else 1, shape.bottleneck))
                before = width * (4 if shape.bottleneck else 1)
            self.add_module(f"layer{number + 1}", nn.Sequential(*layer))
        colours = shape.channels == 3
        mean, deviation = (_MEAN, _DEVIATION) if colours else ((sum(_MEAN) / 3,), (sum(_DEVIATION) / 3,))
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Means over places of the last layer."""
        i, j = int(image.shape[2]), int(image.shape[3])
        scale = self.longest / max(i, j)
        size = [max(32, math.ceil(n * scale)) for n in (j, i)]
        # Rows are j: such networks saw pictures upright.
        image = F.interpolate(image.transpose(2, 3), size, mode="bilinear", align_corners=False)
        image = self._coloured(image * _SCALE + _CENTRE)
        found = self.bn1(self.conv1((image - self.mean) / self.deviation))
        found = F.max_pool2d(F.relu(found), 3, 2, 1)
        for number in range(len(self.shape.blocks)):
            found = getattr(self, f"layer{number + 1}")(found)
        pooled: Tensor = found.flatten(2).mean(2)
        return pooled

    def _coloured(self, image: Tensor) -> Tensor:
        """Grey repeated, or colours averaged, to what the network takes."""
        if image.shape[1] == self.shape.channels:
            return image
        return image.repeat(1, 3, 1, 1) if self.shape.channels == 3 else image.mean(1, keepdim=True)


def wanted_tensors(backbone: Backbone) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and sizes of what a file of weights must hold, in the network's order."""
    for name, tensor in backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            yield name, tuple(tensor.shape)


@torch.no_grad()
def frozen_backbone(backbone: Backbone, weights: Mapping[str, Tensor]) -> Backbone:
    """The backbone with these weights, normalisation folded and rounded to half precision, as it is exported.

    Args:
        backbone: fresh; changed in place.
        weights: every one of `wanted_tensors`.
    """
    backbone.load_state_dict(dict(weights), strict=False)
    backbone.eval().requires_grad_(False)
    for module in list(backbone.modules()):
        if isinstance(module, nn.Sequential):  # a shortcut, or a layer
            first, second = module[0], module[1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[0], module[1] = fuse_conv_bn_eval(first, second), nn.Identity()
        for number in (1, 2, 3):
            convolution, norm = (getattr(module, f"{kind}{number}", None) for kind in ("conv", "bn"))
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, f"conv{number}", fuse_conv_bn_eval(convolution, norm))
                setattr(module, f"bn{number}", nn.Identity())
    for parameter in backbone.parameters():
        parameter.copy_(parameter.half().float())
    return backbone.requires_grad_(False)


class JoinedFeatures(nn.Module):
    """The features of several extractors side by side: (n, channels, *sizes) to (n, sum of f)."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, image: Tensor) -> Tensor:
        """Every part's features, in order."""
        return torch.cat([part(image) for part in self.parts], 1)
