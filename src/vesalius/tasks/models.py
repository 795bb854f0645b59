"""From a verified bundle to the model that answers with it, by the task that its card names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vesalius.core.errors import BundleError
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction
from vesalius.store.bundle import Bundle, open_bundle


class BundledModel(Protocol):
    """A model that was loaded from a bundle."""

    @property
    def card(self) -> Mapping[str, Any]:
        """The bundle's card."""
        ...

    @property
    def version(self) -> str:
        """The first 12 digits of the bundle's digest."""
        ...

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Answer for one case.

        Raises:
            UnusableInput: these images cannot be answered for.
        """
        ...

    def verify(self) -> float:
        """Largest difference from the training side on the bundle's check volume."""
        ...


def load_model(model: str | Path | Bundle, threads: int | None = None) -> BundledModel:
    """The model of a bundle, loaded and ready.

    Args:
        model: a verified bundle, its folder, or the name of a shipped one.
        threads: processor threads; all that this process may use if left out.

    Raises:
        BundleError: the bundle is incomplete or altered, or of a task that this program does not know.
    """
    bundle = model if isinstance(model, Bundle) else open_bundle(model)
    task = bundle.card.get("task", "segmentation")
    if task == "segmentation":
        from vesalius.inference.segmenter import Segmenter

        return Segmenter(bundle, threads)
    if task == "classification":
        from vesalius.inference.classifier import Classifier

        return Classifier(bundle, threads)
    if task == "detection":
        from vesalius.classical.detection_model import from_bundle
        from vesalius.inference.detector import Detector

        opinion = bundle.card.get("second_opinion")
        return Detector(bundle, threads, from_bundle(bundle, opinion) if opinion else None)
    if task == "clustering":
        from vesalius.classical.clusters.model import ClusterModel

        return ClusterModel(bundle, threads)
    raise BundleError(f"This program knows no task {task!r}.", remedy="Update it.", file=bundle.folder)
