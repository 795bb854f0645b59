"""How well a network does on prepared cases that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from vesalius.core.grid import Array
from vesalius.learning.data import PreparedCase, class_table, read_patch


@torch.no_grad()
def probabilities(
    network: nn.Module, image: Array, patch: Sequence[int], mirror_axes: Sequence[int], device: str
) -> Tensor:
    """Mean class probabilities (classes, i, j, k) of a prepared volume (channels, i, j, k).

    Windows of `patch` with Gaussian weights and half overlap; the volume's border is repeated where it is
    smaller than the patch.
    """
    shape = image.shape[1:]
    size = [max(n, p) for n, p in zip(shape, patch, strict=True)]
    start = [-((n - own) // 2) for n, own in zip(size, shape, strict=True)]
    batch = torch.from_numpy(read_patch(image, start, size).astype(np.float32))[None].to(device)

    def once(volume: Tensor) -> Tensor:
        answer = sliding_window_inference(volume, patch, 4, network, overlap=0.5, mode="gaussian")
        assert isinstance(answer, Tensor)
        return answer.float().softmax(1)

    mean = once(batch)
    for axis in mirror_axes:
        mean = mean + once(batch.flip(2 + axis)).flip(2 + axis)
    i, j, k = (slice(-a, -a + n) for a, n in zip(start, shape, strict=True))
    return (mean[0, :, i, j, k] / (1 + len(mirror_axes))).cpu()


def dice_per_class(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    classes: Mapping[int, int],
    ignore: int | None,
    patch: Sequence[int],
    mirror_axes: Sequence[int],
    device: str,
) -> Array:
    """Dice (cases, classes) on the prepared grid; NaN where truth and answer are both empty."""
    table = class_table(classes, ignore)
    was_training = network.training
    network.eval()
    rows = []
    for case in cases:
        truth = table[case.label()[:]]
        image = case.image()[:]
        found = probabilities(network, image, patch, mirror_axes, device).argmax(0).numpy()
        kept = truth <= len(classes)
        row = []
        for number in classes.values():
            ours, theirs = (found == number) & kept, truth == number
            total = int(ours.sum() + theirs.sum())
            row.append(2 * int((ours & theirs).sum()) / total if total else np.nan)
        rows.append(row)
    network.train(was_training)
    return np.array(rows)
