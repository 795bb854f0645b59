"""DICOM series made up for tests: invented patients, small pictures, any geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
MG = "1.2.840.10008.5.1.4.1.1.1.2"
CR = "1.2.840.10008.5.1.4.1.1.1"
US_MULTI = "1.2.840.10008.5.1.4.1.1.3.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def image(pixels: np.ndarray, sop_class: str = CT, modality: str = "CT", **elements: Any) -> FileDataset:
    """A data set with one picture (rows, columns), (rows, columns, 3) or (frames, rows, columns)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    dataset.PatientID = "P1"
    dataset.PatientName = "Invented^Person"
    dataset.PatientBirthDate = "19500101"
    dataset.PatientSex = "O"
    dataset.StudyID = dataset.AccessionNumber = ""
    dataset.StudyDate = "20200101"
    dataset.StudyTime = "120000"
    dataset.Modality = modality
    dataset.SeriesNumber = 1
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        dataset.NumberOfFrames = pixels.shape[0]
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def volume_slices(
    volume: np.ndarray,
    *,
    spacing: Sequence[float] = (0.5, 0.7, 2.0),
    origin: Sequence[float] = (-10.0, -20.0, 30.0),
    row: Sequence[float] = (1, 0, 0),
    column: Sequence[float] = (0, 1, 0),
    step: Sequence[float] | None = None,
    **elements: Any,
) -> list[FileDataset]:
    """Slices of a volume (i, j, k), as data sets in the order of k."""
    normal = np.cross(row, column)
    vector = np.asarray(step) if step is not None else normal * spacing[2]
    slices = []
    for k in range(volume.shape[2]):
        dataset = image(np.ascontiguousarray(volume[:, :, k].T), **elements)
        dataset.ImagePositionPatient = [round(float(x), 6) for x in np.asarray(origin) + k * vector]
        dataset.ImageOrientationPatient = [float(x) for x in (*row, *column)]
        dataset.PixelSpacing = [spacing[1], spacing[0]]
        dataset.SliceThickness = spacing[2]
        dataset.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.3"
        dataset.InstanceNumber = k + 1
        slices.append(dataset)
    return slices


def write(folder: Path, slices: Sequence[FileDataset], names: Sequence[str] | None = None) -> list[Path]:
    """Write data sets into a folder, by default as 001.dcm, 002.dcm, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate(slices):
        path = folder / (names[number] if names else f"{number + 1:03d}.dcm")
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def enhanced_mr(volumes: Sequence[np.ndarray], echoes: Sequence[float], **elements: Any) -> FileDataset:
    """An enhanced multi-frame MR of several volumes (i, j, k) at the same place, one per echo time (ms)."""
    frames = [volume[:, :, k].T for volume in volumes for k in range(volume.shape[2])]
    dataset = image(np.ascontiguousarray(frames), ENHANCED_MR, "MR", **elements)
    dataset.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.3"
    shared = Dataset()
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.5], 2.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number, echo in enumerate(echoes):
        for k in range(volumes[0].shape[2]):
            group, position, time, scaling, content = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
            position.ImagePositionPatient = [-10.0, -20.0, 30.0 + 2 * k]
            time.EffectiveEchoTime = echo
            scaling.RescaleSlope, scaling.RescaleIntercept, scaling.RescaleType = 2, number, "US"
            content.InStackPositionNumber, content.StackID = k + 1, "1"
            content.DimensionIndexValues = [k + 1, number + 1]
            group.PlanePositionSequence, group.MREchoSequence = [position], [time]
            group.PixelValueTransformationSequence, group.FrameContentSequence = [scaling], [content]
            groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return dataset
