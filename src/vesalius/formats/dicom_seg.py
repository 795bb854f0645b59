"""DICOM Segmentation out and in (PS3.3 A.51; C.8.20)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.cohort import Label
from vesalius.core.errors import GeometryError, UnusableInput
from vesalius.core.finding import Code
from vesalius.core.grid import Array, Grid
from vesalius.core.protocols import RESEARCH_ONLY
from vesalius.formats.dicom_header import lenient
from vesalius.formats.dicom_pixels import DicomPixels, Source, decoded, open_whole
from vesalius.formats.dicom_values import first, numbers, text, value, whole
from vesalius.formats.scan import Scan

SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")

_OWN_SCHEME = "99VESALIUS"
_FRAME_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns",
    "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "Modality", "LossyImageCompression",
]  # fmt: skip
_REQUIRED = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
             "StudyDate", "StudyTime", "Modality")  # fmt: skip
_ALIGNED_MM = 0.01
_ON_SLICE = 0.05  # of a slice step


def write_seg(
    path: Path, label_map: Array, labels: Sequence[Label], scan: Scan, *, model_name: str, version: str
) -> None:
    """Write a label map as a binary DICOM SEG that references the instances it was derived from.

    The file appears whole or not at all. It carries the patient and study of its source, so it is as
    identified as that. Memory: one byte a voxel beside the label map, and one bit a voxel and class written.

    Args:
        path: ends in `.dcm`.
        label_map: (i, j, k) whole numbers on `scan.grid`; values that are no label are left out.
        labels: the classes, in the order of the segments.
        scan: the DICOM scan that was segmented.
        model_name, version: what made it.

    Raises:
        ValueError: the map does not lie on the scan's grid, or there is no label.
        UnusableInput: the source lacks what a SEG needs (frames without position), or is no DICOM.
    """
    if label_map.shape != scan.grid.shape or not labels:
        raise ValueError(f"a label map of {label_map.shape} does not lie on a grid of {scan.grid.shape}")
    if not isinstance(scan.pixels, DicomPixels):
        raise UnusableInput("Its source is no DICOM.", remedy="Write NIfTI instead.")
    if len(scan.pixels.sources) > 1 and not scan.grid.placed:
        raise UnusableInput(
            "A film of frames without a place in the patient cannot be referenced by a DICOM SEG.",
            remedy="Write NIfTI instead.",
        )
    with lenient():
        sources = _source_headers(scan)
        _only_frames(sources[0], scan.pixels.sources)
        segmentation = _segmentation(_planes(label_map, labels), labels, sources, model_name, version)
        _restore_frame_numbers(segmentation, scan.pixels.sources)
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            segmentation.save_as(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def _source_headers(scan: Scan) -> list[Any]:
    """Headers of the source files in slice order: the first whole, of the others what places them."""
    from pydicom import dcmread

    headers = []
    for position, file in enumerate(scan.files):
        tags = None if position == 0 else _FRAME_TAGS
        headers.append(dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags))
    for keyword in _REQUIRED:
        if keyword not in headers[0]:
            setattr(headers[0], keyword, "")
    if not scan.grid.placed and "FrameOfReferenceUID" in headers[0]:
        del headers[0].FrameOfReferenceUID  # a plane image: its frame of reference places nothing
    return headers


def _only_frames(header: Any, sources: Sequence[Source]) -> None:
    """Make the header of a multi-frame file that of the scan's frames alone, in slice order.

    highdicom refuses a source with several frames at one place, which a file of several volumes has.
    """
    groups = value(header, "PerFrameFunctionalGroupsSequence")
    if groups is not None:
        header.PerFrameFunctionalGroupsSequence = [groups[source.index] for source in sources]
        header.NumberOfFrames = len(sources)


def _restore_frame_numbers(segmentation: Any, sources: Sequence[Source]) -> None:
    """Frame numbers of the whole file again, where `_only_frames` made them those of the scan's frames."""
    done: set[int] = set()  # highdicom shares one item between the segments of a frame
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", []):
            for image in derivation.SourceImageSequence:
                if "ReferencedFrameNumber" in image and id(image) not in done:
                    done.add(id(image))
                    image.ReferencedFrameNumber = sources[int(image.ReferencedFrameNumber) - 1].index + 1


