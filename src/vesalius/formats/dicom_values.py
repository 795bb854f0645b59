"""Single values of a DICOM data set, read so that a damaged element counts as missing."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from decimal import InvalidOperation
from functools import cache
from typing import Any

from vesalius.core.errors import UnusableInput
from vesalius.formats.scan import Attribute

Attributes = Mapping[str, Attribute]

_TEXTS = (
    "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "ScanningSequence",
    "SequenceVariant", "ScanOptions", "MRAcquisitionType", "AcquisitionContrast", "ContrastBolusAgent",
    "ViewPosition", "BodyPartExamined", "PresentationIntentType", "ConversionType", "PatientOrientation",
    "ComplexImageComponent", "ConvolutionKernel", "BurnedInAnnotation", "Manufacturer", "StudyDescription",
    "RecognizableVisualFeatures", "LossyImageCompression", "PartialView", "DerivationDescription",
)  # fmt: skip
_NUMBERS = (
    "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "DiffusionBValue", "SliceThickness",
    "SeriesNumber", "NumberOfFrames", "FrameTime", "MagneticFieldStrength", "GantryDetectorTilt", "KVP",
    "EchoTrainLength",
)  # fmt: skip
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Every element that `attributes_of` reads, besides functional groups and private ones.
ATTRIBUTE_KEYWORDS = (
    *_TEXTS, *_NUMBERS, "ImageType", "ImageLaterality", "Laterality", "ViewCodeSequence", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "EstimatedRadiographicMagnificationFactor", "SequenceOfUltrasoundRegions",
    "PixelAspectRatio", "SpecificCharacterSet",
)  # fmt: skip


@cache
def damaged(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What pydicom raises on files and elements that it cannot decode or encode, and the others named.

    A function, because an `except` clause looks at it only where something was raised: reading what is no DICOM
    does not wait for pydicom.
    """
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, NotImplementedError,
        struct.error, InvalidOperation, EOFError, RecursionError, BytesLengthException, InvalidDicomError,
        *others,
    )  # fmt: skip


def value(dataset: Any, keyword: str) -> Any:
    """The element's value, or None where it is missing, empty or damaged."""
    try:
        if dataset is None or keyword not in dataset:
            return None
        found = getattr(dataset, keyword, None)
    except damaged():
        return None
    return None if found is None or found == "" else found


def text(dataset: Any, keyword: str) -> str:
    """The element as text, several values joined by a backslash as in the file; "" where missing."""
    found = value(dataset, keyword)
    if found is None:
        return ""
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        return "\\".join(str(part) for part in found).strip()
    return str(found).strip().strip("\0")


def number(dataset: Any, keyword: str) -> float | None:
    """The element's (first) value as a finite number, or None."""
    found = value(dataset, keyword)
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        found = found[0] if len(found) else None
    try:
        result = float(found)
    except damaged():
        return None
    return result if math.isfinite(result) else None


def whole(dataset: Any, keyword: str) -> int:
    """The element's value as a whole number, 0 where missing."""
    found = number(dataset, keyword)
    return int(found) if found is not None else 0


def numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, or None."""
    found = value(dataset, keyword)
    if not isinstance(found, Sequence) or isinstance(found, str | bytes) or len(found) != count:
        return None
    try:
        result = tuple(float(part) for part in found)
    except damaged():
        return None
    return result if all(math.isfinite(part) for part in result) else None


def first(dataset: Any, keyword: str) -> Any:
    """The first item of a sequence, or None."""
    found = value(dataset, keyword)
    try:
        return found[0] if found is not None and len(found) else None
    except damaged():
        return None


def attributes_of(dataset: Any, sop_class: str) -> dict[str, Attribute]:
    """What role rules may look at. Texts are free text and may identify.

    Raises:
        UnusableInput: the header names the left and the right side for the same image.
    """
    found: dict[str, Attribute] = {}
    for keyword in _TEXTS:
        if words := text(dataset, keyword):
            found[keyword] = words
    for keyword in _NUMBERS:
        if (amount := number(dataset, keyword)) is not None:
            found[keyword] = amount
    if kind := text(dataset, "ImageType"):
        found["ImageType"] = kind
    if (amount := b_value(dataset)) is not None:
        found["DiffusionBValue"] = amount
    if side := laterality(dataset):
        found["ImageLaterality"] = side
    if "ViewPosition" not in found and (view := _view(dataset)):
        found["ViewPosition"] = view
    found |= _plane_spacings(dataset)
    if sop_class.startswith(_SECONDARY_CAPTURE) or "ConversionType" in found:
        found["SecondaryCapture"] = "yes"
    return found


def _plane_spacings(dataset: Any) -> dict[str, Attribute]:
    """Spacings that are not Pixel Spacing: at the detector, of the one ultrasound region, aspect ratio."""
    found: dict[str, Attribute] = {}
    detector = numbers(dataset, "ImagerPixelSpacing", 2) or numbers(dataset, "NominalScannedPixelSpacing", 2)
    if detector:
        magnified = number(dataset, "EstimatedRadiographicMagnificationFactor") or 1.0
        factor = magnified if magnified >= 1.0 else 1.0
        found |= {"DetectorRowSpacing": detector[0] / factor, "DetectorColumnSpacing": detector[1] / factor}
    regions = value(dataset, "SequenceOfUltrasoundRegions")
    region = regions[0] if isinstance(regions, Sequence) and len(regions) == 1 else None
    if whole(region, "PhysicalUnitsXDirection") == 3 and whole(region, "PhysicalUnitsYDirection") == 3:  # cm
        across, down = number(region, "PhysicalDeltaX"), number(region, "PhysicalDeltaY")
        if across and down:
            found |= {"RegionRowSpacing": abs(down) * 10.0, "RegionColumnSpacing": abs(across) * 10.0}
    aspect = numbers(dataset, "PixelAspectRatio", 2)
    if aspect and min(aspect) > 0:
        found["PixelAspect"] = aspect[0] / aspect[1]
    return found


def laterality(dataset: Any) -> str:
    """The imaged side ("L", "R", "B"), or "" where nothing says.

    Image Laterality stands for the image, Laterality for its series (PS3.3 C.7.3.1, C.8.11.7), Frame
    Laterality for a frame; all that are there must agree.

    Raises:
        UnusableInput: they contradict each other.
    """
    said = {text(dataset, "ImageLaterality"), text(dataset, "Laterality")}
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        anatomy = first(first(dataset, groups), "FrameAnatomySequence")
        said.add(text(anatomy, "FrameLaterality"))
    sides = {side.upper()[:1] for side in said} & {"L", "R", "B"}
    if {"L", "R"} <= sides or ("B" in sides and len(sides) > 1):
        raise UnusableInput(
            "Its header names different sides (laterality) for the same image.",
            remedy="Find out which side was imaged and correct Image Laterality or Laterality.",
        )
    return sides.pop() if sides else ""


# Codes of View Code Sequence (PS3.16 CID 4014) for the mammographic views that roles name.
_VIEWS = {
    "R-10226": "MLO", "399368009": "MLO", "R-10242": "CC", "399162004": "CC", "R-10224": "ML",
    "399260004": "ML", "R-10228": "LM", "399352003": "LM",
}  # fmt: skip


def _view(dataset: Any) -> str:
    return _VIEWS.get(text(first(dataset, "ViewCodeSequence"), "CodeValue"), "")


def b_value(dataset: Any) -> float | None:
    """Diffusion weighting (s/mm2) from the standard element or where makers keep it in private ones."""
    standard = number(dataset, "DiffusionBValue")
    if standard is not None:
        return standard
    private: tuple[tuple[int, int], ...] = ((0x0019, 0x100C), (0x2001, 0x1003), (0x0043, 0x1039))
    for tag in private:  # Siemens, Philips, GE
        if tag not in dataset:
            continue
        try:
            found = dataset[tag].value
            if isinstance(found, bytes):
                found = struct.unpack("<f", found)[0] if len(found) == 4 and tag[0] == 0x2001 else found.decode()
            part = str(found).strip("[] ").replace("\\", ",").split(",")[0]
            amount = float(part)
        except damaged():
            continue
        if tag[0] == 0x0043 and amount >= 1e9:  # GE adds a flag of 1e9
            amount %= 1e9
        if 0 <= amount < 1e6:
            return amount
    return None
