"""The door of a cohort: the only code that turns identified scans and labels into stored, de-identified ones.

What passes is written as it came: DICOM stays DICOM with its header de-identified and its pixel data as it
was; volumes become NIfTI and plane images PNG that carry nothing but pixels and geometry. What was written
is read back and compared before it counts, so that no header rule can ever bend the geometry unseen.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import pydicom

from vesalius.core.case import Covariate
from vesalius.core.errors import UnusableInput
from vesalius.core.finding import Finding
from vesalius.core.grid import Array, Grid, reorient
from vesalius.formats.find import find_scans
from vesalius.formats.names import MASK_ENDING, volume_of, without_suffix
from vesalius.formats.nifti import write_nifti
from vesalius.formats.raster import write_png
from vesalius.formats.scan import Scan
from vesalius.imaging.duplicates import perceptual_hash
from vesalius.privacy import audit
from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.identity import Identity
from vesalius.privacy.objects import SeriesCleaner, is_secondary
from vesalius.privacy.plain import hide_in_array
from vesalius.privacy.profile import Profile
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.store import writer

# Acquisition attributes that are numbers or defined terms, and so can identify nobody.
_KEPT_ATTRIBUTES = frozenset({
    "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "MagneticFieldStrength", "DiffusionBValue",
    "SliceThickness", "KVP", "ViewPosition", "ImageLaterality", "Laterality", "ImageType", "ScanningSequence",
})  # fmt: skip
_MOST_KNOWN = 4096  # patients whose identity is remembered from scan to scan


@dataclass(frozen=True)
class Door:
    """The way into one cohort folder.

    Args:
        folder: the cohort.
        pseudonyms: made from the key that stands outside the cohort.
        profile: what happens to headers and pixels.
        admitted: pseudonym and identified key of every patient that came in, for the vault.
    """

    folder: Path
    pseudonyms: Pseudonyms
    profile: Profile = field(default_factory=Profile)
    admitted: dict[str, str] = field(default_factory=dict, repr=False)
    _known: dict[str, Identity] = field(default_factory=dict, repr=False)

    def image_id(self, scan: Scan) -> str:
        """The id this scan has or would have; the same content under the same name gets the same one."""
        return self.pseudonyms.image("\n".join([*_content(scan), PurePosixPath(scan.name).name]))

    def admit(self, scan: Scan, *, role: str, patient: str, visit: str) -> bool:
        """Write a scan into the cohort.

        Args:
            scan: the identified scan.
            role: what the image is for the study.
            patient: identified patient key.
            visit: identified key of the visit; images of one patient and visit form one case.

        Returns:
            False where the cohort held it already.

        Raises:
            UnusableInput: the pixels do not decode, or cannot be stored without loss.
        """
        image_id = self.image_id(scan)
        self.admitted[self.pseudonyms.patient(patient)] = patient
        writer.lift_quarantine(self.folder, self.pseudonyms.source(scan.name))
        if writer.has_image(self.folder, image_id):
            return False
        self._check_primary(scan)
        array = scan.pixels.read()
        case = self.pseudonyms.case(patient, visit)
        instances = _instances(scan)
        as_plane = scan.source == "raster"
        image = writer.NewImage(
            id=image_id,
            case=case,
            patient=self.pseudonyms.patient(patient),
            role=role,
            modality=scan.modality,
            channels=scan.channels,
            grid=self._grid(scan.grid),
            hash=perceptual_hash(reorient(array, *scan.grid.canonical()[1:])),
            attributes={key: value for key, value in scan.attributes.items() if key in _KEPT_ATTRIBUTES},
            sources=self._source_keys(scan.name),
            instances=[self.pseudonyms.uid(uid) for uid in instances],
            suffix="" if scan.source == "dicom" else ".png" if as_plane else ".nii.gz",
        )
        if scan.source == "dicom":
            writer.put_image(self.folder, image, lambda path: self._write_dicom(path, scan, patient, array))
        else:
            array = hide_in_array(array, scan, patient, self.profile.pixels)
            stored = _smallest_exact(array)

            def write_file(path: Path) -> int:
                if as_plane:
                    write_png(path, stored)
                else:
                    write_nifti(path, stored if scan.channels > 1 else stored[0], scan.grid)
                return _volume_at(path, scan, array)

            writer.put_image(self.folder, image, write_file)
        return True

    def record(self, what: str, cases: int, figures: Mapping[str, int]) -> None:
        """Enter into the audit trail what was done."""
        audit.record(self.folder, self.pseudonyms.key, what, cases=cases, figures=figures)

    def set_aside(self, name: str, reason: str, remedy: str) -> None:
        """Remember an input that cannot be used, by the pseudonym of its name."""
        writer.put_quarantine(self.folder, self.pseudonyms.source(name), reason, remedy)

    def images_named(self, name: str) -> list[tuple[str, str, Grid]]:
        """(image, case, grid) of the images whose source had this name, with or without a mask's ending.

        The whole name counts most, then the name without suffix, then its last part alone.
        """
        plain = without_suffix(name)
        keys = [name, plain, PurePosixPath(plain).name]
        bare = MASK_ENDING.sub("", plain)
        if bare != plain:
            keys += [bare, PurePosixPath(bare).name]
        return _located(writer.find_images(self.folder, [self.pseudonyms.source(key) for key in keys]))

    def images_of_instances(self, uids: Sequence[str]) -> list[tuple[str, str, Grid]]:
        """(image, case, grid) of the images that hold any of these identified SOP Instance UIDs."""
        return _located(writer.find_images_of_instances(self.folder, [self.pseudonyms.uid(uid) for uid in uids]))

    def admit_label(self, image_id: str, case: str, array: Array, grid: Grid) -> None:
        """Store a label map (i, j, k) on its image's grid, in the narrowest unsigned integers."""
        self_sized = array.astype(np.uint8 if array.max(initial=0) < 256 else np.uint16)
        writer.put_label(self.folder, case, image_id, self_sized, grid)

    def admit_places(self, image_id: str, findings: Sequence[Finding]) -> None:
        """Store the points and boxes of an image, in its own index space; none says that there is none."""
        writer.put_places(self.folder, image_id, findings)

    def admit_classes(self, names: Mapping[int, str], ignore: int | None) -> None:
        """Store what the values of label maps mean."""
        writer.put_classes(self.folder, names, ignore)

    def admit_covariates(self, case: str, values: Mapping[str, Covariate]) -> None:
        """Store covariates that `privacy.tables` has let through."""
        writer.put_covariates(self.folder, case, values)

    def admit_split(
        self,
        parts: Mapping[str, str],
        folds: Mapping[str, int],
        *,
        given: bool,
        how: str,
        duplicates: Sequence[tuple[str, str]],
    ) -> None:
        """Store the split by pseudonymous patient."""
        writer.put_split(self.folder, parts, folds, given=given, how=how, duplicates=duplicates)

    def _grid(self, grid: Grid) -> Grid:
        frame = grid.frame_of_reference
        return Grid(grid.shape, grid.affine, self.pseudonyms.uid(frame) if frame else None, grid.placed, grid.unit)

    def _source_keys(self, name: str) -> list[tuple[str, int]]:
        whole, volume = volume_of(name)
        plain = without_suffix(whole if volume == "1" else name)  # the first volume answers to the file's name
        names = [name, plain, PurePosixPath(plain).name]
        return [(self.pseudonyms.source(value), rank) for rank, value in enumerate(names)]

    def cleaner(self, patient: str) -> HeaderCleaner:
        """What de-identifies the headers of a patient, with what earlier scans of the patient told."""
        pseudonym = self.pseudonyms.patient(patient)
        identity = self._known.get(pseudonym, Identity())
        return HeaderCleaner(self.pseudonyms, pseudonym, patient, self.profile, identity)

    def _check_primary(self, scan: Scan) -> None:
        words = [str(scan.attributes.get(key, "")) for key in ("ImageType", "SeriesDescription", "ProtocolName")]
        secondary = scan.attributes.get("SecondaryCapture") == "yes" or is_secondary("", words)
        if scan.source == "dicom" and secondary and not self.profile.secondary:
            raise UnusableInput(
                "A secondary capture, screenshot or dose sheet; such images often show names.",
                remedy="Add --secondary to let them in with their text hidden.",
            )

    def _write_dicom(self, folder: Path, scan: Scan, patient: str, array: Array) -> int:
        folder.mkdir()
        header = self.cleaner(patient)
        files = list(dict.fromkeys(scan.files))
        targets = [folder / f"{number:05d}.dcm" for number in range(1, len(files) + 1)]
        hidden = SeriesCleaner(header).write(files, targets)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[header.patient] = header.identity
        covered = np.zeros(array.shape[1:], bool)
        for k, source in enumerate(getattr(scan.pixels, "sources", ())) if hidden else ():
            for box in hidden.get((files.index(Path(source.path)), source.index), ()):
                covered[box.left : box.right, box.top : box.bottom, k] = True
        return _volume_at(folder, scan, array, covered)


