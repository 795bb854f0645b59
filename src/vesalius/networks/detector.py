"""An anchor-free detector: centre heat-maps with sizes from a feature pyramid.

After CenterNet (Zhou et al., Objects as Points, 2019) and feature pyramids (Lin et al., CVPR 2017), small
enough to be trained on a processor: the first convolution halves the resolution, and the pyramid's finest
level, at half of the input, answers. Batch normalisation makes the answer independent of the window's size.
In planes the coarser levels may come from a network that has seen photographs (`networks.efficientnet`); the
finest one is always learned from scratch, for points that photographs do not have.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vesalius.networks.efficientnet import LEVELS, EfficientNetLevels

_SURE = 12.0  # logits beyond this are as good as certain; larger ones would only carry larger rounding
_PRIOR = 0.02  # probability that an untrained network gives every place


class Detector(nn.Module):
    """(n, in_channels, *sizes) to heat logits and log sizes at half resolution.

    Args:
        in_channels: channels of a view.
        classes: kinds of lesions.
        dims: 2 or 3.
        widths: channels of each level, half resolution first; every further level halves once more.
        pretrained: whether the coarser levels start from EfficientNet-Lite0; for planes, five levels.
    """

    def __init__(
        self, in_channels: int, classes: int, dims: int, widths: Sequence[int], *, pretrained: bool = False
    ) -> None:
        super().__init__()
        convolution: Any = nn.Conv2d if dims == 2 else nn.Conv3d
        norm: Any = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
        self.classes = classes
        self.stem = nn.Sequential(
            convolution(in_channels, widths[0], 3, 2, 1, bias=False), norm(widths[0]), nn.ReLU(inplace=True)
        )
        self.first = Block(convolution, norm, widths[0], widths[0], 1)
        self.seen = EfficientNetLevels(in_channels) if pretrained else None
        if pretrained:
            coarser: Iterable[nn.Module] = (
                nn.Sequential(convolution(level, after, 1, bias=False), norm(after))
                for level, after in zip(LEVELS, widths[1:], strict=True)
            )
        else:
            coarser = (Block(convolution, norm, before, after, 2) for before, after in itertools.pairwise(widths))
        self.down = nn.ModuleList(coarser)
        self.lateral = nn.ModuleList(
            convolution(below, above, 1, bias=False) for above, below in itertools.pairwise(widths)
        )
        self.merge = nn.ModuleList(Block(convolution, norm, above, above, 1) for above in widths[:-1])
        self.heat = convolution(widths[0], classes, 1)
        self.size = convolution(widths[0], dims, 1)
        self.rest = nn.Dropout(0.1)
        nn.init.constant_(self.heat.bias, -math.log(1 / _PRIOR - 1))

    @property
    def multiple(self) -> int:
        """Sizes of the input must be multiples of this."""
        return int(2 ** (1 + len(self.down)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Heat logits (n, classes, *sizes / 2) and log sizes in input voxels (n, dims, *sizes / 2)."""
        levels = [self.first(self.stem(image))]
        if self.seen is None:
            for down in self.down:
                levels.append(down(levels[-1]))
        else:
            levels += [down(level) for down, level in zip(self.down, self.seen(image), strict=True)]
        features = levels.pop()
        for lateral, merge in zip(reversed(self.lateral), reversed(self.merge), strict=True):
            rise = F.interpolate(lateral(features), scale_factor=2.0, mode="nearest")
            features = merge(rise + levels.pop())
        features = self.rest(features)
        return self.heat(features), self.size(features)


class Block(nn.Module):
    """Two convolutions with batch normalisation beside a shortcut (He et al., CVPR 2016)."""

    def __init__(self, convolution: Any, norm: Any, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(before, after, 3, stride, 1, bias=False), norm(after), nn.ReLU(inplace=True),
            convolution(after, after, 3, 1, 1, bias=False), norm(after),
        )  # fmt: skip
        same = before == after and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(convolution(before, after, 1, stride, bias=False), norm(after))
        )

    def forward(self, features: Tensor) -> Tensor:
        """(n, before, *sizes) to (n, after, *sizes / stride)."""
        return F.relu(self.body(features) + self.shortcut(features))


class DetectorOfVolumes(nn.Module):
    """A detector of planes that takes and gives volumes of one slice: (n, c, i, j, 1)."""

    def __init__(self, planar: Detector) -> None:
        super().__init__()
        self.planar = planar

    @property
    def multiple(self) -> int:
        """Sizes i and j of the input must be multiples of this."""
        return self.planar.multiple

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As the planar network's, with k = 1 last."""
        heat, size = self.planar(image[..., 0])
        return heat.unsqueeze(-1), size.unsqueeze(-1)


def detector(
    in_channels: int, classes: int, dims: int, widths: Sequence[int], *, pretrained: bool = False
) -> nn.Module:
    """A detector of volumes; with `dims` 2, of volumes of one slice."""
    network = Detector(in_channels, classes, dims, widths, pretrained=pretrained)
    return DetectorOfVolumes(network) if dims == 2 else network


class DetectorEnsemble(nn.Module):
    """Several detectors as one: the logit of their mean probability, and their mean log size."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As one detector's."""
        answers = [network(image) for network in self.networks]
        heats = torch.stack([heat.clamp(-_SURE, _SURE) for heat, _ in answers])
        # By logarithms: near 0 and 1 the logit of a mean would magnify its rounding a million times.
        logit = torch.logsumexp(-F.softplus(-heats), 0) - torch.logsumexp(-F.softplus(heats), 0)
        return logit, torch.stack([size for _, size in answers]).mean(0)
