"""A bundle that names classes: the bedside's `Model` for whole images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.finding import Finding
from vesalius.core.image import Image
from vesalius.core.protocols import Prediction
from vesalius.imaging.resample import Float32
from vesalius.imaging.whole import WholePreparation, map_on_image, prepare_whole
from vesalius.inference.bundled import BundledNetwork
from vesalius.store.bundle import Bundle

_MOST_MAPS = 3  # images of a case that a map is made of: as many as a report shows
KINDS = ("binary", "multiclass", "multilabel", "ordinal")


class Classifier(BundledNetwork):
    """Answers with a calibrated probability for each class. One loaded network serves many cases.

    Args:
        bundle: a verified bundle whose card has the task "classification".
        threads: processor threads; all that this process may use if left out.

    Raises:
        BundleError: the card or the graph cannot be used.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        super().__init__(bundle, threads, ("logits", "map"))
        self._preparation = WholePreparation.from_json(bundle.card["preparation"])
        self._names = tuple(str(item["name"]) for item in bundle.card["classes"])
        self._kind = str(bundle.card.get("kind"))
        self._threshold: Mapping[str, Any] = bundle.card.get("threshold") or {"rule": "highest"}
        if self._kind not in KINDS or not self._names:
            raise BundleError("The card does not say what kind of classes these are.", file=bundle.folder)
        if self._threshold.get("rule") == "threshold" and len(self._threshold.get("values", ())) < self._wanted():
            raise BundleError("The card's thresholds do not fit its classes.", file=bundle.folder)

    def _wanted(self) -> int:
        """Thresholds that the kind of classes needs."""
        return len(self._names) if self._kind == "multilabel" else 1

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Answer for one case.

        Args:
            images: the case's images; the logits of those that can be used are averaged, so any number of views
                may be missing.

        Returns:
            A finding for each class with its probability, in the order of the card's classes. `details` holds
            `predicted` (a name, or a list of names where several labels may be there), `aside` (reason by image id,
            for those of several that could not be used), and, of the first three images, `map_0`, `map_1` and
            `map_2`: the class-activation map (classes, i, j, k) on the image's grid, higher where it speaks for the
            class, None for images that are too large for it.

        Raises:
            UnusableInput: none of the images can be used.
        """
        if not images:
            raise UnusableInput("There is no image to look at.", remedy="Give at least one image.")
        logits, maps, aside = [], {}, {}
        for number, image in enumerate(images):
            try:
                batch = prepare_whole(image, self._preparation)[None]
            except UnusableInput as error:
                if len(images) == 1:
                    raise
                aside[image.id] = error.what
                continue
            said, places = self._session.run_all(batch)
            logits.append(said[0])
            if number < _MOST_MAPS:
                maps[f"map_{number}"] = map_on_image(places[0], image.grid, self._preparation)
        if not logits:
            raise UnusableInput("None of the case's images can be used.", remedy="; ".join(sorted(set(aside.values()))))
        shares = probabilities(np.mean(logits, axis=0), self._kind)
        findings = tuple(Finding(name, score=float(p)) for name, p in zip(self._names, shares, strict=True))
        return Prediction(findings=findings, details={"predicted": self._predicted(shares), "aside": aside, **maps})

    def _predicted(self, shares: Float32) -> str | list[str]:
        """What is called, by the rule that was chosen when the model was fitted."""
        values = self._threshold.get("values", [])
        if self._kind == "multilabel":
            return [name for name, p, least in zip(self._names, shares, values, strict=True) if p >= least]
        if self._threshold["rule"] == "threshold":
            return self._names[int(shares[1] >= values[0])]
        if self._threshold["rule"] == "expected":
            return self._names[round(float((shares * np.arange(len(shares))).sum()))]
        return self._names[int(np.argmax(shares))]


def probabilities(logits: Float32, kind: str) -> Float32:
    """(classes,) probabilities of logits (classes,): each on its own for several labels, else adding up to 1."""
    values = logits.astype(np.float64)
    if kind == "multilabel":
        shares = 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    else:
        powers = np.exp(values - values.max())
        shares = powers / powers.sum()
    return shares.astype(np.float32)
