"""Weights that were learned elsewhere, from a local file: checked, hashed, and made an extractor of features."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from vesalius.core.errors import UsageError
from vesalius.networks.backbone import Backbone, BackboneShape, frozen_backbone, wanted_tensors
from vesalius.networks.efficientnet import shipped_bytes

_MOST_BYTES = 1 << 30
_NAMES: Mapping[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "ResNet-18", ((3, 4, 6, 3), False): "ResNet-34", ((3, 4, 6, 3), True): "ResNet-50",
}  # fmt: skip
_KNOWN = "ResNet-18, 34 and 50"
_SIZES = (224, 192, 160, 128, 96, 64)  # pixels of the longer side, largest first
_TIMED = 4  # images that a size is timed with
_CONVERT = (
    "Convert it once where you trust it: `safetensors.torch.save_file("
    "torch.load(FILE, weights_only=True), 'weights.safetensors')`."
)


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A backbone from a file, and what the card says of it.

    Args:
        backbone: frozen.
        name: of the file.
        digest: SHA-256 of the file, hexadecimal.
        licence: of the weights, as stated.
        kind: "ResNet-18", "ResNet-34" or "ResNet-50".
    """

    backbone: Backbone
    name: str
    digest: str
    licence: str
    kind: str

    def as_json(self, used: str) -> dict[str, Any]:
        """For the card; `used` is "alone", "joined" or "no"."""
        return {
            "file": self.name, "sha256": self.digest, "licence": self.licence, "network": self.kind,
            "width": self.backbone.shape.width, "longest": self.backbone.longest, "used": used,
        }  # fmt: skip


def shipped_json() -> dict[str, Any]:
    """For the card, of the shipped weights that networks start from."""
    return {
        "file": "efficientnet_lite0.safetensors", "sha256": hashlib.sha256(shipped_bytes()).hexdigest(),
        "licence": "Apache-2.0", "network": "EfficientNet-Lite0", "learned_from": "photographs (ImageNet-1k)",
    }  # fmt: skip


def read_pretrained(path: Path, licence: str = "") -> Pretrained:
    """Read a state dict of a torchvision-layout residual network; the last layer's (`fc`) is ignored.

    Args:
        path: a safetensors file.
        licence: of the weights, for the card.

    Raises:
        UsageError: there is no such file, it is not of that format, or a tensor does not fit; the first is named.
    """
    if not path.is_file():
        raise UsageError("There is no file of weights here.", remedy="Give a local safetensors file.", file=path)
    if path.stat().st_size > _MOST_BYTES:
        raise UsageError("The file of weights is larger than 1 GB.", remedy=f"Give one of {_KNOWN}.", file=path)
    data = path.read_bytes()
    try:
        weights: Mapping[str, Tensor] = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UsageError(
            "The weights are not a safetensors file; other formats may run code when they are opened.",
            remedy=_CONVERT, file=path,
        ) from error  # fmt: skip
    shape = _shape_of(weights, path)
    backbone, kind = Backbone(shape), _NAMES[shape.blocks, shape.bottleneck]
    chosen = {name: _fitting(weights, name, size, path) for name, size in wanted_tensors(backbone)}
    foreign = next((name for name in weights if name not in chosen and not _ignored(name)), None)
    if foreign is not None:
        remedy = f"Give the state dict of one of {_KNOWN}, as torchvision names it."
        raise UsageError(f"The tensor {foreign} belongs to no {kind}.", remedy=remedy, file=path)
    backbone = frozen_backbone(backbone, chosen)
    for name, parameter in backbone.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise UsageError(f"The weights of {name} overflow half precision.", remedy="Check the file.", file=path)
    return Pretrained(backbone, path.name, hashlib.sha256(data).hexdigest(), licence, kind)


def _ignored(name: str) -> bool:
    return name.startswith("fc.") or name.endswith("num_batches_tracked")


def _shape_of(weights: Mapping[str, Tensor], path: Path) -> BackboneShape:
    """Which member of the family the names tell of."""
    first = weights.get("conv1.weight")
    if first is None or first.ndim != 4 or first.shape[1] not in (1, 3):
        found = "is missing" if first is None else f"has the size {tuple(first.shape)}, not (width, 1 or 3, 7, 7)"
        raise UsageError(f"The tensor conv1.weight {found}.", remedy=f"Give the state dict of one of {_KNOWN}.",
                         file=path)  # fmt: skip
    numbers = [re.match(r"layer([1-4])\.(\d+)\.", name) for name in weights]
    counts = [max((int(n[2]) + 1 for n in numbers if n and n[1] == layer), default=0) for layer in "1234"]
    blocks, bottleneck = tuple(counts), any(".conv3." in name for name in weights)
    if (blocks, bottleneck) not in _NAMES:
        raise UsageError(
            f"The file has {', '.join(map(str, blocks))} blocks in its layers, "
            f"{'with' if bottleneck else 'without'} bottlenecks.", remedy=f"Give the state dict of one of {_KNOWN}.",
            file=path,
        )  # fmt: skip
    return BackboneShape(blocks, bottleneck, int(first.shape[0]), int(first.shape[1]))


def _fitting(weights: Mapping[str, Tensor], name: str, size: tuple[int, ...], path: Path) -> Tensor:
    """One tensor in float32.

    Raises:
        UsageError: it is missing, of another size or holds no finite numbers.
    """
    tensor, remedy = weights.get(name), f"Give the whole state dict of one of {_KNOWN}, as torchvision names it."
    if tensor is None:
        raise UsageError(f"The tensor {name} is missing.", remedy=remedy, file=path)
    if tuple(tensor.shape) != size:
        raise UsageError(f"The tensor {name} has the size {tuple(tensor.shape)}, not {size}.", remedy=remedy, file=path)
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
        raise UsageError(f"The tensor {name} holds something that is no finite number.", remedy=remedy, file=path)
    return tensor.float()


@torch.no_grad()
def affordable(pretrained: Pretrained, channels: int, size: tuple[int, ...], looks: int, seconds: float) -> int:
    """The longest side that the backbone can look at every image with in the time there is, else the smallest.

    Args:
        pretrained: timed with a few images of noise.
        channels, size: of the prepared planes.
        looks: images, times views.
        seconds: for all of them.
    """
    module, noise = pretrained.backbone, torch.randn(_TIMED, channels, *size[:2])
    for longest in _SIZES:
        module.longest = longest
        module(noise[:1])
        began = time.perf_counter()
        module(noise)
        if (time.perf_counter() - began) / _TIMED * looks <= seconds:
            return longest
    return _SIZES[-1]
