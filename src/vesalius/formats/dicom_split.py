"""Separate the volumes that one DICOM series may hold: echoes, b-values, phases, orientations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from vesalius.core.errors import GeometryError
from vesalius.formats.dicom_frames import Frame
from vesalius.formats.dicom_geometry import along_normal, duplicates, is_even

# What may tell two slices at the same place apart, most telling first. Times come last: they also differ
# between the slices of one volume.
_TRAITS = (
    "ImageType", "ComplexImageComponent", "EchoNumbers", "EchoTime", "InversionTime", "FlipAngle",
    "RepetitionTime", "DiffusionBValue", "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase",
    "StackID", "ConvolutionKernel", "AcquisitionNumber", "DiffusionGradientOrientation", "TriggerTime",
    "AcquisitionTime", "ContentTime",
)  # fmt: skip
_RANKED = ("TriggerTime", "AcquisitionTime", "ContentTime")
_SAME_DIRECTION = 1e-2


@dataclass(frozen=True, slots=True)
class Slice:
    """A frame of a file, and the size of its pixels.

    Args:
        file: index of the file in its series.
        frame: its place and traits.
        size: columns, rows, values per pixel.
    """

    file: int
    frame: Frame
    size: tuple[int, int, int]


def split(slices: Sequence[Slice]) -> list[tuple[list[Slice], str]]:
    """Slices of one series as volumes, each with the words for what sets it apart ("EchoTime 4.9").

    A volume may still be incomplete: `dicom_geometry.stack` finds out. No slice is lost.

    Raises:
        GeometryError: slices without position or orientation.
    """
    parts = []
    for group in _by_plane(slices):
        parts += _by_trait(group, "", _TRAITS)
    return parts


def _by_plane(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of the same direction, size and pixel spacing belong together."""
    groups: list[list[Slice]] = []
    for piece in slices:
        match = next((group for group in groups if _same_plane(group[0], piece)), None)
        if match is None:
            groups.append([piece])
        else:
            match.append(piece)
    return groups


def _same_plane(one: Slice, other: Slice) -> bool:
    if one.size != other.size:
        return False
    pairs = ((one.frame.orientation, other.frame.orientation), (one.frame.spacing, other.frame.spacing))
    for a, b in pairs:
        if a is None or b is None:
            if a is not b:
                return False
        elif max(abs(p - q) for p, q in zip(a, b, strict=True)) > _SAME_DIRECTION:
            return False
    return True


def _doubled(slices: Sequence[Slice]) -> int:
    return duplicates([piece.frame for piece in slices])


def _by_trait(slices: list[Slice], words: str, traits: Sequence[str]) -> list[tuple[list[Slice], str]]:
    """Split by the first trait that separates slices at the same place, and again while any remain."""
    if not _doubled(slices):
        return _apart(slices, words)
    most = _most_at_one_place(slices)
    for place, trait in enumerate(traits):
        parts = _grouped(slices, trait)
        if not 2 <= len(parts) <= 2 * most or sum(map(_doubled, parts.values())) >= _doubled(slices):
            continue
        found = []
        for name, part in parts.items():
            found += _by_trait(part, f"{words} {trait} {name}".strip(), traits[place + 1 :])
        return found
    return _by_rank(slices, words, most) or [(slices, words)]


def _apart(slices: list[Slice], words: str) -> list[tuple[list[Slice], str]]:
    """Two stacks of one acquisition each that lie apart (chest and abdomen) are two volumes."""
    if len(slices) < 4 or _even([piece.frame for piece in slices]):
        return [(slices, words)]
    for trait in ("StackID", "AcquisitionNumber", "ImageType", "EchoTime"):
        parts = _grouped(slices, trait)
        whole = all(len(part) > 1 and _even([piece.frame for piece in part]) for part in parts.values())
        if len(parts) > 1 and whole:
            return [(part, f"{words} {trait} {name}".strip()) for name, part in parts.items()]
    return [(slices, words)]


def _even(frames: Sequence[Frame]) -> bool:
    return is_even(np.sort(along_normal(frames)))


def _grouped(slices: Sequence[Slice], trait: str) -> dict[Hashable, list[Slice]]:
    parts: dict[Hashable, list[Slice]] = defaultdict(list)
    for piece in slices:
        parts[piece.frame.traits.get(trait, "none")].append(piece)
    keys = sorted(parts, key=lambda key: (isinstance(key, str), key))
    return {key: parts[key] for key in keys}


def _places(slices: Sequence[Slice]) -> list[int]:
    """The rank of each slice's place along the normal; slices at the same place share it."""
    heights = along_normal([piece.frame for piece in slices])
    order = np.argsort(heights, kind="stable")
    ranks = np.concatenate([[0], np.cumsum(np.diff(heights[order]) >= 1e-3)])
    places = np.empty(len(slices), dtype=int)
    places[order] = ranks
    return [int(place) for place in places]


def _most_at_one_place(slices: Sequence[Slice]) -> int:
    return max(Counter(_places(slices)).values())


def _by_rank(slices: list[Slice], words: str, most: int) -> list[tuple[list[Slice], str]]:
    """Phases of a film whose trigger or acquisition times differ from slice to slice: first, second, ... at
    each place. Only where every place has the same number and all times there differ.
    """
    at_place: dict[int, list[Slice]] = defaultdict(list)
    for place, piece in zip(_places(slices), slices, strict=True):
        at_place[place].append(piece)
    if {len(pieces) for pieces in at_place.values()} != {most}:
        return []
    for trait in _RANKED:
        clocks = {place: [piece.frame.traits.get(trait) for piece in pieces] for place, pieces in at_place.items()}
        if any(None in times or len(set(times)) < most for times in clocks.values()):
            continue
        phases: list[list[Slice]] = [[] for _ in range(most)]
        for pieces in at_place.values():
            ranked = sorted(pieces, key=lambda piece: (str(type(piece.frame.traits[trait])), piece.frame.traits[trait]))
            for phase, piece in zip(phases, ranked, strict=True):
                phase.append(piece)
        return [(phase, f"{words} phase {number + 1}".strip()) for number, phase in enumerate(phases)]
    return []


def check_one_patient(patients: set[str]) -> None:
    """Refuse a series whose files name several patients.

    Raises:
        GeometryError: they do.
    """
    if len(patients) > 1:
        raise GeometryError(
            f"Its files name {len(patients)} different patients under one series.",
            remedy="Separate the patients; a series belongs to one.",
        )