def _planes(label_map: Array, labels: Sequence[Label]) -> Array:
    """Segment numbers 1, 2, ... as (frames, rows, columns)."""
    columns, rows, slices = label_map.shape
    planes = np.zeros((slices, rows, columns), np.uint8 if len(labels) < 256 else np.uint16)
    for k in range(slices):
        plane = label_map[:, :, k].T
        for position, label in enumerate(labels):
            planes[k][plane == label.value] = position + 1
    return planes


def _segmentation(planes: Array, labels: Sequence[Label], headers: list[Any], model_name: str, version: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=model_name[:64], version=version[:64], family=codes.DCM.ArtificialIntelligence
    )
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=position + 1,
            segment_label=label.name[:64],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=_concept(label),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for position, label in enumerate(labels)
    ]
    try:
        return highdicom.seg.Segmentation(
            source_images=headers,
            pixel_array=planes,
            segmentation_type="BINARY",
            segment_descriptions=descriptions,
            series_instance_uid=highdicom.UID(),
            series_number=9000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="Vesalius",
            manufacturer_model_name=model_name[:64],
            software_versions=version[:64],
            device_serial_number="0",
            content_label="SEGMENTATION",
            content_description=RESEARCH_ONLY.split(";")[0][:64],
            series_description=f"{model_name[:30]}: research use only",
        )
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UnusableInput(
            "Its source lacks what a DICOM SEG must reference.", remedy="Write NIfTI instead."
        ) from error


def _concept(label: Label) -> Any:
    """The label's code where it has one, else its name under a scheme of our own."""
    from highdicom.sr import CodedConcept

    if label.code is not None:
        return CodedConcept(label.code.value, label.code.scheme, label.code.meaning[:64])
    return CodedConcept(f"L{label.value}", _OWN_SCHEME, label.name[:64] or f"label {label.value}")


@dataclass(frozen=True)
class Segment:
    """One segment of a file: its number there, its name, and its code where that is of a known scheme."""

    number: int
    name: str
    code: Code | None


@dataclass(frozen=True)
class Segmentation:
    """A DICOM SEG without its pixels.

    Args:
        path: the file.
        study, series, instances: UIDs of what was segmented, as the file references them.
        frame_of_reference: UID, or "".
        segments: by number.
    """

    path: Path
    study: str
    series: tuple[str, ...]
    instances: frozenset[str]
    frame_of_reference: str
    segments: tuple[Segment, ...]


def read_seg(path: Path) -> Segmentation:
    """What a DICOM SEG says it outlines, and in which instances.

    Raises:
        UnusableInput: no DICOM SEG, or damaged.
    """
    from pydicom import dcmread

    with lenient():
        try:
            dataset = dcmread(path, stop_before_pixels=True, force=True)
            if text(dataset, "SOPClassUID") not in SOP_CLASSES:
                raise UnusableInput("It is no DICOM SEG.", remedy="Give a DICOM SEG.")
            segments = tuple(
                Segment(whole(item, "SegmentNumber"), text(item, "SegmentLabel"), _code(item))
                for item in value(dataset, "SegmentSequence") or []
            )
            return Segmentation(
                path,
                text(dataset, "StudyInstanceUID"),
                _referenced_series(dataset),
                frozenset(_referenced_instances(dataset)),
                text(dataset, "FrameOfReferenceUID"),
                tuple(segment for segment in segments if segment.number > 0),
            )
        except (UnusableInput, ImportError):
            raise
        except Exception as error:  # pydicom raises nearly anything on damaged files
            raise _damaged() from error


def masks_on(segmentation: Segmentation, grid: Grid) -> Mapping[int, Array]:
    """Each segment as a boolean (i, j, k) on the image's grid; nothing is resampled.

    Raises:
        GeometryError: a frame does not lie on a slice of the grid, pixel on pixel.
        UnusableInput: fractional values between none and all, or damaged pixel data.
    """
    with lenient():
        try:
            dataset = open_whole(segmentation.path)
            masks = {segment.number: np.zeros(grid.shape, dtype=bool) for segment in segmentation.segments}
            for number_of, k, plane in _placed_frames(dataset, grid):
                for segment, mask in masks.items():
                    if number_of is None:
                        mask[:, :, k] |= (plane == segment).T
                    elif number_of == segment:
                        mask[:, :, k] |= (plane > 0).T
            return masks
        except (UnusableInput, ImportError):
            raise
        except Exception as error:  # pydicom and the decoders raise nearly anything on damaged files
            raise _damaged() from error


