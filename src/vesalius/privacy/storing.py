"""From an identified scan to the de-identified files of one image, in a place that is not yet the cohort's.

DICOM stays DICOM with its header de-identified; volumes become NIfTI and plane images PNG that carry nothing but
pixels and geometry. What was written is read back and compared before it counts, so that no header rule can ever
bend the geometry unseen: grid, order of the slices and scaling from the written headers where the pixel data are
the bytes that they were, and every pixel that was not covered where they are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, reorient
from vesalius.formats.dicom import scans_of_headers
from vesalius.formats.dicom_elements import is_whole
from vesalius.formats.dicom_header import read_header
from vesalius.formats.dicom_pixels import DicomPixels
from vesalius.formats.find import find_scans
from vesalius.formats.nifti import write_nifti
from vesalius.formats.raster import write_png
from vesalius.formats.scan import Scan
from vesalius.imaging.duplicates import perceptual_hash
from vesalius.privacy.face_files import remove_from_array, remove_from_series
from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.identity import Identity
from vesalius.privacy.objects import Hidden, SeriesCleaner
from vesalius.privacy.plain import hide_in_array
from vesalius.privacy.profile import FaceMode, PixelMode, Profile
from vesalius.privacy.pseudonyms import Pseudonyms

_MOST_PATIENTS = 8  # whose cleaners are kept, with what they remember
NO_HASH = b""  # of an image whose pixels nobody has looked at yet


@dataclass(frozen=True)
class Stored:
    """What was written.

    Args:
        volume: which of the volumes at the place is this image.
        hash: perceptual hash of the image, or `NO_HASH` where its pixels were copied unread.
        identity: what is known of the patient now.
    """

    volume: int
    hash: bytes
    identity: Identity


@dataclass
class Storer:
    """Writes images de-identified, one after the other.

    Args:
        pseudonyms: the keyed pseudonyms.
        profile: what happens to headers and pixels.
    """

    pseudonyms: Pseudonyms
    profile: Profile
    _series: dict[str, SeriesCleaner] = field(default_factory=dict, repr=False)  # of the last patients

    def store(self, scan: Scan, patient: str, path: Path, identity: Identity) -> Stored:
        """Write a scan to `path`: a file, or a new folder for DICOM.

        Args:
            scan: the identified scan.
            patient: identified patient key.
            path: where to.
            identity: what earlier scans of the patient told.

        Raises:
            UnusableInput: the pixels do not decode, or cannot be stored without loss, or a face cannot be removed.
        """
        if scan.source == "dicom":
            return self._store_dicom(scan, patient, path, identity)
        array = scan.pixels.read()
        digest = _hash(scan, array)
        array = hide_in_array(array, scan, patient, self.profile.pixels)
        if self.profile.faces is FaceMode.REMOVE:
            array, _ = remove_from_array(array, scan)
        stored = _smallest_exact(array)
        if scan.source == "raster":
            write_png(path, stored)
        else:
            write_nifti(path, stored if scan.channels > 1 else stored[0], scan.grid)
        return Stored(_volume_at(path, scan, array), digest, identity)

    def _store_dicom(self, scan: Scan, patient: str, folder: Path, identity: Identity) -> Stored:
        array = scan.pixels.read() if self.profile.pixels is not PixelMode.KEEP else None
        folder.mkdir()
        series = self._cleaner(patient, identity)
        files = list(dict.fromkeys(scan.files))
        targets = [folder / f"{number:05d}.dcm" for number in range(1, len(files) + 1)]
        written = series.write(files, targets)
        faces = remove_from_series(folder).removed if self.profile.faces is FaceMode.REMOVE else {}
        volume = _volume_by_headers(targets, scan) if written.copied and not faces else None
        if volume is None:
            array = scan.pixels.read() if array is None else array
            volume = _volume_at(folder, scan, array, _covered(written.hidden, files, scan, array), faces)
        digest = NO_HASH if array is None else _hash(scan, array)
        return Stored(volume, digest, series.header.identity)

    def store_object(self, file: Path, patient: str, path: Path, identity: Identity) -> Identity:
        """Write a DICOM object that is no image; what is known of the patient now.

        Raises:
            UnusableInput: its header is damaged.
        """
        series = self._cleaner(patient, identity)
        written = series.write([file], [path], pixels=PixelMode.KEEP)  # masks and doses hold no text
        if not written.copied and not is_whole(path):
            raise UnusableInput("It is damaged or cut off.", remedy="Send the object again from its source.")
        return series.header.identity

    def _cleaner(self, patient: str, identity: Identity) -> SeriesCleaner:
        """What cleans this patient's series; an earlier one again where nothing new is known."""
        series = self._series.pop(patient, None)
        if series is None or series.header.identity != identity:
            header = HeaderCleaner(self.pseudonyms, self.pseudonyms.patient(patient), patient, self.profile, identity)
            series = SeriesCleaner(header)
        self._series[patient] = series
        if len(self._series) > _MOST_PATIENTS:
            self._series.pop(next(iter(self._series)))
        return series