def _content(scan: Scan) -> list[str]:
    """What tells this scan from every other: SOP Instance UIDs, or the bytes of its files."""
    volume = volume_of(scan.name)[1]
    if scan.source == "dicom":
        return [volume, *sorted(_instances(scan))]
    states = [(file, file.stat().st_mtime_ns, file.stat().st_size) for file in scan.files]
    return [volume, _digest(tuple(states))]


@lru_cache(maxsize=4)  # one file may hold thousands of images
def _digest(states: tuple[tuple[Path, int, int], ...]) -> str:
    """Hash of the files' bytes; their times and sizes tell a file that was written again."""
    digest = hashlib.blake2b()
    for file, _, _ in states:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _instances(scan: Scan) -> list[str]:
    if scan.source != "dicom":
        return []
    tags = ["SOPInstanceUID"]
    datasets = (
        pydicom.dcmread(file, specific_tags=tags, stop_before_pixels=True, force=True)
        for file in dict.fromkeys(scan.files)
    )
    return [str(dataset.get("SOPInstanceUID", "")) for dataset in datasets]


def _volume_at(path: Path, scan: Scan, array: Array, covered: Array | None = None) -> int:
    """Which of the volumes at `path` is this scan, by geometry and by the pixels that were not covered.

    Raises:
        UnusableInput: none is, so storing it would change it.
    """
    for number, stored in enumerate(found for found in find_scans(path) if isinstance(found, Scan)):
        if stored.grid.matches(scan.grid) and _equal(stored.pixels.read(), array, covered):
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


def _located(rows: Sequence[sqlite3.Row]) -> list[tuple[str, str, Grid]]:
    return [(row["id"], row["case_id"], Grid.from_json(json.loads(row["grid"]))) for row in rows]
