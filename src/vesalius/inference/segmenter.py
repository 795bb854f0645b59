"""A bundle that outlines structures: the bedside's `Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction
from vesalius.imaging.prepare import Preparation, Prepared, prepare
from vesalius.inference.boxes import predict_box
from vesalius.inference.session import Session
from vesalius.inference.sliding import Sliding, peak_memory_mb, predict_labels
from vesalius.store.bundle import Bundle

if TYPE_CHECKING:
    from vesalius.inference.finder import Found


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

        A bundle with a finder takes scans that are larger than its crops too: it finds its structures first
        and gives each side label values and names of its own.

        Args:
            images: intensity images in the order of the card's inputs.

        Returns:
            A prediction with `label_map` on `images[0].grid` in its own index order. `details` holds
            `classes` (as in the card, one for each value that the label map may have), `volumes_ml` (by
            class name), `peak_memory_mb` (an upper bound for this case), and after finding `found` (how well
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
        """Outline what the finder finds, each region in a box of its own."""
        from vesalius.inference.finder import find_regions

        array = image.read()
        if array.shape[0] != 1:
            raise UnusableInput("The scan is in colour.", remedy="Give a scan with one channel.")
        found = find_regions(array[0], image.grid, self.card["finder"], self._bundle.folder)
        label_map = np.zeros(image.grid.shape, np.uint8)
        for region in found.regions:
            block, labels = predict_box(
                array[0], image.grid, region.grid, self._preparation, self._session.run, self._sliding,
                self._values, batch=self._session.fixed_batch,
            )  # fmt: skip
            hit = labels > 0
            label_map[block][hit] = labels[hit] + region.offset
        bound = self._bound(image.grid, found.regions[0].grid, 1)
        details = {"peak_memory_mb": bound, "found": dict(found.quality)}
        return self._answer(label_map, image.grid, self._sided_classes(found), details)

    def _sided_classes(self, found: Found) -> list[dict[str, Any]]:
        """The card's classes once per region: values raised by its offset, names led by its side."""
        return [
            {**item, "value": item["value"] + region.offset, "name": f"{region.side}_{item['name']}"}
            for region in found.regions
            for item in self.card["classes"]
        ]

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
