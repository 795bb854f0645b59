"""A bundle that outlines structures: the bedside's `Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction
from vesalius.imaging.prepare import Preparation, Prepared, normalise, prepare
from vesalius.imaging.resample import Float32
from vesalius.inference.bundled import BundledNetwork
from vesalius.inference.sliding import Sliding, peak_memory_mb, predict_labels, probability_planes
from vesalius.store.bundle import Bundle


class Segmenter(BundledNetwork):
    """Answers with a label map on the first input's own grid. One loaded network serves many cases.

    Args:
        bundle: a verified bundle whose card has the task "segmentation".
        threads: processor threads; all that this process may use if left out.

    Raises:
        BundleError: the card or the graph cannot be used.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        super().__init__(bundle, threads)
        self._preparation = Preparation.from_json(bundle.card["preparation"])
        self._values = tuple(int(item["value"]) for item in bundle.card["classes"])
        self._sliding = Sliding.from_card(bundle.card["network"], self._session.fixed_window)

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Outline one case.

        A bundle with a finder takes scans that are larger than its crops too: it finds its structures first
        and gives each side label values and names of its own.

        Args:
            images: intensity images in the order of the card's inputs.

        Returns:
            A prediction with `label_map` on `images[0].grid` in its own index order. `details` holds
            `classes` (as in the card, one for each value that the label map may have), `volumes_ml` (by
            class name), `peak_memory_mb` (an upper bound for this case), and for whole heads `finder` (how well
            the structures were found, by name).

        Raises:
            UnusableInput: the images cannot be prepared, or the finder does not find its structures.
        """
        if self.card.get("finder") and len(images) == 1:
            from vesalius.inference.finder import needs_finding

            if needs_finding(images[0].grid, self.card):
                return self._predict_found(images[0])
        prepared = prepare(images, self._preparation)
        label_map = self._labels(prepared)
        bound = self._bound(prepared.source, prepared.grid, len(prepared.array))
        return self._answer(label_map, prepared.source, self.card["classes"], {"peak_memory_mb": bound})

    def _labels(self, prepared: Prepared) -> Array:
        run, batch = self._session.run, self._session.fixed_batch
        return predict_labels(prepared, run, self._sliding, self._values, batch=batch)

    def _predict_found(self, image: Image) -> Prediction:
        """Outline both sides of a whole head, each in a box of its own."""
        from vesalius.inference.whole_head import outline_whole_head

        array = image.read()
        if array.shape[0] != 1:
            raise UnusableInput("The scan is in colour.", remedy="Give a scan with one channel.")
        label_map, details = outline_whole_head(
            array[0], image.grid, self.card, self._bundle.folder, self._probabilities
        )
        bound = self._bound(image.grid, Grid.from_parts(self.card["finder"]["box_mm"]), 1)
        return Prediction(label_map=label_map, details={**details, "peak_memory_mb": bound})

    def _probabilities(self, box: Float32) -> Float32:
        """(classes, i, j, k) of one box (i, j, k) of intensities at the network's spacing."""
        prepared = normalise(box[None], self._preparation.normalisation[0])
        run, batch = self._session.run, self._session.fixed_batch
        planes = probability_planes(prepared, run, self._sliding, 0, 1 + len(self._values), batch=batch)
        return np.concatenate([block.copy() for block in planes], axis=1)

    def _bound(self, source: Grid, prepared: Grid, channels: int) -> int:
        window = self._sliding.window(prepared.shape)
        classes, batch = 1 + len(self._values), self._session.fixed_batch
        return round(
            peak_memory_mb(
                source.shape, classes, prepared=prepared.shape, channels=channels, window=window, batch=batch
            )
        )

    def _answer(
        self, label_map: Array, grid: Grid, classes: Sequence[Mapping[str, Any]], details: Mapping[str, Any]
    ) -> Prediction:
        names = {int(item["value"]): str(item["name"]) for item in classes}
        volumes = volumes_ml(label_map, grid, names)
        return Prediction(label_map=label_map, details={"classes": list(classes), "volumes_ml": volumes, **details})


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
