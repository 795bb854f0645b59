"""Peak memory of predicting one 512 x 512 x 800 CT with 2 classes, against the stated bound and 6 GB.

    python bench/predict_memory.py [--spacing MM] [--width CHANNELS] [--threads N] [--shape I J K]

A CT-like NIfTI file and a random network are made in a temporary folder (about 0.5 GB); the prediction runs
in a process of its own, whose largest resident size is read from the operating system.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def random_network(width: int) -> bytes:
    """Two convolutions at full resolution, one channel to `width` to three classes."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    first = rng.normal(size=(width, 1, 3, 3, 3)).astype(np.float32) / 5
    second = rng.normal(size=(3, width, 1, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "a"], ["x"], pads=[1] * 6),
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Conv", ["y", "b"], ["logits"]),
    ]
    sizes = ["n", 1, "i", "j", "k"]
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 3, *sizes[2:]])],
        [numpy_helper.from_array(first, "a"), numpy_helper.from_array(second, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model.SerializeToString()


def make(folder: Path, shape: tuple[int, int, int], spacing: float | None, width: int) -> None:
    import nibabel

    from vesalius.store.bundle import write_bundle

    card = {
        "name": "memory",
        "task": "segmentation",
        "research_only": "Research use only.",
        "classes": [{"value": 1, "name": "a", "code": None}, {"value": 2, "name": "b", "code": None}],
        "inputs": ["image"],
        "preparation": {
            "inputs": ["image"],
            "spacing": None if spacing is None else [spacing] * 3,
            "normalisation": [{"kind": "clip_zscore", "low": -1000, "high": 1000, "mean": 0, "std": 300}],
        },
        "network": {"patch": [128, 128, 128], "overlap": 0.25, "mirror_axes": [], "outputs": "logits"},
    }
    write_bundle(folder / "bundle", {"model.onnx": random_network(width)}, card)
    rng = np.random.default_rng(0)
    ct = np.empty(shape, np.int16, order="F")
    for k in range(shape[2]):
        ct[..., k] = rng.integers(-1000, 1000, size=shape[:2], dtype=np.int16)
    nibabel.save(nibabel.Nifti1Image(ct, np.diag([0.8, 0.8, 1.0, 1.0])), folder / "ct.nii")


def predict(folder: Path, threads: int | None) -> None:
    import resource
    import time

    from vesalius.core.image import Image, Kind
    from vesalius.formats.nifti import read_nifti
    from vesalius.inference.segmenter import Segmenter
    from vesalius.store.bundle import open_bundle

    scan = read_nifti(folder / "ct.nii")[0]
    image = Image("ct", scan.grid, "image", Kind.INTENSITY, "CT", 1, scan.pixels)
    begun = time.monotonic()
    answer = Segmenter(open_bundle(folder / "bundle"), threads).predict([image])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {
        "peak_mb": round(peak),
        "stated_mb": answer.details["peak_memory_mb"],
        "seconds": round(time.monotonic() - begun, 1),
        "volumes_ml": answer.details["volumes_ml"],
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 800))
    parser.add_argument("--spacing", type=float, help="mm to resample to; the CT has 0.8 x 0.8 x 1")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        predict(options.inside, options.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), tuple(options.shape), options.spacing, options.width)
        command = [sys.executable, __file__, "--inside", name]
        command += ["--threads", str(options.threads)] if options.threads else []
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
