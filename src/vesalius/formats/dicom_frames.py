"""The frames of a DICOM file: position, orientation, spacing, scaling and what tells volumes apart.

Classic files have these in the data set itself, enhanced multi-frame files in functional groups, shared or
per frame (PS3.3 C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vesalius.core.errors import UnusableInput
from vesalius.formats.dicom_values import b_value, first, number, numbers, text, value, whole
from vesalius.formats.scan import Attribute


@dataclass(frozen=True, slots=True)
class Frame:
    """One plane of pixels.

    Args:
        index: frame number in its file, from 0.
        position: centre of the first pixel (mm, LPS), or None.
        orientation: direction along a row, then down a column (unit vectors, LPS), or None.
        spacing: distance between rows, between columns (mm), or None.
        thickness: slice thickness (mm), or None.
        slope, intercept: stored value to real-world value.
        traits: what may tell one volume of a series from another.
    """

    index: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None
    slope: float
    intercept: float
    traits: Mapping[str, Attribute]

    def as_json(self) -> dict[str, Any]:
        """What `from_json` needs to make this frame again."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Frame:
        """The frame that `as_json` described."""
        for key in ("position", "orientation", "spacing"):
            data[key] = tuple(data[key]) if data[key] is not None else None
        return cls(**data)


def frames_of(dataset: Any, count: int) -> tuple[tuple[Frame, ...], bool]:
    """The frames of a file, and whether they have a place in the patient.

    Raises:
        UnusableInput: the number of functional groups is not the number of frames.
    """
    groups = value(dataset, "PerFrameFunctionalGroupsSequence")
    if groups is None:
        frame = _classic(dataset)
        placed = frame.position is not None and frame.orientation is not None
        if count == 1:
            return (frame,), placed
        return tuple(_nth(frame, index) for index in range(count)), False
    if len(groups) != count:
        raise UnusableInput(
            f"It declares {count} frames and describes {len(groups)}.", remedy="Export it again from its source."
        )
    shared = first(dataset, "SharedFunctionalGroupsSequence")
    frames = tuple(_grouped(dataset, shared, group, index) for index, group in enumerate(groups))
    return frames, all(frame.position and frame.orientation for frame in frames)


def _nth(frame: Frame, index: int) -> Frame:
    return Frame(index, None, None, frame.spacing, frame.thickness, frame.slope, frame.intercept, frame.traits)


def _classic(dataset: Any) -> Frame:
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    return Frame(
        index=0,
        position=numbers(dataset, "ImagePositionPatient", 3),
        orientation=numbers(dataset, "ImageOrientationPatient", 6),
        spacing=numbers(dataset, "PixelSpacing", 2),
        thickness=number(dataset, "SliceThickness") or number(dataset, "SpacingBetweenSlices"),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        traits=_classic_traits(dataset),
    )


def _classic_traits(dataset: Any) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {}
    for keyword in (
        "EchoTime", "InversionTime", "FlipAngle", "TemporalPositionIdentifier", "AcquisitionNumber",
        "NominalPercentageOfCardiacPhase", "TriggerTime", "RepetitionTime",
    ):  # fmt: skip
        if (amount := number(dataset, keyword)) is not None:
            found[keyword] = amount
    for keyword in (
        "ImageType", "EchoNumbers", "ComplexImageComponent", "AcquisitionTime", "ContentTime",
        "DiffusionGradientOrientation", "ConvolutionKernel",
    ):  # fmt: skip
        if words := text(dataset, keyword):
            found[keyword] = words
    if (amount := b_value(dataset)) is not None:
        found["DiffusionBValue"] = amount
    found["InstanceNumber"] = float(whole(dataset, "InstanceNumber"))
    return found


def _grouped(dataset: Any, shared: Any, group: Any, index: int) -> Frame:
    def item(sequence: str) -> Any:
        return first(group, sequence) or first(shared, sequence)

    measures = item("PixelMeasuresSequence")
    scaling = item("PixelValueTransformationSequence")
    slope, intercept = number(scaling, "RescaleSlope"), number(scaling, "RescaleIntercept")
    spacing = number(measures, "SliceThickness") or number(measures, "SpacingBetweenSlices")
    return Frame(
        index=index,
        position=numbers(item("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=numbers(item("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing=numbers(measures, "PixelSpacing", 2) or numbers(dataset, "PixelSpacing", 2),
        thickness=spacing,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        traits=_grouped_traits(item, index),
    )


def _grouped_traits(item: Any, index: int) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {}
    content, diffusion = item("FrameContentSequence"), item("MRDiffusionSequence")
    numeric = (
        ("EchoTime", item("MREchoSequence"), "EffectiveEchoTime"),
        ("DiffusionBValue", diffusion, "DiffusionBValue"),
        ("TemporalPositionIdentifier", content, "TemporalPositionIndex"),
        ("AcquisitionNumber", content, "FrameAcquisitionNumber"),
        ("NominalPercentageOfCardiacPhase", item("CardiacSynchronizationSequence"),
         "NominalPercentageOfCardiacPhase"),
        ("TriggerTime", item("CardiacSynchronizationSequence"), "NominalCardiacTriggerDelayTime"),
        ("InversionTime", item("MRModifierSequence"), "InversionTimes"),
        ("FlipAngle", item("MRTimingAndRelatedParametersSequence"), "FlipAngle"),
        ("RepetitionTime", item("MRTimingAndRelatedParametersSequence"), "RepetitionTime"),
    )  # fmt: skip
    for name, place, keyword in numeric:
        if (amount := number(place, keyword)) is not None:
            found[name] = amount
    kinds = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence",
             "XRay3DFrameTypeSequence", "CommonCTMRPETImageFrameTypeSequence")  # fmt: skip
    kind = next((place for sequence in kinds if (place := item(sequence)) is not None), None)
    directions = first(diffusion, "DiffusionGradientDirectionSequence")
    texts = (
        ("ImageType", kind, "FrameType"),
        ("ComplexImageComponent", kind, "ComplexImageComponent"),
        ("StackID", content, "StackID"),
        ("DiffusionGradientOrientation", directions, "DiffusionGradientOrientation"),
        ("AcquisitionTime", content, "FrameAcquisitionDateTime"),
    )
    for name, place, keyword in texts:
        if words := text(place, keyword):
            found[name] = words
    found["InstanceNumber"] = float(index + 1)
    return found
