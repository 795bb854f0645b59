"""One network of a bundle, loaded into ONNX Runtime and ready to run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vesalius.core.errors import BundleError
from vesalius.imaging.resample import Float32
from vesalius.store.bundle import MODEL, Bundle

CHECK = "check.safetensors"
TOLERANCE = 1e-3  # largest difference allowed between the training side's logits and these


class Session:
    """A loaded network: float32 "image" (n, channels, i, j, k) to its outputs, "logits" unless others are named.

    ONNX Runtime refuses external data outside the model's folder, and the bundle refuses links and files
    that its manifest does not list, so a graph reads nothing but its bundle.

    Args:
        bundle: a verified bundle.
        threads: processor threads; those this process may use if left out. CUDA is used where the installed
            ONNX Runtime offers it.
        outputs: names of the outputs that the graph must have, the one that is verified first.

    Raises:
        BundleError: the graph cannot be loaded, or does not have that input and these outputs.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, outputs: Sequence[str] = ("logits",)) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Window sizes differ from one volume to the next: patterns and growing arenas would only add memory.
        options.enable_mem_pattern = False
        # Threads that spin while they wait burn the core that prepares the next case.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        offered = onnxruntime.get_available_providers()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(bundle.path(MODEL)), options, providers=[name for name in wanted if name in offered]
            )
        except Exception as error:  # ONNX Runtime's errors share no class of their own
            raise BundleError(
                "The model's graph cannot be loaded.",
                remedy="Fit the model again, or update onnxruntime.",
                file=bundle.folder,
            ) from error
        self._bundle, self._outputs = bundle, tuple(outputs)
        inputs, there = self._session.get_inputs(), {item.name for item in self._session.get_outputs()}
        if [item.name for item in inputs] != ["image"] or not there.issuperset(self._outputs):
            raise BundleError(
                f'The model\'s graph does not take "image" and give {", ".join(self._outputs)}.',
                remedy="Fit the model again.",
                file=bundle.folder,
            )
        self._shape = [size if isinstance(size, int) else None for size in inputs[0].shape]

    @property
    def fixed_batch(self) -> int | None:
        """How many windows each run must take; None if any number will do."""
        return self._shape[0]

    @property
    def fixed_window(self) -> tuple[int, int, int] | None:
        """The only window (i, j, k) that the graph takes; None if its sizes are free."""
        i, j, k = self._shape[2:]
        return None if i is None or j is None or k is None else (i, j, k)

    def run(self, batch: Float32) -> Float32:
        """The first output, such as logits (n, classes, i, j, k), of windows (n, channels, i, j, k), both float32.

        Raises:
            BundleError: as `run_all`.
        """
        return self._run(batch, self._outputs[:1])[0]

    def run_all(self, batch: Float32) -> list[Float32]:
        """Every output, in the order of their names, of windows (n, channels, i, j, k), all float32.

        Raises:
            BundleError: the graph cannot be run on windows of this shape, or not in this machine's memory.
        """
        return self._run(batch, self._outputs)

    def _run(self, batch: Float32, names: Sequence[str]) -> list[Float32]:
        try:
            found: list[Float32] = self._session.run(list(names), {"image": np.ascontiguousarray(batch)})
        except Exception as error:
            raise BundleError(
                f"The network could not be run on an array of shape {batch.shape}.",
                remedy="Free some memory; if that does not help, fit the model again.",
                file=self._bundle.folder,
            ) from error
        return found

    def verify(self) -> float:
        """Run the bundle's check volume; the largest difference from the training side's logits.

        Raises:
            BundleError: there is no check volume, or the difference is above 1e-3.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            check = load_file(self._bundle.path(CHECK))
            given, expected = check["input"], check["output"]
        except (SafetensorError, KeyError) as error:
            raise BundleError(
                f"The bundle's {CHECK} cannot be read.", remedy="Fit again.", file=self._bundle.folder
            ) from error
        actual = self.run(given)
        same_shape = actual.shape == expected.shape
        difference = float(np.abs(actual - expected).max()) if same_shape else float("inf")
        if not difference <= TOLERANCE:
            raise BundleError(
                f"The model answers differently here than where it was fitted (by {difference:.2g}).",
                remedy="Update onnxruntime, or fit the model on this machine.",
                file=self._bundle.folder,
            )
        return difference


def usable_threads() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