def _placed_frames(dataset: Any, grid: Grid) -> Iterator[tuple[int | None, int, Array]]:
    """For each frame: its segment (None in a label map), its slice of the grid, its pixels."""
    shared = first(dataset, "SharedFunctionalGroupsSequence")
    groups = value(dataset, "PerFrameFunctionalGroupsSequence") or []
    count = max(whole(dataset, "NumberOfFrames"), 1)
    if len(groups) != count:
        raise _damaged()
    is_map = text(dataset, "SOPClassUID") == SOP_CLASSES[1]
    top = whole(dataset, "MaximumFractionalValue") if text(dataset, "SegmentationType") == "FRACTIONAL" else 1
    for group, plane in zip(groups, decoded(dataset, list(range(count))), strict=True):
        if not is_map and not np.isin(plane, (0, top)).all():
            raise UnusableInput(
                "It holds fractions (probabilities), not a mask.", remedy="Export it as a binary segmentation."
            )
        identity = first(group, "SegmentIdentificationSequence") or first(shared, "SegmentIdentificationSequence")
        segment = None if is_map else whole(identity, "ReferencedSegmentNumber")
        yield segment, _slice_of(group, shared, plane.shape, grid), plane


def _slice_of(group: Any, shared: Any, size: tuple[int, ...], grid: Grid) -> int:
    """The k on which a frame lies, pixel on pixel."""
    if size != (grid.shape[1], grid.shape[0]):
        raise GeometryError(
            f"Its frames have {size[1]} x {size[0]} pixels, the image {grid.shape[0]} x {grid.shape[1]}.",
            remedy="Give a segmentation on the image's own pixels.",
        )
    position = numbers(first(group, "PlanePositionSequence") or first(shared, "PlanePositionSequence"),
                       "ImagePositionPatient", 3)  # fmt: skip
    if position is None and not grid.placed and grid.shape[2] == 1:
        return 0
    orientation = numbers(first(group, "PlaneOrientationSequence") or first(shared, "PlaneOrientationSequence"),
                          "ImageOrientationPatient", 6)  # fmt: skip
    measures = first(group, "PixelMeasuresSequence") or first(shared, "PixelMeasuresSequence")
    spacing = numbers(measures, "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None or not grid.placed:
        raise GeometryError("A frame of it states no place.", remedy="Give a segmentation with positions.")
    start = grid.to_index(position)
    k = int(np.rint(start[2]))
    columns, rows = size[1] - 1, size[0] - 1
    corner = (
        np.asarray(position)
        + np.asarray(orientation[:3]) * spacing[1] * columns
        + np.asarray(orientation[3:]) * spacing[0] * rows
    )
    step = grid.spacing[2]
    apart = max(
        float(np.linalg.norm(grid.to_patient((0, 0, k)) - position)),
        float(np.linalg.norm(grid.to_patient((columns, rows, k)) - corner)),
    )
    if not 0 <= k < grid.shape[2] or apart > max(_ALIGNED_MM, _ON_SLICE * step):
        raise GeometryError(
            "Its frames do not lie on the image's slices, pixel on pixel.",
            remedy="Give the image that was segmented, or a segmentation on this one.",
        )
    return k


def _code(item: Any) -> Code | None:
    kind = first(item, "SegmentedPropertyTypeCodeSequence")
    code = Code(text(kind, "CodeValue"), text(kind, "CodingSchemeDesignator"), text(kind, "CodeMeaning"))
    return code if code.value and not code.scheme.startswith("99") else None


def _referenced_series(dataset: Any) -> tuple[str, ...]:
    items = value(dataset, "ReferencedSeriesSequence") or []
    return tuple(uid for uid in (text(item, "SeriesInstanceUID") for item in items) if uid)


def _referenced_instances(dataset: Any) -> Iterator[str]:
    for series in value(dataset, "ReferencedSeriesSequence") or []:
        for instance in value(series, "ReferencedInstanceSequence") or []:
            yield text(instance, "ReferencedSOPInstanceUID")
    for group in value(dataset, "PerFrameFunctionalGroupsSequence") or []:
        for derivation in value(group, "DerivationImageSequence") or []:
            for source in value(derivation, "SourceImageSequence") or []:
                yield text(source, "ReferencedSOPInstanceUID")


def _damaged() -> UnusableInput:
    return UnusableInput("The DICOM SEG is damaged or cut off.", remedy="Copy or export it again.")
