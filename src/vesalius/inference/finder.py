"""Finding both hippocampi in a whole head, so that a network trained on crops can outline them.

A template of the head (ICBM 152, symmetric) is laid onto the scan (`registration`); where it keeps the
hippocampi, boxes of 1 mm are laid in the scan's patient space. Sides come from patient coordinates alone:
the template is symmetric and is never turned far, so its left comes to lie on the patient's left whatever
the anatomy looks like. How well the template explains the scan says whether there is a head to be found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, FloatArray, Grid
from vesalius.imaging.brain_template import Template, load_template
from vesalius.imaging.registration import Candidate, Samples, Search, Volume, agreement, refine, rotation

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
TEMPLATE = "finder/template.safetensors"

_AROUND_MM = 20.0
_PITCHES = (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0)
_SIZES = (0.8, 0.92, 1.05)
_TILTS = ((12.0, 0.0), (-12.0, 0.0), (0.0, 12.0), (0.0, -12.0))  # roll, yaw
_TILTED_PITCHES = (-30.0, -15.0, 0.0, 15.0)
_TILTED_SIZES = (0.85, 1.0)
_STARTS = 5
_LOCAL_MM = 32.0  # radius around a hippocampus within which its own place is refined
_LOCAL_SHIFT_MM = 8.0  # a local refinement that goes further is not believed
_LEAST_ACROSS = float(np.cos(np.radians(45.0)))  # turned further, left and right would not be certain
_REMEDY = "Give a T1 scan of the whole head, or a crop of one hippocampus."


@dataclass(frozen=True)
class Region:
    """A box around one hippocampus.

    Args:
        grid: 1 mm voxels in patient space. The box is turned as the head is, and its i axis runs so that
            the hippocampus looks as the side does on which the network was trained: a box of the other side
            is laid in mirrored (its affine has a negative determinant). Resample the scan onto it as it is.
        side: of the patient.
        offset: what is added to a class value of this side.
    """

    grid: Grid
    side: Side
    offset: int

    @property
    def centre(self) -> FloatArray:
        """The box's centre, patient mm."""
        return self.grid.to_patient((np.asarray(self.grid.shape) - 1) / 2)

    def around(self, centre: FloatArray, size_mm: Sequence[float]) -> Region:
        """A box of this size (mm), turned alike, around another centre (patient mm)."""
        shape = [round(size) for size in size_mm]
        origin = np.asarray(centre) - self.grid.directions @ ((np.asarray(shape) - 1) / 2)
        grid = Grid.from_parts(shape, origin=origin.tolist(), directions=self.grid.directions)
        return replace(self, grid=grid)


@dataclass(frozen=True)
class Found:
    """Where the hippocampi are.

    Args:
        regions: left, then right.
        quality: `structure` (share of the scan's local structure in the brain that the template explains),
            `contrast` (correlation of grey values with the template's; T1 is positive), `left` and `right`
            (the structure explained around each hippocampus), `seen` (share of the brain in the field of view).
        pose: (4, 4), template to patient mm.
    """

    regions: tuple[Region, ...]
    quality: Mapping[str, float]
    pose: FloatArray


def needs_finding(grid: Grid, card: Mapping[str, Any]) -> bool:
    """Whether a scan on this grid is more than the crop that the card's network was made for.

    A bundle without a finder takes everything as it is. A crop has every extent below the finder's
    `crop_below_mm`; images without a place in the patient have no sides and are taken as crops.
    """
    finder = card.get("finder")
    if not finder or not grid.placed:
        return False
    extents = np.asarray(grid.shape) * np.asarray(grid.spacing)
    return bool(extents.max() >= float(finder["crop_below_mm"]))


def find_regions(array: Array, grid: Grid, finder: Mapping[str, Any], assets: Path) -> Found:
    """Find both hippocampi of a whole head.

    Args:
        array: (i, j, k) intensities of one scan, any numeric type, on `grid`.
        grid: the scan's own grid; oblique and anisotropic ones are welcome.
        finder: the card's `finder`.
        assets: folder of the bundle.

    Raises:
        UnusableInput: there is no head, it does not stand as the scan's header says, it does not look like
            T1, or a hippocampus lies outside the field of view.
        BundleError: the template is missing or damaged.
    """
    template = load_template(assets / TEMPLATE)
    if min(np.asarray(grid.shape) * np.asarray(grid.spacing)) < float(finder["box_mm"][0]):
        raise UnusableInput("The scan is too thin to hold both hippocampi.", remedy=_REMEDY)
    scan = Volume.of_scan(array, grid)
    if float(scan.values.std()) < 1e-4:
        raise UnusableInput("The scan is empty.", remedy=_REMEDY)
    head = lay_template(scan, template)
    quality = _quality(scan, template, head.pose)
    _require_head(quality, finder, head.pose)
    regions = []
    samples, blurred = _structure(scan, template, 2.0, 2.0)
    for number, side in enumerate(SIDES):
        pose, local = _refine_locally(samples, blurred, head.pose, finder[side])
        quality[side] = local
        regions.append(_region(pose, finder, side, number))
    _require_regions(regions, scan, quality, finder)
    return Found(tuple(regions), quality, head.pose)


