"""From trained networks to the files of a bundle: an ONNX graph whose weights lie in one safetensors file.

The graph's initialisers are ONNX external data that point into `weights.safetensors` (offset and length
behind its header), so the weights exist once, readable by either kind of program, and nothing is pickled.
"""

from __future__ import annotations

import io
import json
import logging
import math
import struct
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save
from torch import Tensor, nn

from vesalius.core.errors import VesaliusError
from vesalius.core.grid import Array

TOLERANCE = 1e-3  # largest difference of logits between torch and ONNX Runtime
WEIGHTS = "weights.safetensors"
_OPSET = 17
_SMALL = 1024  # bytes; smaller constants stay inside the graph


class Ensemble(nn.Module):
    """Several networks as one: the logarithm of their mean probability, so that softmax gives the mean."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, i, j, k) to (n, classes, i, j, k)."""
        logs = torch.stack([torch.log_softmax(network(image), 1) for network in self.networks])
        return torch.logsumexp(logs, 0) - math.log(len(self.networks))


def export(networks: Sequence[nn.Module], channels: int, size: Sequence[int], *, half: bool = True) -> dict[str, bytes]:
    """The bundle's files for one network or an ensemble.

    Args:
        networks: trained, (n, channels, i, j, k) to logits (n, classes, i, j, k); brought to the CPU.
        channels: of the input.
        size: (i, j, k) of the check volume, a window that the networks take; k = 1 for planes.
        half: store weights as float16, half the size; they are rounded in torch too, before the comparison.

    Returns:
        `model.onnx`, `weights.safetensors`, and `check.safetensors` with a synthetic input and the output
        that torch gives for it.

    Raises:
        VesaliusError: torch and ONNX Runtime differ by more than 1e-3.
    """
    whole = networks[0] if len(networks) == 1 else Ensemble(networks)
    image = check_volume(channels, size)
    free = {0: "n", 2: "i", 3: "j"} | ({4: "k"} if image.shape[4] > 1 else {})
    return export_module(whole, image, {"image": free, "logits": free}, half=half)


def export_module(
    module: nn.Module, image: Array, axes: Mapping[str, Mapping[int, str]], *, half: bool = True
) -> dict[str, bytes]:
    """The bundle's files for any module that takes one image.

    Args:
        module: (n, channels, i, j, k) to its output, or to a tuple of outputs; brought to the CPU.
        image: (1, channels, i, j, k) float32, the check input.
        axes: the axes that stay free with their names, of "image" and then of each output in order.
        half: store weights as float16; they are rounded in torch too, before the comparison.

    Returns:
        `model.onnx`, `weights.safetensors`, and `check.safetensors` with the input, the first output as
        "output", and each further one under its own name.

    Raises:
        VesaliusError: torch and ONNX Runtime differ by more than 1e-3.
    """
    names = [name for name in axes if name != "image"]
    whole = module.cpu().float().eval()
    whole = whole.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if half:
        _round_to_half(whole)
    graph = _graph(whole, image, names, axes)
    _check_names(graph)
    weights = _move_weights(graph, half)
    with torch.no_grad():
        given = whole(torch.from_numpy(image))
    expected = [tensor.numpy() for tensor in (given if isinstance(given, tuple) else (given,))]
    files = {"model.onnx": graph.SerializeToString(), WEIGHTS: weights}
    further = {name: np.ascontiguousarray(array) for name, array in zip(names[1:], expected[1:], strict=True)}
    files["check.safetensors"] = save({"input": image, "output": np.ascontiguousarray(expected[0]), **further})
    difference = max(compare(files, image, array, name) for name, array in zip(names, expected, strict=True))
    if not difference <= TOLERANCE:
        raise VesaliusError(
            f"ONNX Runtime and torch differ by {difference:.2g}, more than {TOLERANCE:g}.",
            remedy="Use only operations that ONNX has, or update torch and onnxruntime.",
        )
    return files


def check_volume(channels: int, size: Sequence[int]) -> Array:
    """A synthetic input (1, channels, i, j, k) float32: a bright blob in noise."""
    noise = np.random.default_rng(0).normal(size=(1, channels, *size)).astype(np.float32)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in size), indexing="ij")
    blob = np.exp(-4 * sum(np.square(axis) for axis in axes)).astype(np.float32)
    return np.ascontiguousarray(0.3 * noise + 2 * blob)


def compare(files: dict[str, bytes], image: Array, expected: Array, output: str = "logits") -> float:
    """Largest difference between an output of ONNX Runtime and the expected one."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        for name in ("model.onnx", WEIGHTS):
            (Path(folder) / name).write_bytes(files[name])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        found = session.run([output], {"image": image})[0]
        del session
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf


def _round_to_half(network: nn.Module) -> None:
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())


def _graph(
    network: nn.Module, image: Array, names: Sequence[str], axes: Mapping[str, Mapping[int, str]]
) -> onnx.ModelProto:
    """Trace the network; the named axes stay free."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of its own age; the result is compared anyway
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            network, (torch.from_numpy(image),), buffer,  # type: ignore[arg-type]
            dynamo=False, opset_version=_OPSET,
            input_names=["image"], output_names=list(names),
            dynamic_axes={name: dict(free) for name, free in axes.items()},
            # As it stands: normalisation folded into weights here would be rounded to float16 once more.
            do_constant_folding=True, training=torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
    model: onnx.ModelProto = onnx.load_model_from_string(buffer.getvalue())
    return model


def _check_names(model: onnx.ModelProto) -> None:
    """Leave nothing of this machine's paths in the graph."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]


def _move_weights(model: onnx.ModelProto, half: bool) -> bytes:
    """Move the graph's large constants into a safetensors file and point to them; returns that file."""
    kept: list[TensorProto] = []
    moved: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.nbytes < _SMALL or array.dtype != np.float32:
            kept.append(tensor)
            continue
        moved[tensor.name] = np.ascontiguousarray(array.astype(np.float16) if half else array)
    blob = save(moved)
    offsets = safetensors_offsets(blob)
    casts = []
    for name, array in moved.items():
        stored = f"{name}.half" if half else name
        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        kept.append(_pointer(stored, kind, array.shape, *offsets[name]))
        if half:
            casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(casts + nodes)
    return blob


def _pointer(name: str, kind: int, shape: Sequence[int], offset: int, length: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=kind, dims=list(shape), data_location=TensorProto.EXTERNAL)
    for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def safetensors_offsets(blob: bytes) -> dict[str, tuple[int, int]]:
    """Offset in the file and length in bytes of each tensor (format: 8 bytes of header length, JSON, data)."""
    (header,) = struct.unpack("<Q", blob[:8])
    entries: dict[str, Any] = json.loads(blob[8 : 8 + header])
    return {
        name: (8 + header + entry["data_offsets"][0], entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in entries.items()
        if name != "__metadata__"
    }
