"""A fitted rival of detection: what the filters propose in an image, judged; also as part of a detector's bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.classical.atlas import pack_arrays, unpack_arrays
from vesalius.classical.grading import Grader
from vesalius.classical.kept import Kept
from vesalius.classical.lesions.candidates import Candidates, find_candidates
from vesalius.classical.lesions.field import Field, read_field
from vesalius.classical.trees import Trees
from vesalius.core.errors import BundleError, StoreError, UnusableInput
from vesalius.core.finding import Box, Finding
from vesalius.core.grid import FloatArray
from vesalius.core.image import Image, Kind
from vesalius.core.protocols import Prediction
from vesalius.store.bundle import Bundle

_LIMIT = float(np.log(3.0))  # of the logarithm of a lesion's size over its candidate's
_FOLDER = "filters"  # of a bundle
_MOST_SIDE = 1 << 13  # pixels that a bundle's filters may look at along the longer edge


@dataclass(frozen=True, eq=False)
class Proposed:
    """What the filters propose in one image.

    Args:
        image: its id.
        found: candidates in the image's field.
        centres: (n, 3) of the candidates, in the image's own index space.
        axes: those of the image that the field keeps.
        step: pixels of the image per pixel of the field, by kept axis.
    """

    image: str
    found: Candidates
    centres: FloatArray
    axes: tuple[int, ...]
    step: FloatArray


def proposed_in(image: Image, plan: Mapping[str, Any]) -> tuple[Field, Proposed]:
    """An image's field, and what the filters propose in it.

    Args:
        image: plane or volume.
        plan: how it is looked at, from a fitted model's card.

    Raises:
        UnusableInput: the image cannot be used.
    """
    field = read_field(image, int(plan["side"]))
    radii = [max(1.0, share * max(field.values.shape)) for share in plan["radii"]]
    found = find_candidates(field, radii, bool(plan["dark"]))
    return field, Proposed(image.id, found, field.to_index(found.places), field.axes, field.step)


class FilterModel:
    """A fitted rival of detection."""

    kind = "hand-designed-filters"

    def __init__(self, card: Mapping[str, Any], grader: Grader, sizers: Sequence[tuple[Trees | None, float]]) -> None:
        self.card = card
        self.grader = grader
        self.sizers = tuple(sizers)

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Boxes in each image's own index space, of every class, by falling score.

        Raises:
            UnusableInput: there is no image, or it has another number of dimensions than the training images.
        """
        chosen = [image for image in images if image.kind is Kind.INTENSITY]
        if not chosen:
            raise UnusableInput("The case has no image.", remedy="Ingest its images again.")
        findings = [finding for image in chosen for finding in self.marks(proposed_in(image, self.card["plan"])[1])]
        return Prediction(tuple(sorted(findings, key=lambda finding: -finding.score)))

    def marks(self, proposed: Proposed) -> list[Finding]:
        """Boxes in the image's own index space, those of each class by falling score.

        Raises:
            UnusableInput: the image has another number of dimensions than the training images.
        """
        found = proposed.found
        if len(proposed.axes) != len(self.sizers):
            raise UnusableInput("The rival was fitted on images with another number of dimensions.")
        shares = self.grader.probabilities(found.features)
        ratio = np.stack([_estimated(sizer, found.features) for sizer in self.sizers], axis=1)
        half = np.exp(np.clip(ratio, -_LIMIT, _LIMIT)) * found.radii[:, None]
        widths = np.ones((len(half), 3))
        widths[:, proposed.axes] = np.maximum(2 * half * proposed.step, 1.0)
        findings = []
        for number, entry in enumerate(self.card["classes"], start=1):
            for index in _apart(found.places, found.radii, shares[:, number], self.card["parameters"]):
                i, j, k = (float(value) for value in proposed.centres[index])
                width, height, depth = (float(value) for value in widths[index])
                box = Box(proposed.image, (i, j, k), (width, height, depth))
                findings.append(Finding(str(entry["name"]), float(shares[index, number]), box))
        return findings

    def keep(self) -> Kept:
        """Everything that `from_kept` needs."""
        files = {"grader": pack_arrays(self.grader.arrays())}
        for axis, (trees, _) in enumerate(self.sizers):
            if trees is not None:
                files[f"sizer-{axis}"] = pack_arrays(trees.arrays())
        return Kept(self.kind, {"card": self.card, "sizes": [middle for _, middle in self.sizers]}, files)

    @classmethod
    def from_kept(cls, kept: Kept) -> FilterModel:
        """The model that `keep` described; it answers exactly alike."""
        sizers = []
        for axis, middle in enumerate(kept.values["sizes"]):
            name = f"sizer-{axis}"
            trees = Trees.from_arrays(unpack_arrays(kept.files[name])) if name in kept.files else None
            sizers.append((trees, float(middle)))
        return cls(kept.values["card"], Grader.from_arrays(unpack_arrays(kept.files["grader"])), sizers)


def _estimated(sizer: tuple[Trees | None, float], features: FloatArray) -> FloatArray:
    trees, middle = sizer
    return np.full(len(features), middle) if trees is None else trees.scores(features)[:, 0] + middle


def _apart(places: FloatArray, radii: FloatArray, scores: FloatArray, settings: Mapping[str, Any]) -> list[int]:
    """Candidates by falling score, without those that come too near to a better one."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        away = [float(np.linalg.norm(places[index] - places[other])) for other in kept]
        near = [float(settings["overlap"]) * max(radii[index], radii[other]) for other in kept]
        if all(a > n for a, n in zip(away, near, strict=True)):
            kept.append(int(index))
            if len(kept) == settings["most"]:
                break
    return kept


def in_bundle(model: FilterModel) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A model as an entry of a bundle's card and the files that go with it; see `from_bundle`."""
    kept = model.keep()
    files = {f"{_FOLDER}/{name}.npz": data for name, data in kept.files.items()}
    return {"values": kept.values, "files": sorted(kept.files)}, files


def from_bundle(bundle: Bundle, opinion: Mapping[str, Any]) -> FilterModel:
    """The model that `in_bundle` wrote; it answers exactly alike.

    Args:
        bundle: verified.
        opinion: of its card, with that entry as "filters".

    Raises:
        BundleError: it cannot be read.
    """
    try:
        entry = opinion["filters"]
        files = {str(name): bundle.path(f"{_FOLDER}/{name}.npz").read_bytes() for name in entry["files"]}
        model = FilterModel.from_kept(Kept(FilterModel.kind, entry["values"], files))
        plan, parameters = model.card["plan"], model.card["parameters"]
        numbers = [plan["side"], *plan["radii"], plan["dark"], parameters["overlap"], parameters["most"]]
        if not plan["radii"] or not 1 <= int(plan["side"]) <= _MOST_SIDE or not np.isfinite(numbers).all():
            raise ValueError("no plan")
        if any(not isinstance(entry["name"], str) for entry in model.card["classes"]):
            raise ValueError("no names")
        return model
    except (StoreError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError("The bundle's filters cannot be read.", remedy="Fit again.", file=bundle.folder) from error
