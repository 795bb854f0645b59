"""EfficientNet-Lite0: a small network that has seen photographs, to start from in planes.

Tan and Le, ICML 2019; the Lite form of 2020 has neither squeeze-and-excitation nor swish. Its weights are shipped
(`efficientnet_lite0.txt` tells where they come from), with normalisation folded into the convolutions. The first
third holds edges and textures that serve everywhere; it stays as it is, which more than halves a step of training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib.resources import files

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 1280
_STEM = 32
# Kernel, stride, expansion, channels and repeats of each stage (the paper's table 1).
_STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
           (3, 1, 6, 320, 1))  # fmt: skip
_KEPT = 5  # blocks, behind the stem, that do not learn
_MIDDLE = 11  # blocks before the features of middle depth
LEVELS, _LEVEL_ENDS = (24, 40, 112, 320), (2, 4, 10, 15)  # channels and last blocks of the levels of a pyramid
_MIXTURE, _BRIGHTEST = 0.8, 2.5  # of standardised intensities, which reach further than a picture's
_CONTRAST = 0.5  # prepared images are in quarters of the range around its middle, the network saw halves


class EfficientNetLite0(nn.Module):
    """Prepared planes (n, channels, i, j) to features at every place (n, 1280, i / 32, j / 32).

    Args:
        channels: of the input; grey is taken as three equal colours.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = _Convolution(channels, _STEM, 3, 2)
        blocks, before = [], _STEM
        for kernel, stride, expansion, after, repeats in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(before, after, kernel, 1 if repeat else stride, expansion))
                before = after
        self.blocks = nn.ModuleList(blocks)
        self.head = _Convolution(before, FEATURES, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The last layer's features."""
        found: Tensor = self.head(self.deep(self.early(image)))
        return found

    def early(self, image: Tensor) -> Tensor:
        """What the part that does not learn sees."""
        found: Tensor = self.stem(image * _CONTRAST)
        for block in self.blocks[:_KEPT]:
            found = block(found)
        return found

    def deep(self, found: Tensor, first: int = _KEPT, last: int | None = None) -> Tensor:
        """What blocks `first` to `last` make of it."""
        for block in self.blocks[first:last]:
            found = block(found)
        return found


class EfficientNetClassifier(nn.Module):
    """EfficientNet-Lite0 with an answer at every place, whose mean is the logit of the whole.

    As for `ResidualClassifier`, the answers at the places are the class-activation map (Zhou et al., CVPR 2016).

    Args:
        channels: of the input, 1 or 3.
        outputs: logits.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.trunk = pretrained(channels)
        for part in (self.trunk.stem, *self.trunk.blocks[:_KEPT]):
            part.requires_grad_(False)
        self.answer = nn.Conv2d(FEATURES, outputs, 1)
        for parameter in self.answer.parameters():
            nn.init.zeros_(parameter)

    def early(self, image: Tensor) -> Tensor:
        """What the part that does not learn sees: the same in every such network."""
        return self.trunk.early(image)

    def late(self, found: Tensor) -> Tensor:
        """From there to the answer at each place."""
        answer: Tensor = self.answer(self.trunk.head(self.trunk.deep(found)))
        return answer

    def places(self, image: Tensor) -> Tensor:
        """(n, channels, i, j) to the answer at each place (n, outputs, i / 32, j / 32)."""
        return self.late(self.early(image))

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, i, j) to logits (n, outputs)."""
        return self.places(image).flatten(2).mean(2)


class EfficientNetFeatures(nn.Module):
    """Prepared planes (n, channels, i, j) to means over places of the middle and the last layer, frozen.

    Args:
        channels: of the input, 1 or 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.trunk = pretrained(channels).eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """(n, 112 + 1280)."""
        middle = self.trunk.deep(self.trunk.early(image), last=_MIDDLE)
        last = self.trunk.head(self.trunk.deep(middle, first=_MIDDLE))
        return torch.cat([middle.flatten(2).mean(2), last.flatten(2).mean(2)], 1)


class EfficientNetLevels(nn.Module):
    """Views (n, channels, i, j), sizes multiples of 32, to features at a quarter to a thirty-second of the size.

    The view's channels are mixed to three colours, at first the first channel, the second, and the mean of both; the
    mixture is learned.

    Args:
        channels: of the view, two or more; the first two are intensities.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.colours = nn.Conv2d(channels, 3, 1)
        with torch.no_grad():
            for parameter in self.colours.parameters():
                parameter.zero_()
            self.colours.weight[:, :2, 0, 0] = _MIXTURE * torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
        trunk = pretrained(3)
        self.stem, self.blocks = trunk.stem, trunk.blocks
        for part in (self.stem, *self.blocks[:_KEPT]):
            part.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(n, LEVELS[0], i / 4, j / 4) to (n, LEVELS[3], i / 32, j / 32)."""
        found = self.stem(self.colours(image).clamp(-_BRIGHTEST, _BRIGHTEST) * _CONTRAST)
        levels = []
        for number, block in enumerate(self.blocks):
            found = block(found)
            if number in _LEVEL_ENDS:
                levels.append(found)
        return levels


def shipped_bytes() -> bytes:
    """The file of weights."""
    return files("vesalius.networks").joinpath("efficientnet_lite0.safetensors").read_bytes()


def pretrained(channels: int) -> EfficientNetLite0:
    """The network with its shipped weights, turned to images whose first axis is x."""
    network = EfficientNetLite0(channels)
    network.load_state_dict(turned(load(shipped_bytes()), channels))
    return network


def turned(weights: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """In single precision; rows of pictures become the second axis, and colours may be taken as equal."""
    found = {name: value.float() for name, value in weights.items()}
    found = {name: value.transpose(2, 3).contiguous() if value.ndim == 4 else value for name, value in found.items()}
    if channels == 1:
        found["stem.weight"] = found["stem.weight"].sum(1, keepdim=True)
    return found


class _Convolution(nn.Conv2d):
    """A convolution with TensorFlow's padding, as the weights were learned, and the activation behind it."""

    def __init__(
        self, before: int, after: int, kernel: int, stride: int, groups: int = 1, *, bent: bool = True
    ) -> None:
        super().__init__(before, after, kernel, stride, groups=groups)
        self.bent = bent

    def forward(self, image: Tensor) -> Tensor:
        """(n, before, i, j) to (n, after, i / stride, j / stride), rounded up."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding: int = kernel // 2
        if stride > 1:  # one voxel less at the start where the size is even
            sides = []
            for size in (int(image.shape[3]), int(image.shape[2])):
                wanted = max((-(-size // stride) - 1) * stride + kernel - size, 0)
                sides += [wanted // 2, wanted - wanted // 2]
            image, padding = F.pad(image, sides), 0
        # Processors compute the gradients of depthwise convolutions in bfloat16 ten times as slowly as in float32.
        single = self.groups > 1 and self.training and torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False) if single else contextlib.nullcontext():
            image = image.float() if single else image
            found = F.conv2d(image, self.weight, self.bias, self.stride, padding, 1, self.groups)
        return F.relu6(found) if self.bent else found


class _Block(nn.Module):
    """Widen, look around in each channel, narrow; beside a shortcut where the sizes are the same."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.widen = _Convolution(before, wide, 1, 1) if expansion > 1 else nn.Identity()
        self.look = _Convolution(wide, wide, kernel, stride, wide)
        self.narrow = _Convolution(wide, after, 1, 1, bent=False)
        self.beside = stride == 1 and before == after

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.narrow(self.look(self.widen(image)))
        return image + found if self.beside else found
