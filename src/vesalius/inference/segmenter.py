"""A bundle that outlines structures: the bedside's `Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.core.grid import Array, Grid
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction
from vesalius.imaging.prepare import Preparation, Prepared, prepare
from vesalius.inference.session import Session
from vesalius.inference.sliding import Sliding, peak_memory_mb, predict_labels
from vesalius.store.bundle import Bundle


class Segmenter:
    """Answers with a label map on the first input's own grid. One loaded network serves many cases.

    Args:
        bundle: a verified bundle whose card has the task "segmentation".
        threads: processor threads; all that this process may use if left out.

    Raises:
        BundleError: the card or the graph cannot be used.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self._bundle = bundle
        self._preparation = Preparation.from_json(bundle.card["preparation"])
        self._values = tuple(int(item["value"]) for item in bundle.card["classes"])
        self._session = Session(bundle, threads)
        self._sliding = Sliding.from_card(bundle.card["network"], self._session.fixed_window)

    @property
    def card(self) -> Mapping[str, Any]:
        """The bundle's card."""
        return self._bundle.card

    @property
    def version(self) -> str:
        """The first 12 digits of the bundle's digest: what a written answer says it came from."""
        return self._bundle.digest[:12]

    def verify(self) -> float:
        """Largest difference from the training side on the bundle's check volume; see `Session.verify`."""
        return self._session.verify()

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Outline one case.

        Args:
            images: intensity images in the order of the card's inputs.

        Returns:
            A prediction with `label_map` on `images[0].grid` in its own index order; `details` holds
            `volumes_ml` (by class name) and `peak_memory_mb` (an upper bound for this case).

        Raises:
            UnusableInput: the images cannot be prepared.
        """
        prepared = prepare(images, self._preparation)
        label_map = self._labels(prepared)
        return Prediction(label_map=label_map, details=self._details(label_map, prepared))

    def _labels(self, prepared: Prepared) -> Array:
        return predict_labels(prepared, self._session.run, self._sliding, self._values, batch=self._session.fixed_batch)

    def _details(self, label_map: Array, prepared: Prepared) -> dict[str, Any]:
        bound = peak_memory_mb(
            prepared.source.shape,
            1 + len(self._values),
            prepared=prepared.grid.shape,
            channels=len(prepared.array),
            window=self._sliding.window(prepared.grid.shape),
            batch=self._session.fixed_batch,
        )
        names = {item["value"]: str(item["name"]) for item in self.card["classes"]}
        return {"volumes_ml": volumes_ml(label_map, prepared.source, names), "peak_memory_mb": round(bound)}


def volumes_ml(label_map: Array, grid: Grid, names: Mapping[int, str]) -> dict[str, float]:
    """Volume of each class in millilitres, by name.

    Args:
        label_map: (i, j, k) integers on `grid`.
        grid: where the labels stand.
        names: class name by label value.
    """
    counts = np.zeros(max(names, default=0) + 1, np.int64)
    for plane in label_map:
        found = np.bincount(plane.ravel(), minlength=len(counts))
        counts += found[: len(counts)]
    return {name: float(counts[value] * grid.voxel_ml) for value, name in names.items()}
