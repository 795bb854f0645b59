"""What a DICOM header says about its image, as plain values that fit on a line of an index.

Standard: PS3.3 (image modules), PS3.10 (files). Pixel data are not read.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from vesalius.core.errors import UnusableInput
from vesalius.formats.dicom_elements import NotPlain, layout_of
from vesalius.formats.dicom_frames import Frame, frames_of
from vesalius.formats.dicom_quick import QuickHeader
from vesalius.formats.dicom_syntaxes import DEFLATED, NATIVE, is_readable
from vesalius.formats.dicom_values import Attributes, attributes_of, text, whole
from vesalius.formats.scan import MAX_VOXELS, Companion

Entry = TypeVar("Entry")

_AGAIN = "Copy or export it again from its source."
_INFLATED_LIMIT = 4 * 2**30  # bytes of a deflated data set
_INFLATED_SMALL, _INFLATED_RATIO = 2**24, 200  # bytes, and unpacked to packed size of what is larger
_MOST_READS = 8_000_000  # of the elements of a file; the largest headers need a tenth
_COMPRESSION_LIMIT = 5000  # an image that claims to be packed tighter is a bomb
_START = 1 << 17  # bytes that hold all but the longest headers
_CROSS_SECTIONAL = ("CT", "MR", "PT")

# SOP classes (or their prefixes) that hold no image: what they are, and what to do with them.
_LABEL = "Give it to `vesalius label --masks` if it outlines these images."
_NONE = "Nothing needs to be done; keep it out of the folder to silence this."
_NO_IMAGE = {
    "1.2.840.10008.5.1.4.1.1.66.4": ("A DICOM segmentation: a mask, not an image.", _LABEL),
    "1.2.840.10008.5.1.4.1.1.66.7": ("A DICOM segmentation: a mask, not an image.", _LABEL),
    "1.2.840.10008.5.1.4.1.1.66": ("A registration or fiducials object, not an image.", _NONE),
    "1.2.840.10008.5.1.4.1.1.68": ("A surface scan, not an image.", _NONE),
    "1.2.840.10008.5.1.4.1.1.481.3": ("A radiotherapy structure set: outlines, not an image.", _LABEL),
    "1.2.840.10008.5.1.4.1.1.481.2": ("A radiotherapy dose grid, not an image.", _NONE),
    "1.2.840.10008.5.1.4.1.1.481.1": ("", ""),  # RT Image is an image
    "1.2.840.10008.5.1.4.1.1.481": ("A radiotherapy plan or record, not an image.", _NONE),
    "1.2.840.10008.5.1.4.1.1.88": ("A structured report, not an image.", _NONE),
    "1.2.840.10008.5.1.4.1.1.104": ("An encapsulated document, not an image.", _NONE),
    "1.2.840.10008.5.1.4.1.1.11": ("A presentation state, not an image.", _NONE),
    "1.2.840.10008.5.1.4.1.1.9": ("A waveform, not an image.", _NONE),
    "1.2.840.10008.5.1.4.1.1.77.1.6": (
        "A whole-slide image in tiles, which is not read yet.", "Export a plane image (PNG or TIFF)."
    ),
    "1.2.840.10008.5.1.4.39": ("A colour palette, not an image.", _NONE),
    "1.2.840.10008.5.1.4.38": ("A hanging protocol, not an image.", _NONE),
}  # fmt: skip
_DIRECTORY = "1.2.840.10008.1.3.10"

# SOP classes (or their prefixes) of objects that belong to images and can be cleaned like them: what they are.
# Not among them, because nobody can say what is in them: raw data, surfaces, documents, recorded voices.
_BESIDE = {
    "1.2.840.10008.5.1.4.1.1.66.1": "registration",
    "1.2.840.10008.5.1.4.1.1.66.2": "fiducials",
    "1.2.840.10008.5.1.4.1.1.66.3": "registration",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "segmentation",
    "1.2.840.10008.5.1.4.1.1.481.2": "dose",
    "1.2.840.10008.5.1.4.1.1.481.3": "structure set",
    "1.2.840.10008.5.1.4.1.1.481.4": "treatment record",
    "1.2.840.10008.5.1.4.1.1.481.5": "plan",
    "1.2.840.10008.5.1.4.1.1.481.6": "treatment record",
    "1.2.840.10008.5.1.4.1.1.481.7": "treatment record",
    "1.2.840.10008.5.1.4.1.1.481.8": "plan",
    "1.2.840.10008.5.1.4.1.1.481.9": "treatment record",
    "1.2.840.10008.5.1.4.1.1.88": "report",
    "1.2.840.10008.5.1.4.1.1.88.59": "key objects",
    "1.2.840.10008.5.1.4.1.1.11": "presentation state",
    "1.2.840.10008.5.1.4.1.1.9.1": "waveform",
    "1.2.840.10008.5.1.4.1.1.9.2": "waveform",
    "1.2.840.10008.5.1.4.1.1.9.3": "waveform",
    "1.2.840.10008.5.1.4.1.1.9.5": "waveform",
    "1.2.840.10008.5.1.4.1.1.9.6": "waveform",
}


class NotAnImage(UnusableInput):
    """A DICOM object that belongs to images and is none."""

    def __init__(self, error: UnusableInput, kind: str, dataset: Any) -> None:
        super().__init__(error.what, remedy=error.remedy)
        self._kind = kind
        self._told = (_patient(dataset), text(dataset, "StudyInstanceUID"), text(dataset, "SOPInstanceUID"))

    def companion(self, name: str, path: Path) -> Companion:
        """The object that was met."""
        return Companion(name, (path,), self.what, self.remedy, self._kind, *self._told)


@dataclass(frozen=True)
class Header:
    """One DICOM file with an image.

    Args:
        path: where the file is.
        sop_class, sop_instance, study, series: UIDs as they stand in the file.
        patient: PatientID, else name and birth date.
        number: SeriesNumber, 0 where missing.
        rows, columns, samples: size of a frame and values per pixel (3: colour).
        frame_of_reference: UID, or "".
        frames: geometry, scaling and traits of each frame.
        attributes: what role rules look at.
        spatial: whether this file is a slice or stack of a volume (else a plane image, or a film of them).
    """

    path: str
    sop_class: str
    sop_instance: str
    patient: str
    study: str
    series: str
    modality: str
    number: int
    rows: int
    columns: int
    samples: int
    photometric: str
    frame_of_reference: str
    frames: tuple[Frame, ...]
    attributes: Attributes
    spatial: bool

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs to make this header again."""
        return {**vars(self), "frames": [frame.as_json() for frame in self.frames]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Header:
        """The header that `as_json` described."""
        frames = tuple(Frame.from_json(frame) for frame in data["frames"])
        return cls(**{**data, "frames": frames})


@contextmanager
def lenient() -> Iterator[None]:
    """Let pydicom read values that break a rule of the standard without a word; what matters is checked here."""
    from pydicom import config

    before = config.settings.reading_validation_mode
    loggers = [logging.getLogger(name) for name in ("pydicom", "openjpeg", "highdicom")]
    silent = [logger.disabled for logger in loggers]
    config.settings.reading_validation_mode = config.IGNORE
    try:
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode = before
        for logger, was in zip(loggers, silent, strict=True):
            logger.disabled = was


class PatientFile(io.BufferedReader):
    """A file that loses patience with whoever reads absurdly often, as a file of nothing but tiny elements asks for."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._left = _MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes.

        Raises:
            UnusableInput: the patience is at an end.
        """
        self._left -= 1
        if self._left < 0:
            raise UnusableInput("Its header has millions of elements.", remedy=_AGAIN)
        return super().read(size)


def looks_like_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM does: with a preamble, or right with a low group number."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    if start[128:132] == b"DICM":
        return True
    if len(start) < 16:
        return False
    group, element = struct.unpack("<HH", start[:4])
    other_group, other_element = struct.unpack(">HH", start[:4])
    bare: bool = group in (0x0002, 0x0008) and element < 0x0100
    return bare or bool(other_group == 0x0008 and other_element < 0x0100)


def read_header(path: Path) -> Header | None:
    """The header of a DICOM image; None for a DICOMDIR, which only lists other files.

    Raises:
        UnusableInput: damaged, cut off, without an image, or contradicting itself.
    """
    with lenient():
        try:
            with PatientFile(path) as file:
                return header_in(path, file)
        except UnusableInput:
            raise
        except PermissionError as error:
            raise UnusableInput("It may not be read.", remedy="Give yourself permission to read it.") from error
        except Exception as error:  # pydicom raises nearly anything on damaged files
            raise UnusableInput("Its DICOM header is damaged or cut off.", remedy=_AGAIN) from error


def header_in(path: Path, file: BinaryIO) -> Header | None:
    """The header in an open file, or in what is to become the file `path`; errors of damaged ones as they come."""
    from pydicom import dcmread

    start = file.read(_START)
    size = file.seek(0, 2)
    try:
        layout = layout_of(start, size, header=True)
        file.seek(layout.pixels)
        return _header(path, QuickHeader(start, layout), file)
    except NotPlain:
        file.seek(0)
    _check_inflated(file)
    return _header(path, dcmread(file, stop_before_pixels=True, force=True), file)


def _check_inflated(file: BinaryIO) -> None:
    """Refuse a deflated data set that would unpack to more than memory should hold."""
    start = file.read(1024)
    file.seek(0)
    if DEFLATED.encode() not in start:
        return
    from pydicom.filereader import _read_file_meta_info as read_meta
    from pydicom.filereader import read_preamble

    read_preamble(file, force=True)
    read_meta(file)
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while block := (inflater.unconsumed_tail or file.read(1 << 16)):
        total += len(inflater.decompress(block, 1 << 20))
        if total > _INFLATED_LIMIT or total > max(_INFLATED_SMALL, file.tell() * _INFLATED_RATIO):
            raise UnusableInput("Its compressed data set unpacks to an absurd size.", remedy=_AGAIN)
    file.seek(0)


def _header(path: Path, dataset: Any, file: BinaryIO) -> Header | None:
    sop_class = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
    if sop_class == _DIRECTORY or "DirectoryRecordSequence" in dataset:
        return None
    _check_is_image(dataset, sop_class)
    syntax = text(dataset.file_meta, "TransferSyntaxUID")
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    samples = whole(dataset, "SamplesPerPixel") or 1
    count = max(whole(dataset, "NumberOfFrames"), 1)
    _check_pixels(dataset, file, syntax, rows * columns * samples * count)
    quick = isinstance(dataset, QuickHeader)
    attributes = dataset.attributes(sop_class) if quick else attributes_of(dataset, sop_class)
    modality = text(dataset, "Modality")
    frames, spatial = frames_of(dataset, count)
    if count > 1 and not spatial and modality in _CROSS_SECTIONAL and "SecondaryCapture" not in attributes:
        raise UnusableInput(f"Its {count} frames state no position, so they cannot be put in order.", remedy=_AGAIN)
    spatial = spatial or (modality in _CROSS_SECTIONAL and count == 1)
    return Header(
        path=str(path),
        sop_class=sop_class,
        sop_instance=text(dataset, "SOPInstanceUID"),
        patient=_patient(dataset),
        study=text(dataset, "StudyInstanceUID"),
        series=text(dataset, "SeriesInstanceUID"),
        modality=modality,
        number=whole(dataset, "SeriesNumber"),
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=text(dataset, "PhotometricInterpretation"),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        frames=frames,
        attributes=attributes,
        spatial=spatial,
    )


def _patient(dataset: Any) -> str:
    """The patient's key: PatientID, or name and birth date where that is empty."""
    identity = text(dataset, "PatientID")
    if identity:
        return identity
    parts = (text(dataset, "PatientName").strip("^ "), text(dataset, "PatientBirthDate"))
    return "|".join(parts) if any(parts) else ""


def _check_is_image(dataset: Any, sop_class: str) -> None:
    if len(dataset) == 0:
        raise UnusableInput("It is no DICOM file, or an empty one.", remedy=_AGAIN)
    what, remedy = _of_family(_NO_IMAGE, sop_class, ("", ""))
    if what:
        error, kind = UnusableInput(what, remedy=remedy), _of_family(_BESIDE, sop_class, "")
        raise NotAnImage(error, kind, dataset) if kind and text(dataset, "SOPInstanceUID") else error
    if whole(dataset, "Rows") < 1 or whole(dataset, "Columns") < 1:
        raise UnusableInput("A DICOM file without an image.", remedy=_NONE)


def _of_family(known: Mapping[str, Entry], sop_class: str, default: Entry) -> Entry:
    """What is known of a SOP class, or of the family that its UID continues."""
    families = (uid for uid in known if sop_class == uid or sop_class.startswith(uid + "."))
    family = max(families, key=len, default="")
    return known.get(family, default)


def _check_pixels(dataset: Any, file: BinaryIO, syntax: str, values: int) -> None:
    """Refuse missing, cut-off or absurdly large pixel data; the file stands at the pixel data element."""
    if values > MAX_VOXELS:
        raise UnusableInput(
            f"The header declares {values:.2g} values, more than can be read.", remedy="Check the header."
        )
    if not is_readable(syntax, whole(dataset, "BitsStored")):
        raise UnusableInput(
            "Its pixel data are packed in a way that no decoder here reads (video, JPEG XL or 12-bit JPEG).",
            remedy="Export it again from its source, uncompressed.",
        )
    if syntax == DEFLATED:
        return
    start = file.tell()
    tag = file.read(8)
    size = file.seek(0, 2) - start - 8
    known = tag[:4] in (b"\xe0\x7f\x10\0", b"\xe0\x7f\x08\0", b"\xe0\x7f\x09\0", b"\x7f\xe0\0\x10")
    if len(tag) < 8 or size <= 0 or not known:
        raise UnusableInput("It is cut off before its pixel data, or has none.", remedy=_AGAIN)
    if syntax and syntax not in NATIVE:
        if values > max(2**26, size * _COMPRESSION_LIMIT):
            raise UnusableInput("Its compressed pixel data unpack to an absurd size.", remedy=_AGAIN)
        return
    bits = 64 if tag[:2] in (b"\xe0\x7f", b"\x7f\xe0") and tag[2:4] in (b"\x09\0", b"\0\x09") else 0
    bits = bits or whole(dataset, "BitsAllocated") or 16
    if text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        values = values * 2 // 3
    if size < values * bits // 8:
        raise UnusableInput(
            f"It is cut off: its pixel data need {values * bits // 8} bytes and {size} are there.", remedy=_AGAIN
        )
