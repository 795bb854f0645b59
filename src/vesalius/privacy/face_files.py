"""Faces out of the images that are being stored: arrays, and series of DICOM files that were written already.

In a series every volume is looked at, also those that another image of the cohort stands for, because all lie in
the same files. A file that lost a face says so: Recognizable Visual Features (0028,0302) is NO, and the option joins
the De-identification Method Code Sequence (PS3.15 E.3.2). Its Image Type stays, as where text was hidden: it tells
how the scanner made the image, and Derivation Description tells what was done since.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array
from vesalius.formats.dicom_header import lenient
from vesalius.formats.dicom_values import DAMAGED, text
from vesalius.formats.scan import Scan
from vesalius.privacy.hiding import Area, hide
from vesalius.privacy.profile import CLEAN_FACES

if TYPE_CHECKING:
    from vesalius.privacy.faces import Defaced, NoHead

_DERIVATION = "Recognizable visual features removed"


def remove_from_array(array: Array, scan: Scan) -> Array:
    """An array (channels, i, j, k) without the face; itself where it shows none.

    Raises:
        UnusableInput: there may be a face, but it cannot be removed without a doubt about the brain.
    """
    found = _look(array, scan)
    if found is None or not found.removed.any():
        return array
    result = array.copy()
    result[0] = found.array
    return result


def remove_from_series(folder: Path) -> dict[int, Array]:
    """Take the faces out of the DICOM files of a folder, in place.

    Args:
        folder: files that were de-identified, of one image; nobody else knows them yet.

    Returns:
        What was removed, (i, j, k) bool, by the number of the volume in the folder.

    Raises:
        UnusableInput: there may be a face, but it cannot be removed without a doubt about the brain, or its pixel
            data cannot be changed.
    """
    from vesalius.formats.find import find_scans

    removed: dict[int, Array] = {}
    areas: dict[str, dict[int, Array]] = {}
    scans = (found for found in find_scans(folder) if isinstance(found, Scan))
    for number, scan in enumerate(scans):
        found = _look(scan.pixels.read(), scan)
        if found is None or not found.removed.any():
            continue
        removed[number] = found.removed
        for k, source in enumerate(getattr(scan.pixels, "sources", ())):
            if found.removed[:, :, k].any():
                frames = areas.setdefault(str(source.path), {})
                shape = found.removed[:, :, k].T
                frames[source.index] = frames[source.index] | shape if source.index in frames else shape
    for path, frames in areas.items():
        _rewrite(Path(path), dict(frames))
    return removed


def _look(array: Array, scan: Scan) -> Defaced | None:
    from vesalius.privacy.faces import Defaced, look_for_face

    if scan.channels != 1 or scan.source == "raster":
        return None
    found: Defaced | NoHead = look_for_face(array[0], scan.grid, scan.modality)
    return found if isinstance(found, Defaced) else None


def _rewrite(file: Path, areas: dict[int, Area]) -> None:
    from vesalius.privacy.objects import open_dataset

    with lenient():
        try:
            dataset = open_dataset(file)
            hide(dataset, areas)
            _mark(dataset)
            beside = file.with_name(f".{file.name}.part")
            dataset.save_as(beside, enforce_file_format=True)
            beside.replace(file)
        except DAMAGED as error:
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