def lay_template(scan: Volume, template: Template) -> Candidate:
    """The pose (template to patient mm, affine) that explains most of the scan's local structure."""
    turns = [rotation(pitch, 0.0, 0.0) * size for pitch in _PITCHES for size in _SIZES]
    for pitch, size, tilt in product(_TILTED_PITCHES, _TILTED_SIZES, _TILTS):
        turns.append(rotation(pitch, *tilt) * size)
    search = Search(scan, template.tone, template.near)
    starts = search.over(turns)[:_STARTS]
    samples, blurred = _structure(scan, template, 4.0, 6.0)
    best = max((refine(samples, blurred, start.pose, "similarity") for start in starts), key=_score)
    samples, blurred = _structure(scan, template, 2.5, 4.0)
    return refine(samples, blurred, best.pose, "affine")


def _score(candidate: Candidate) -> float:
    return candidate.score


def _structure(scan: Volume, template: Template, sigma_mm: float, step_mm: float) -> tuple[Samples, Volume]:
    """Template samples and scan, both reduced to local structure at this blur."""
    tone = template.tone.levelled(sigma_mm, _AROUND_MM)
    return Samples.of(tone, template.near, step_mm, shading=False), scan.levelled(sigma_mm, _AROUND_MM)


def _quality(scan: Volume, template: Template, pose: FloatArray) -> dict[str, float]:
    samples, blurred = _structure(scan, template, 2.5, 4.0)
    structure, seen, _ = agreement(samples, blurred, pose)
    plain = Samples.of(template.tone.smoothed(2.5), template.brain, 4.0)
    places = plain.points @ pose[:3, :3].T + pose[:3, 3]
    inside = scan.seen(places)[0] > 0.5
    value = scan.smoothed(2.5).at(places)[0][inside]
    tone = plain.basis[inside, 1]
    spread = value.std() * tone.std() if inside.sum() > 100 else 0.0
    contrast = float(((value - value.mean()) * (tone - tone.mean())).mean() / spread) if spread > 0 else 0.0
    return {"structure": structure, "contrast": contrast, "seen": seen}


def _require_head(quality: Mapping[str, float], finder: Mapping[str, Any], pose: FloatArray) -> None:
    """Refuse what the template does not explain."""
    least = finder["least"]
    sizes = np.linalg.svd(pose[:3, :3], compute_uv=False)
    low, high = finder["sizes"]
    misfit = quality["structure"] < least["structure"] or sizes.min() < low or sizes.max() > high
    across = pose[0, 0] / np.linalg.norm(pose[:3, 0])  # of the head's left with the patient's left
    if misfit or np.linalg.det(pose[:3, :3]) <= 0 or across < _LEAST_ACROSS:
        raise UnusableInput(
            "No head was found that stands as the scan's header says, so the hippocampi cannot be placed.",
            remedy=_REMEDY,
        )
    if quality["contrast"] < least["contrast"]:
        raise UnusableInput(
            "The head does not look like a T1 scan: white matter is not brighter than grey matter and fluid.",
            remedy=_REMEDY,
        )


def _refine_locally(
    samples: Samples, blurred: Volume, pose: FloatArray, centre: Sequence[float]
) -> tuple[FloatArray, float]:
    """The pose around one hippocampus, and the share of local structure that it explains there."""
    near = samples.within(np.asarray(centre, dtype=np.float64), _LOCAL_MM)
    found = refine(near, blurred, pose, "rigid")
    shift = (found.pose - pose)[:3, :3] @ np.asarray(centre) + (found.pose - pose)[:3, 3]
    if np.linalg.norm(shift) > _LOCAL_SHIFT_MM:
        found = Candidate(pose, agreement(near, blurred, pose)[0])
    return found.pose, found.score


def _region(pose: FloatArray, finder: Mapping[str, Any], side: Side, number: int) -> Region:
    """The box of one side, turned as the head is."""
    u, _, vt = np.linalg.svd(pose[:3, :3])
    directions = u @ vt @ rotation(float(finder["pitch"]), 0.0, 0.0)
    if side != finder["shown_side"]:
        directions = directions * np.array([-1.0, 1.0, 1.0])
    centre = pose[:3, :3] @ np.asarray(finder[side]) + pose[:3, 3]
    turned = Grid.from_parts((1, 1, 1), directions=directions)
    return Region(turned, side, number * int(finder["classes"])).around(centre, finder["box_mm"])


def _require_regions(
    regions: Sequence[Region], scan: Volume, quality: Mapping[str, float], finder: Mapping[str, Any]
) -> None:
    """Refuse when a hippocampus lies outside the field of view or nothing is to be seen there."""
    for region in regions:
        half = np.asarray(finder["inside_mm"]) / 2
        corners = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) * half
        places = corners @ region.grid.directions.T + region.centre
        if not (scan.seen(places)[0] > 0).all():
            raise UnusableInput(f"The {region.side} hippocampus lies outside the field of view.", remedy=_REMEDY)
        if quality[region.side] < finder["least"]["local"]:
            raise UnusableInput(
                f"The {region.side} hippocampus could not be placed: its surroundings do not look as expected.",
                remedy=_REMEDY,
            )
    between = regions[0].centre - regions[1].centre
    if not (between[0] > 0 and 30.0 <= np.linalg.norm(between) <= 85.0):
        raise UnusableInput("The two hippocampi were not found on either side of the head.", remedy=_REMEDY)
