"""Faces out of images that were de-identified: arrays, NIfTI files, and the DICOM files of a folder.

In a folder every volume is treated, also those that another image of the cohort stands for, because all lie in the
same files. Volumes on the same grid show the same head: where one of them tells where its face is, all of them lose
it there, a phase image or a high b-value as well. A file that lost a face says so: Recognizable Visual Features
(0028,0302) is NO, and the option joins the De-identification Method Code Sequence (PS3.15 E.3.2). Its Image Type
stays, as where text was hidden: it tells how the scanner made the image, and Derivation Description tells what was
done since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.formats.dicom_header import lenient
from vesalius.formats.dicom_values import damaged, text
from vesalius.formats.scan import Scan
from vesalius.privacy.faces import Defaced, NoHead, look_for_face, shows_no_relief
from vesalius.privacy.hiding import Area, hide
from vesalius.privacy.profile import CLEAN_FACES

REMOVED = "The face was removed."
_DERIVATION = "Recognizable visual features removed"
_MOST_LOOKS = 4  # at volumes on the same grid, spread over the series

# (array (i, j, k) before, its grid, what was found): called for a volume of each grid that lost its face
Seen = Callable[[Array, Grid, Defaced], None]


@dataclass(frozen=True)
class Cleaned:
    """What was removed from the volumes of a folder.

    Args:
        removed: (i, j, k) bool by the number of the volume, where anything was.
        told: what was done with each volume: `REMOVED`, or why there was nothing to remove.
    """

    removed: Mapping[int, Array]
    told: Mapping[int, str]


def remove_from_array(array: Array, scan: Scan, seen: Seen | None = None) -> tuple[Array, str]:
    """An array (channels, i, j, k) without the face, itself where it shows none; and what was done.

    Raises:
        UnusableInput: there may be a face, but it cannot be removed without a doubt about the brain.
    """
    found = _look(array, scan)
    if not _lost(found):
        return array, _sentence(found)
    if seen is not None:
        seen(array.mean(axis=0), scan.grid, found)
    if array.shape[0] == 1:
        return found.array[None], REMOVED
    result = array.copy()
    result[:, found.removed] = array.min(axis=(1, 2, 3))[:, None]
    return result, REMOVED


def remove_from_image(place: Path, seen: Seen | None = None) -> Cleaned:
    """Take the faces out of a stored image, in place: a folder of DICOM files, or a plain file.

    Args:
        place: written by the door, and not yet known to anybody else.
        seen: told of what was found.

    Raises:
        UnusableInput: as below.
    """
    from vesalius.formats.find import find_scans
    from vesalius.formats.nifti import write_nifti

    if place.is_dir():
        return remove_from_series(place, seen)
    removed: dict[int, Array] = {}
    told: dict[int, str] = {}
    for number, scan in enumerate(found for found in find_scans(place) if isinstance(found, Scan)):
        flat = _flat(scan)
        if flat is not None:
            told[number] = flat.reason
            continue
        array = scan.pixels.read()
        result, told[number] = remove_from_array(array, scan, seen)
        if told[number] == REMOVED:
            removed[number] = (result != array).any(axis=0)
            write_nifti(place, result if scan.channels > 1 else result[0], scan.grid)
    return Cleaned(removed, told)


def remove_from_series(folder: Path, seen: Seen | None = None) -> Cleaned:
    """Take the faces out of the DICOM files of a folder, in place.

    Args:
        folder: files that were de-identified, of one image; nobody else knows them yet.
        seen: told of what was found.

    Raises:
        UnusableInput: there may be a face, but it cannot be removed without a doubt about the brain, or its pixel
            data cannot be changed.
    """
    from vesalius.formats.find import find_scans

    scans = [found for found in find_scans(folder) if isinstance(found, Scan)]
    removed: dict[int, Array] = {}
    told: dict[int, str] = {}
    areas: dict[str, dict[int, Array]] = {}
    for group in _on_one_grid(scans):
        face, what = _look_at_some([scans[number] for number in group], seen)
        for number in group:
            told[number] = what
            if face is not None:
                removed[number] = face
                _add(areas, scans[number], face)
    for path, frames in areas.items():
        _rewrite(Path(path), dict(frames))
    return Cleaned(removed, told)


def _on_one_grid(scans: Sequence[Scan]) -> list[list[int]]:
    groups: list[list[int]] = []
    for number, scan in enumerate(scans):
        for group in groups:
            if scan.grid.matches(scans[group[0]].grid):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _look_at_some(scans: Sequence[Scan], seen: Seen | None) -> tuple[Array | None, str]:
    """The face that one of these volumes shows, else None; and what was done.

    Raises:
        UnusableInput: none shows where the face is, and one may have one.
    """
    doubt: UnusableInput | None = None
    reason = ""
    for number in sorted({round(at) for at in np.linspace(0, len(scans) - 1, min(len(scans), _MOST_LOOKS))}):
        scan = scans[number]
        flat = _flat(scan)
        if flat is not None:
            reason = reason or flat.reason
            continue
        try:
            array = scan.pixels.read()
            found = _look(array, scan)
        except UnusableInput as error:
            doubt = doubt or error
            continue
        if _lost(found):
            if seen is not None:
                seen(array.mean(axis=0), scan.grid, found)
            return found.removed, REMOVED
        reason = reason or _sentence(found)
    if doubt is not None:
        raise doubt
    return None, reason


def _add(areas: dict[str, dict[int, Array]], scan: Scan, face: Array) -> None:
    """Note which pixels go, by file and frame; a frame may be part of several volumes."""
    for k, source in enumerate(getattr(scan.pixels, "sources", ())):
        if face[:, :, k].any():
            frames = areas.setdefault(str(source.path), {})
            shape = face[:, :, k].T
            frames[source.index] = frames[source.index] | shape if source.index in frames else shape


def _flat(scan: Scan) -> NoHead | None:
    return NoHead("A plane image.") if scan.source == "raster" else shows_no_relief(scan.grid, scan.modality)


def _look(array: Array, scan: Scan) -> Defaced | NoHead:
    """What a volume (channels, i, j, k) shows; colours count as their mean."""
    flat = _flat(scan)
    if flat is not None:
        return flat
    return look_for_face(array[0] if array.shape[0] == 1 else array.mean(axis=0), scan.grid, scan.modality)


def _lost(found: Defaced | NoHead) -> TypeGuard[Defaced]:
    return isinstance(found, Defaced) and bool(found.removed.any())


def _sentence(found: Defaced | NoHead) -> str:
    return found.unchanged if isinstance(found, Defaced) else found.reason


def _rewrite(file: Path, areas: dict[int, Area]) -> None:
    from vesalius.formats.dicom_pixels import open_whole

    with lenient():
        try:
            dataset = open_whole(file)
            hide(dataset, areas)
            _mark(dataset)
            beside = file.with_name(f".{file.name}.part")
            dataset.save_as(beside, enforce_file_format=True)
            beside.replace(file)
        except damaged() as error:
            raise UnusableInput(
                f"The face cannot be taken out of the pixel data ({type(error).__name__}).",
                remedy="Export the series again, or keep faces for local work (--faces keep).",
            ) from error


def _mark(dataset: Any) -> None:
    """State what was done, also where the header said before that the file came out of a de-identifier."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    code = Dataset()
    code.CodeValue, code.CodeMeaning = CLEAN_FACES
    code.CodingSchemeDesignator = "DCM"
    methods = [item for item in dataset.get("DeidentificationMethodCodeSequence") or [] if item.get("CodeValue")
               != CLEAN_FACES[0]]  # fmt: skip
    dataset.DeidentificationMethodCodeSequence = Sequence([*methods, code])
    dataset.RecognizableVisualFeatures = "NO"
    before = text(dataset, "DerivationDescription")
    if _DERIVATION not in before:
        dataset.DerivationDescription = f"{before}; {_DERIVATION}" if before else _DERIVATION
