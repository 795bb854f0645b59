"""ONNX gives what torch gives, and the weights exist once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load

from vesalius.core.errors import VesaliusError
from vesalius.learning.export import Ensemble, compare, export, safetensors_offsets
from vesalius.networks.unet import OfVolumes, ResidualUNet, unet_shape


def network(patch: tuple[int, int, int], channels: int = 1, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    shape = unet_shape(patch, (1.0, 1.0, 1.0), width=4)
    planar = patch[2] == 1
    net = ResidualUNet(channels, 3, shape, 2 if planar else 3)
    return (OfVolumes(net) if planar else net).eval()


@pytest.mark.parametrize("patch", [(16, 16, 16), (32, 16, 8), (32, 32, 1)])
@pytest.mark.parametrize("half", [True, False])
def test_onnx_agrees_with_torch_at_other_sizes_and_batches(patch: tuple[int, int, int], half: bool) -> None:
    net = network(patch, channels=2)
    files = export([net], 2, patch, half=half)
    image = np.random.default_rng(1).normal(size=(3, 2, *(n if n == 1 else 2 * n for n in patch))).astype("f")
    with torch.no_grad():
        expected = net(torch.from_numpy(image)).numpy()
    assert compare(files, image, expected) < 1e-3


def test_an_ensemble_answers_with_its_mean_probability() -> None:
    nets = [network((16, 16, 16), seed=seed) for seed in range(3)]
    files = export(nets, 1, (16, 16, 16))
    image = np.random.default_rng(1).normal(size=(1, 1, 16, 16, 16)).astype("f")
    with torch.no_grad():
        answers = [net(torch.from_numpy(image)).softmax(1) for net in nets]
        mean = torch.stack(answers).mean(0)
        torch.testing.assert_close(Ensemble(nets)(torch.from_numpy(image)).softmax(1), mean)
    assert compare(files, image, mean.log().numpy()) < 1e-3


def test_normalised_networks_are_rounded_once() -> None:
    """Batch normalisation with statistics of its own: folded into rounded weights it would be off by 1e-3."""
    torch.manual_seed(0)
    net = torch.nn.Sequential()
    for number in range(4):
        normal = torch.nn.BatchNorm3d(24)
        torch.nn.init.uniform_(normal.weight, 0.5, 3.0)
        torch.nn.init.uniform_(normal.running_var, 0.05, 0.5)
        net.extend([torch.nn.Conv3d(24 if number else 2, 24, 3, padding=1), normal, torch.nn.ReLU()])
    files = export([net], 2, (16, 16, 8))
    expected = load(files["check.safetensors"])
    scale = float(np.abs(expected["output"]).max())
    assert compare(files, expected["input"], expected["output"]) < 2e-5 * max(1.0, scale)


def test_the_weights_lie_in_the_safetensors_file_only() -> None:
    files = export([network((16, 16, 16))], 1, (16, 16, 16), half=False)
    graph = onnx.load_model_from_string(files["model.onnx"]).graph
    stored, offsets = load(files["weights.safetensors"]), safetensors_offsets(files["weights.safetensors"])
    outside = [t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert {tensor.name for tensor in outside} == set(stored)
    for tensor in outside:
        entry = {item.key: item.value for item in tensor.external_data}
        start, length = offsets[tensor.name]
        assert (entry["location"], int(entry["offset"]), int(entry["length"])) == ("weights.safetensors", start, length)
        raw = files["weights.safetensors"][start : start + length]
        np.testing.assert_array_equal(np.frombuffer(raw, "f4").reshape(tensor.dims), stored[tensor.name])
    assert sum(len(t.raw_data) for t in graph.initializer) < 0.1 * len(files["weights.safetensors"])


def test_the_check_volume_holds_what_torch_answered() -> None:
    net = network((16, 16, 16))
    check = load(export([net], 1, (16, 16, 16))["check.safetensors"])
    with torch.no_grad():
        torch.testing.assert_close(net(torch.from_numpy(check["input"])), torch.from_numpy(check["output"]))


class Untraceable(torch.nn.Module):
    """Answers otherwise each time, so that a traced graph cannot agree."""

    calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.cat([image, image * self.calls], 1)


def test_a_graph_that_disagrees_is_refused() -> None:
    with pytest.raises(VesaliusError, match="differ"):
        export([Untraceable()], 1, (16, 16, 16))