def _hash(scan: Scan, array: Array) -> bytes:
    return perceptual_hash(reorient(array, *scan.grid.canonical()[1:]))


def _volume_by_headers(targets: list[Path], scan: Scan) -> int | None:
    """Which of the volumes of these files is this scan, by grid, frames and scaling; None where none is."""
    headers = [header for path in targets if (header := read_header(path)) is not None]
    found = (one for one in scans_of_headers(headers, "") if isinstance(one, Scan))
    wanted = _frames(scan)
    for number, stored in enumerate(found):
        if wanted and stored.grid.matches(scan.grid) and _frames(stored) == wanted:
            return number
    return None


def _frames(scan: Scan) -> list[tuple[int, int, float, float]]:
    """Which frame of which file lies at each k, and how it is scaled."""
    if not isinstance(scan.pixels, DicomPixels):
        return []
    number = {path: n for n, path in enumerate(dict.fromkeys(str(file) for file in scan.files))}
    return [(number[one.path], one.index, one.slope, one.intercept) for one in scan.pixels.sources]


def _covered(hidden: Hidden, files: list[Path], scan: Scan, array: Array) -> Array:
    """The pixels (i, j, k) that a rectangle hides."""
    covered = np.zeros(array.shape[1:], bool)
    for k, source in enumerate(getattr(scan.pixels, "sources", ())) if hidden else ():
        for box in hidden.get((files.index(Path(source.path)), source.index), ()):
            covered[box.left : box.right, box.top : box.bottom, k] = True
    return covered


def _volume_at(
    path: Path, scan: Scan, array: Array, covered: Array | None = None, faces: Mapping[int, Array] | None = None
) -> int:
    """Which of the volumes at `path` is this scan, by geometry and by the pixels that were not covered.

    Args:
        covered: (i, j, k) bool, of this scan.
        faces: (i, j, k) bool by number of the volume at `path`.

    Raises:
        UnusableInput: none is, so storing it would change it.
    """
    for number, stored in enumerate(found for found in find_scans(path) if isinstance(found, Scan)):
        if not stored.grid.matches(scan.grid):
            continue
        face = faces.get(number) if faces else None
        hidden = face if covered is None or face is None else covered | face
        if _equal(stored.pixels.read(), array, covered if face is None else hidden):
            return number
    raise UnusableInput(
        "The image could not be stored without changing it.",
        remedy="Please report this kind of file; convert it to NIfTI to go on meanwhile.",
    )


def _equal(stored: Array, array: Array, covered: Array | None) -> bool:
    if covered is None or not covered.any():
        return np.array_equal(stored, array, equal_nan=True)
    return stored.shape == array.shape and np.array_equal(stored[:, ~covered], array[:, ~covered], equal_nan=True)


def _smallest_exact(array: Array) -> Array:
    """The array in the narrowest type that holds every value exactly: integers where they are whole."""
    if not np.isfinite(array).all():
        return array.astype(np.float32)
    if np.array_equal(array, np.rint(array)):
        low, high = float(array.min()), float(array.max())
        for kind in (np.uint8, np.int16, np.uint16, np.int32):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return array.astype(kind)
    return array.astype(np.float32)
