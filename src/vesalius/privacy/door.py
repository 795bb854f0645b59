"""The door of a cohort: the only code that turns identified scans and labels into stored, de-identified ones.

What an image becomes is written by `storing.py`, which knows no cohort and may run in other processes; here
it is moved to its place and entered into the database.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import pydicom

from vesalius.core.case import Covariate
from vesalius.core.errors import StoreError, UnusableInput, WithdrawnPatient
from vesalius.core.finding import Finding
from vesalius.core.grid import Array, Grid, reorient
from vesalius.formats.dicom_header import lenient
from vesalius.formats.dicom_values import damaged
from vesalius.formats.find import find_scans
from vesalius.formats.names import MASK_ENDING, volume_of, without_suffix
from vesalius.formats.scan import Companion, Scan
from vesalius.imaging.duplicates import perceptual_hash
from vesalius.privacy import audit
from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.identity import Identity
from vesalius.privacy.objects import is_secondary
from vesalius.privacy.profile import Profile
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.privacy.storing import NO_HASH, Stored, Storer
from vesalius.store import writer
from vesalius.store.cohort import image_hashes, open_cohort
from vesalius.store.erase import forgotten

# Acquisition attributes that are numbers or defined terms, and so can identify nobody.
_KEPT_ATTRIBUTES = frozenset({
    "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "MagneticFieldStrength", "DiffusionBValue",
    "SliceThickness", "KVP", "ViewPosition", "ImageLaterality", "Laterality", "ImageType", "ScanningSequence",
})  # fmt: skip
_MOST_KNOWN = 4096  # patients whose identity is remembered from scan to scan


@dataclass(frozen=True)
class Order:
    """A scan on its way in: what `storing.Storer.store` takes, and what is entered once it is done.

    Args:
        scan: the identified scan.
        patient: identified patient key.
        path: where its files are made.
        identity: what earlier scans of the patient told.
        image: what is entered into the database.
    """

    scan: Scan
    patient: str
    path: Path
    identity: Identity
    image: writer.NewImage


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
    _storer: Storer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_storer", Storer(self.pseudonyms, self.profile))

    def image_id(self, scan: Scan) -> str:
        """The id this scan has or would have; the same content under the same name gets the same one."""
        return self.pseudonyms.image("\n".join([*_content(scan), PurePosixPath(scan.name).name]))

    def holds(self, path: Path) -> bool:
        """Whether the first image of a file is in the cohort, by its content and name."""
        first = next((scan for scan in find_scans(path) if isinstance(scan, Scan)), None)
        return first is not None and writer.has_image(self.folder, self.image_id(first))

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
        order = self.begin(scan, role=role, patient=patient, visit=visit)
        if order is None:
            return False
        try:
            self.finish(order, self._storer.store(scan, patient, order.path, order.identity))
        finally:
            self.drop(order)
        return True

    def drop(self, order: Order) -> None:
        """Remove what was made for an order and did not come in."""
        writer.drop(order.path)

    def begin(self, scan: Scan, *, role: str, patient: str, visit: str) -> Order | None:
        """What must be written to bring a scan in, for `storing.Storer`; None where the cohort holds it already.

        Arguments are those of `admit`.

        Raises:
            UnusableInput: it is set aside before its pixels are looked at.
        """
        image_id = self.image_id(scan)
        pseudonym = self.pseudonyms.patient(patient)
        self._check_welcome(pseudonym)
        self.admitted[pseudonym] = patient
        writer.lift_quarantine(self.folder, self.pseudonyms.source(scan.name))
        if writer.has_image(self.folder, image_id):
            return None
        self._check_primary(scan)
        image = writer.NewImage(
            id=image_id,
            case=self.pseudonyms.case(patient, visit),
            patient=pseudonym,
            role=role,
            modality=scan.modality,
            channels=scan.channels,
            grid=self._grid(scan.grid),
            hash=NO_HASH,
            attributes={key: value for key, value in scan.attributes.items() if key in _KEPT_ATTRIBUTES},
            sources=self._source_keys(scan.name),
            instances=[self.pseudonyms.uid(uid) for uid in scan.instances],
            suffix="" if scan.source == "dicom" else ".png" if scan.source == "raster" else ".nii.gz",
        )
        path = writer.beside(self.folder, image.id, image.case, image.suffix)
        return Order(scan, patient, path, self._known.get(pseudonym, Identity()), image)

    def finish(self, order: Order, stored: Stored) -> None:
        """Move what was written to its place and enter it."""
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[order.image.patient] = stored.identity
        writer.put_image(self.folder, replace(order.image, hash=stored.hash), order.path, stored.volume)

    def admit_object(self, found: Companion, *, patient: str, visit: str) -> bool:
        """Write a DICOM object that is no image into the cohort, de-identified; False where it is there already.

        Raises:
            UnusableInput: its header is damaged.
        """
        pseudonym, case = self.pseudonyms.patient(patient), self.pseudonyms.case(patient, visit)
        self._check_welcome(pseudonym)
        object_id = "O" + self.pseudonyms.image(f"{found.kind}\n{found.instance}")[1:]
        self.admitted[pseudonym] = patient
        writer.lift_quarantine(self.folder, self.pseudonyms.source(found.name))
        if writer.has_object(self.folder, object_id):
            return False
        path = writer.beside(self.folder, object_id, case, ".dcm")
        try:
            known = self._known.get(pseudonym, Identity())
            self._known[pseudonym] = self._storer.store_object(found.files[0], patient, path, known)
            writer.put_object(self.folder, object_id, case, pseudonym, found.kind, path)
        finally:
            writer.drop(path)
        return True

    def description(self, scan: Scan, patient: str) -> str:
        """The series description of a DICOM scan, cleaned, for the terminal."""
        said = str(scan.attributes.get("SeriesDescription", ""))
        if not said:
            return ""
        pseudonym = self.pseudonyms.patient(patient)
        known = self._known.get(pseudonym, Identity())
        cleaner = HeaderCleaner(self.pseudonyms, pseudonym, patient, self.profile, known)
        with lenient():
            try:
                header = pydicom.dcmread(scan.files[0], stop_before_pixels=True, force=True)
                return cleaner.learn(header).clean(said)
            except damaged():
                return ""

    def complete_hashes(self) -> None:
        """Hash the images whose pixels were copied unread; a damaged one stays without."""
        missing = {image for image, (_, _, known) in image_hashes(self.folder).items() if known == NO_HASH}
        for image in (image for case in open_cohort(self.folder) for image in case.images) if missing else ():
            if image.id not in missing:
                continue
            try:
                array = image.pixels.read()
            except (UnusableInput, StoreError):
                continue
            writer.put_hash(self.folder, image.id, perceptual_hash(reorient(array, *image.grid.canonical()[1:])))

    def record(self, what: str, cases: int, figures: Mapping[str, int]) -> None:
        """Enter into the audit trail what was done."""
        audit.record(self.folder, self.pseudonyms.key, what, cases=cases, figures=figures)

    def set_aside(self, name: str, reason: str, remedy: str) -> None:
        """Remember an input that cannot be used, by the pseudonym of its name."""
        writer.put_quarantine(self.folder, self.pseudonyms.source(name), reason, remedy)

    def images_named(self, name: str, *, whole: bool = False) -> list[tuple[str, str, Grid]]:
        """(image, case, grid) of the images whose source had this name, with or without a mask's ending.

        The whole name counts most, then the name without suffix, then ever fewer of its last parts.

        Args:
            name: a file's name or path.
            whole: only all of the name, with or without suffix.
        """
        plain = without_suffix(name)
        bare = MASK_ENDING.sub("", plain)
        keys = [name]
        for known in dict.fromkeys((plain, bare)):
            parts = PurePosixPath(known.replace("\\", "/")).parts
            keys += [known, *("/".join(parts[first:]) for first in range(len(parts)) if not (whole and first))]
        return _located(writer.find_images(self.folder, [self.pseudonyms.source(key) for key in dict.fromkeys(keys)]))

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

    def _check_welcome(self, pseudonym: str) -> None:
        if pseudonym in forgotten(self.folder):
            raise WithdrawnPatient(
                "This patient was withdrawn from the cohort, and stays out.",
                remedy="Name the patient with --readmit if consent was given again.",
            )

    def _check_primary(self, scan: Scan) -> None:
        words = [str(scan.attributes.get(key, "")) for key in ("ImageType", "SeriesDescription", "ProtocolName")]
        secondary = scan.attributes.get("SecondaryCapture") == "yes" or is_secondary("", words)
        if scan.source == "dicom" and secondary and not self.profile.secondary:
            raise UnusableInput(
                "A secondary capture, screenshot or dose sheet; such images often show names.",
                remedy="Add --secondary to let them in with their text hidden.",
            )


def _content(scan: Scan) -> list[str]:
    """What tells this scan from every other: SOP Instance UIDs, or the bytes of its files."""
    volume = volume_of(scan.name)[1]
    if scan.source == "dicom":
        return [volume, *sorted(scan.instances)]
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


def _located(rows: Sequence[sqlite3.Row]) -> list[tuple[str, str, Grid]]:
    return [(row["id"], row["case_id"], Grid.from_json(json.loads(row["grid"]))) for row in rows]
