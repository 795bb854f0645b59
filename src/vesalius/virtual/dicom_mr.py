"""A virtual acquisition written as a scanner would: one MR Image Storage file per slice (DICOM PS3.3 A.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.core.grid import Grid
from vesalius.virtual.anatomy import Floats
from vesalius.virtual.patient import Patient

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class SeriesLabel:
    """What tells one series of a study from another.

    Args:
        number: SeriesNumber.
        description: SeriesDescription, the text that role rules look at.
        image_type: the third and further values of ImageType.
    """

    number: int
    description: str
    image_type: tuple[str, ...] = ("M", "NORM")


def _uid(*parts: object) -> str:
    """A UID that is the same for the same parts."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=["vesalius virtual cohort", *map(str, parts)]))


def _patient_and_study(patient: Patient) -> Dataset:
    from pydicom import Dataset

    header = Dataset()
    day = patient.scanned.strftime("%Y%m%d")
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName = patient.name
    header.PatientID = patient.number
    header.PatientBirthDate = patient.birth.strftime("%Y%m%d")
    header.PatientSex = patient.sex
    header.PatientAge = f"{patient.age:03d}Y"
    header.PatientAddress = patient.address
    header.PatientTelephoneNumbers = patient.phone
    header.PatientComments = f"Virtual patient. Mother of {patient.name.split('^')[1]} asks for a call."
    header.StudyInstanceUID = _uid(patient.number, day)
    header.FrameOfReferenceUID = _uid(patient.number, day, "frame")
    header.StudyID = f"V{day}"
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = day
    header.StudyTime = header.SeriesTime = header.AcquisitionTime = header.ContentTime = "101500"
    header.AccessionNumber = f"A{patient.number[2:]}"
    header.StudyDescription = "MR head, virtual"
    header.ReferringPhysicianName = patient.physician
    header.OperatorsName = "Technician^Invented"
    header.InstitutionName = "Invented Hospital of Padua"
    header.InstitutionAddress = "1 Theatre Court, Padua"
    header.StationName = "VIRTUALMR1"
    header.DeviceSerialNumber = "000042"
    return header


def _series(patient: Patient, label: SeriesLabel, grid: Grid) -> Dataset:
    header = _patient_and_study(patient)
    header.Modality = "MR"
    header.Manufacturer = "Vesalius virtual scanner"
    header.ManufacturerModelName = "MNI152"
    header.SoftwareVersions = "1"
    header.MagneticFieldStrength = 3.0
    header.SeriesInstanceUID = _uid(header.StudyInstanceUID, label.number)
    header.SeriesNumber = label.number
    header.SeriesDescription = label.description
    header.ProtocolName = label.description
    header.BodyPartExamined = "BRAIN"
    header.PatientPosition = "HFS"
    header.PositionReferenceIndicator = ""
    header.Laterality = ""
    header.ImageType = ["ORIGINAL", "PRIMARY", *label.image_type]
    header.ScanningSequence = ["GR", "IR"]
    header.SequenceVariant = ["SP", "MP"]
    header.ScanOptions = ""
    header.MRAcquisitionType = "3D"
    header.RepetitionTime, header.EchoTime, header.InversionTime = 2300.0, 2.98, 900.0
    header.EchoTrainLength = 1
    header.FlipAngle = 9.0
    row, column = grid.directions[:, 0], grid.directions[:, 1]
    header.ImageOrientationPatient = [f"{value:.10f}"[:16] for value in (*row, *column)]
    spacing = grid.spacing
    header.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]  # between rows, then between columns
    header.SliceThickness = header.SpacingBetweenSlices = f"{spacing[2]:.6f}"
    header.Columns, header.Rows = grid.shape[:2]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelRepresentation = 0
    return header


def write_series(
    folder: Path,
    signal: Floats,
    grid: Grid,
    patient: Patient,
    label: SeriesLabel,
    *,
    leave_out: tuple[int, ...] = (),
) -> Path:
    """Write a volume as one file per slice, explicit VR little endian, 12 of 16 bits.

    Args:
        folder: made if missing; the files are IM0001.dcm and so on.
        signal: (i, j, k), not negative; stored with a rescale slope of its own.
        grid: LPS, k along the cross product of i and j.
        patient: whose header it carries.
        label: which series of the study it is.
        leave_out: slices (k) that are not written, as when a transfer broke off.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    folder.mkdir(parents=True, exist_ok=True)
    slope = float(f"{max(float(signal.max()), 1.0) / 4095:.8f}") + 1e-8
    stored = np.clip(np.rint(signal / slope), 0, 4095).astype("<u2")
    for k in range(grid.shape[2]):
        if k in leave_out:
            continue
        header = _series(patient, label, grid)
        header.SOPClassUID = MRImageStorage
        header.SOPInstanceUID = _uid(header.SeriesInstanceUID, k)
        header.InstanceNumber = header.AcquisitionNumber = k + 1
        header.ImagePositionPatient = [f"{value:.9f}"[:16] for value in grid.to_patient((0, 0, k))]
        header.SliceLocation = f"{float(grid.to_patient((0, 0, k)) @ grid.directions[:, 2]):.6f}"
        header.RescaleSlope, header.RescaleIntercept, header.RescaleType = f"{slope:.8f}", "0", "US"
        header.WindowCenter, header.WindowWidth = f"{signal.max() * 0.35:.1f}", f"{signal.max() * 0.7:.1f}"
        header.PixelData = np.ascontiguousarray(stored[:, :, k].T).tobytes()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.save_as(folder / f"IM{k + 1:04d}.dcm", enforce_file_format=True)
    return folder
