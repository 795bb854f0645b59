"""A bundle that finds lesions: the bedside's `Model` for places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.core.errors import BundleError, UnusableInput
from vesalius.core.finding import Box, Finding
from vesalius.core.grid import Array
from vesalius.core.image import Image
from vesalius.core.protocols import Model, Prediction
from vesalius.imaging.contrast import View, ViewRecipe, view
from vesalius.imaging.resample import Float32
from vesalius.inference.bundled import BundledNetwork
from vesalius.inference.candidates import Candidates, candidates, with_points
from vesalius.inference.heat import HeatGeometry, heat_map
from vesalius.inference.other_views import OtherViews, Pose, pose_of, tables_of
from vesalius.inference.second_look import SecondLook, features
from vesalius.inference.second_opinion import SecondOpinion, joined, marks_of
from vesalius.store.bundle import Bundle

_MOST_FINDINGS = 1000  # per image and class, that a card may ask for


@dataclass(frozen=True, eq=False)
class _LookedAt:
    """One image with its candidates by class, their scores, and their boxes in the image's own index space."""

    image: str
    pose: Pose | None
    marks: list[Candidates]
    scores: list[Array]
    boxes: list[list[Box]]


class Detector(BundledNetwork):
    """Answers with boxes in the inputs' own index space. One loaded network serves many cases.

    Args:
        bundle: a verified bundle whose card has the task "detection".
        threads: processor threads; all that this process may use if left out.
        filters: what gives the second opinion that the card names.

    Raises:
        BundleError: the card or the graph cannot be used, or the filters are missing.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, filters: Model | None = None) -> None:
        super().__init__(bundle, threads, ("heat", "size"))
        try:
            self._recipe = ViewRecipe.from_json(bundle.card["preparation"]["view"])
            network = bundle.card["network"]
            self._geometry = HeatGeometry(
                _triple(network["stride"]), _triple(network["multiple"]),
                tuple(sorted({int(axis) for axis in network["mirror_axes"]})),
            )  # fmt: skip
            self._most = int(network.get("most", 10))
            look, opinion = bundle.card.get("second_look"), bundle.card.get("second_opinion")
            others = bundle.card.get("other_views")
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("The card's network cannot be read.", remedy="Fit again.", file=bundle.folder) from error
        sizes = (*self._geometry.stride, *self._geometry.multiple)
        if (
            not 1 <= self._most <= _MOST_FINDINGS
            or min(sizes) < 1
            or max(sizes) > 1024
            or not set(self._geometry.mirror_axes) <= {0, 1, 2}
        ):
            raise BundleError("The card's network makes no sense.", remedy="Fit again.", file=bundle.folder)
        self._look = SecondLook.from_json(look) if look else None
        self._opinion = SecondOpinion.from_json(opinion) if opinion else None
        self._others = OtherViews.from_json(others) if others else None
        self._filters = filters
        if self._opinion is not None and filters is None:
            raise BundleError("The card's filters are missing.", remedy="Open it with load_model.", file=bundle.folder)
        self._names = tuple(str(item["name"]) for item in bundle.card["classes"])

    def predict(self, images: Sequence[Image]) -> Prediction:
        """Find lesions in every image of one case.

        Args:
            images: intensity images, planes or volumes as the detector was fitted on.

        Returns:
            A prediction whose `findings` have a `Box` each, the most certain first, at most ten per image and class,
            or twice the most lesions that a training image had. Scores are 0..1. `details` holds `images` (ids that
            were looked at) and `aside` (reason by image id, for those of several that could not be used).

        Raises:
            UnusableInput: none of the images can be used.
        """
        looked: list[_LookedAt] = []
        aside: dict[str, str] = {}
        for image in images:
            try:
                looked.append(self._look_at(image))
            except UnusableInput as error:
                if len(images) == 1:
                    raise
                aside[image.id] = error.what
        if not looked:
            raise UnusableInput("None of the case's images can be used.", remedy="; ".join(sorted(set(aside.values()))))
        found = [finding for number in range(len(self._names)) for finding in self._of_class(number, looked)]
        found.sort(key=lambda finding: -finding.score)
        return Prediction(findings=tuple(found), details={"images": [one.image for one in looked], "aside": aside})

    def _of_class(self, number: int, looked: Sequence[_LookedAt]) -> list[Finding]:
        """The surest of one class on each image of a case."""
        scores = [one.scores[number] for one in looked]
        if self._others is not None:
            tables = tables_of([one.pose for one in looked], [one.marks[number] for one in looked], scores)
            scores = [self._others.scores(table) for table in tables]
        return [
            Finding(self._names[number], float(np.clip(score[index], 0, 1)), one.boxes[number][index])
            for one, score in zip(looked, scores, strict=True)
            for index in np.argsort(-score, kind="stable")[: self._most]
        ]

    def _look_at(self, image: Image) -> _LookedAt:
        if (image.grid.shape[2] == 1) != (self._geometry.stride[2] == 1):
            kind = "planes" if self._geometry.stride[2] == 1 else "volumes"
            raise UnusableInput(f"The model looks at {kind}.", remedy="Give images like those it was fitted on.")
        seen = view(image, self._recipe)
        heat, sizes = heat_map(seen.array, self._run, self._geometry)
        if len(heat) != len(self._names):
            raise BundleError(
                f"The network gives {len(heat)} classes; its card names {len(self._names)}.", remedy="Fit again."
            )
        said = self._filters.predict([image]).findings if self._opinion and self._filters else ()
        looked = _LookedAt(image.id, pose_of(image.role, seen), [], [], [])
        for name, one in zip(self._names, heat, strict=True):
            found = candidates(one, sizes, self._geometry.stride, self._most)
            if self._look is not None:
                found = with_points(found, seen.array, one, sizes, self._geometry.stride)
            score = found.heat
            if self._look is not None:
                score = self._look.scores(features(seen.array, one, found, self._geometry.stride))
            if self._opinion is not None:
                found, total = joined(found, score, marks_of(said, name, seen))
                score = self._opinion.scores(total)
            looked.marks.append(found)
            looked.scores.append(score)
            looked.boxes.append(_boxes(image, seen, found))
        return looked

    def _run(self, batch: Float32) -> tuple[Float32, Float32]:
        heat, size = self._session.run_all(batch)
        return heat, size


def _boxes(image: Image, seen: View, found: Candidates) -> list[Box]:
    placed = [seen.to_source(*each) for each in zip(found.centres, found.sizes, strict=True)]
    return [Box(image.id, centre, size) for centre, size in placed]


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    i, j, k = (int(value) for value in values)
    return i, j, k
