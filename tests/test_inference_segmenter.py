"""A whole bundle at the bedside: a toy network in ONNX, opened, verified and run on images."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.grid import Grid
from vesalius.core.image import Image, Kind
from vesalius.inference.segmenter import Segmenter, volumes_ml
from vesalius.inference.session import Session
from vesalius.store.bundle import open_bundle, write_bundle

onnx = pytest.importorskip("onnx")
WEIGHT = np.array([0.0, 4.0], np.float32)  # class 1 where the normalised intensity is positive: above 50


def toy_graph(
    location: str = "weights.safetensors", offset: int = 0, sizes: tuple[Any, ...] = ("n", 1, "i", "j", "k")
) -> bytes:
    """A 1 x 1 x 1 convolution from one channel to two classes, its weights outside the graph."""
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 1, 1, 1, 1])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", "8")):
        weight.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["logits"])],
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [sizes[0], 2, *sizes[2:]])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model.SerializeToString()


def toy_files(**graph: Any) -> dict[str, bytes]:
    from safetensors.numpy import save

    weights = save({"w": WEIGHT.reshape(2, 1, 1, 1, 1)})
    header = int.from_bytes(weights[:8], "little")
    given = np.random.default_rng(0).normal(size=(1, 1, 8, 8, 8)).astype(np.float32)
    expected = WEIGHT[:, None, None, None] * given
    graph.setdefault("offset", 8 + header)
    return {
        "model.onnx": toy_graph(**graph),
        "weights.safetensors": weights,
        "check.safetensors": save({"input": given, "output": expected}),
    }


HALF = {"kind": "clip_zscore", "low": -10.0, "high": 110.0, "mean": 50.0, "std": 20.0}
CARD: dict[str, Any] = {
    "name": "toy",
    "task": "segmentation",
    "research_only": "Research use only.",
    "classes": [{"value": 5, "name": "bright", "code": None}],
    "inputs": ["image"],
    "preparation": {"inputs": ["image"], "spacing": [1.0, 1.0, 1.0], "normalisation": [HALF]},
    "network": {"patch": [16, 16, 16], "overlap": 0.5, "mirror_axes": [0], "outputs": "logits"},
    "finder": None,
}


@dataclass(frozen=True)
class Held:
    array: Any

    def read(self) -> Any:
        return self.array


def ball(grid: Grid) -> Image:
    """A bright ball of 6 mm around (10, 12, 14) mm."""
    lattice = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid.to_patient(lattice) - (10.0, 12.0, 14.0), axis=-1)
    array = 100 * (distance <= 6.0) + np.random.default_rng(0).normal(size=grid.shape)
    return Image("x", grid, "image", Kind.INTENSITY, "MR", 1, Held(array[None].astype(np.float32)))


GRIDS = [
    Grid.from_parts((24, 26, 28)),
    Grid.from_parts((28, 24, 26), origin=(0, 0, 28), directions=[[0, 1, 0], [0, 0, 1], [-1, 0, 0]]),
    Grid.from_parts((40, 12, 50), spacing=(0.6, 2.0, 0.6)),
]


@pytest.mark.parametrize("grid", GRIDS)
def test_predict_answers_on_the_inputs_own_grid(tmp_path: Path, grid: Grid) -> None:
    segmenter = Segmenter(open_bundle(write_bundle(tmp_path / "toy", toy_files(), CARD)), threads=1)
    image = ball(grid)
    answer = segmenter.predict([image])
    assert answer.status == "ok"
    assert answer.label_map is not None
    truth = image.read()[0] > 50
    found = answer.label_map == 5
    dice = 2 * (truth & found).sum() / (truth.sum() + found.sum())
    assert dice > (0.999 if grid.spacing == (1, 1, 1) else 0.93)
    ball_ml = 4 / 3 * np.pi * 6**3 / 1000
    assert answer.details["volumes_ml"]["bright"] == pytest.approx(ball_ml, rel=0.2)
    assert answer.details["peak_memory_mb"] > 100
    with pytest.raises(UnusableInput):
        segmenter.predict([image, image])


def test_a_graph_of_fixed_size_is_served_too(tmp_path: Path) -> None:
    files = toy_files(sizes=(2, 1, 12, 12, 12))
    bundle = open_bundle(write_bundle(tmp_path / "fixed", files, CARD))
    fixed = Segmenter(bundle, threads=1)
    free = Segmenter(open_bundle(write_bundle(tmp_path / "free", toy_files(), CARD)), threads=1)
    image = ball(GRIDS[0])
    np.testing.assert_array_equal(fixed.predict([image]).label_map, free.predict([image]).label_map)


def test_the_check_volume_is_verified(tmp_path: Path) -> None:
    from safetensors.numpy import load, save

    files = toy_files()
    assert Session(open_bundle(write_bundle(tmp_path / "good", files, CARD)), 1).verify() < 1e-5
    check = load(files["check.safetensors"])
    wrong = {**files, "check.safetensors": save({**check, "output": check["output"] + 0.01})}
    with pytest.raises(BundleError, match="answers differently"):
        Session(open_bundle(write_bundle(tmp_path / "bad", wrong, CARD)), 1).verify()
    for damage in (b"", save({"input": check["input"]})):
        odd = open_bundle(write_bundle(tmp_path / "odd", {**files, "check.safetensors": damage}, CARD))
        with pytest.raises(BundleError, match="cannot be read"):
            Session(odd, 1).verify()


@pytest.mark.parametrize("kind", ["above", "absolute", "through"])
def test_weights_outside_the_bundle_are_refused(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside.bin"
    outside.write_bytes(WEIGHT.tobytes())
    location = {"above": "../outside.bin", "absolute": str(outside), "through": "x/../../outside.bin"}[kind]
    files = toy_files(location=location, offset=0)
    bundle = open_bundle(write_bundle(tmp_path / "toy", files, CARD))
    with pytest.raises(BundleError, match="cannot be loaded"):
        Session(bundle, 1)


def test_damaged_graphs_are_bundle_errors(tmp_path: Path) -> None:
    files = toy_files()
    for number, graph in enumerate((b"", b"not a graph", files["model.onnx"][:-20])):
        folder = write_bundle(tmp_path / str(number), {**files, "model.onnx": graph}, CARD)
        with pytest.raises(BundleError, match=r"graph|card"):
            Segmenter(open_bundle(folder), threads=1)


def test_a_window_the_graph_does_not_take_is_a_bundle_error(tmp_path: Path) -> None:
    session = Session(open_bundle(write_bundle(tmp_path / "toy", toy_files(), CARD)), 1)
    with pytest.raises(BundleError, match="could not be run"):
        session.run(np.zeros((1, 3, 8, 8, 8), np.float32))


def test_volumes_are_counted_in_millilitres() -> None:
    labels = np.zeros((10, 10, 10), np.uint16)
    labels[:5] = 2
    labels[5, 0, 0] = 900  # a value the card does not name is not counted
    grid = Grid.from_parts((10, 10, 10), spacing=(2, 1, 1))
    assert volumes_ml(labels, grid, {2: "half", 3: "none"}) == {"half": 1.0, "none": 0.0}


def test_the_bedside_needs_no_training_library(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "toy", toy_files(), CARD)
    code = f"""
import sys
from vesalius.inference.segmenter import Segmenter
assert "onnxruntime" not in sys.modules
from vesalius.store.bundle import open_bundle
Segmenter(open_bundle({str(folder)!r}), threads=1).verify()
assert not {{"torch", "monai", "onnx"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
