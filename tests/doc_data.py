"""What the documents' code blocks work on: a small hospital's worth of synthetic scans, masks and tables."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

import numpy as np

from making import volume, write_nifti
from vesalius.core.grid import Grid
from vesalius.formats.nifti import write_nifti as write_on_grid
from vesalius.virtual.dicom_mr import SeriesLabel, write_series
from vesalius.virtual.patient import Patient

SERIES = SeriesLabel(3, "T1 MPRAGE")
SCOUT = SeriesLabel(1, "Localizer", ("M", "LOCALIZER"))


def make(folder: Path, patients: int = 10) -> None:
    """Fill a folder.

    scans/patient_01/T1/*.dcm …   DICOM series with a localiser beside the first
    masks/patient_01/T1.nii.gz …  1 and 2
    new_scans/patient_90/T1       one more patient
    images/case_00.nii.gz …       plain NIfTI, with labels/ and patients.csv beside
    """
    for number in range(1, patients + 1):
        _write_patient(folder / "scans", folder / "masks", number)
    _write_patient(folder / "new_scans", None, 90)
    with (folder / "patients.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "age", "part"])
        for number in range(8):
            image, label = volume(100 + number)
            write_nifti(folder / "images" / f"case_{number:02d}.nii.gz", image)
            write_nifti(folder / "labels" / f"case_{number:02d}.nii.gz", label)
            part = "test" if number // 2 == 3 else "train"
            table.writerow([f"case_{number:02d}", f"P{number // 2}", 40 + 3 * (number // 2), part])


def _write_patient(scans: Path, masks: Path | None, number: int) -> None:
    signal, label = volume(number)
    grid = Grid.from_parts(signal.shape, spacing=(1.5, 1.5, 2.0), origin=(-15.0, -18.0, float(number)))
    patient = Patient(
        name=f"Example^Number{number}", number=f"EX{number:04d}", sex="F", birth=date(1960, 1, number % 28 + 1),
        scanned=date(2024, 5, number % 28 + 1), address="1 Example Street", phone="555", physician="Doc^An",
    )  # fmt: skip
    name = f"patient_{number:02d}"
    write_series(scans / name / "T1", np.maximum(signal, 0), grid, patient, SERIES)
    if number == 1:
        thick = Grid.from_parts((20, 24, 3), spacing=(1.5, 1.5, 10.0))
        write_series(scans / name / "localizer", np.maximum(signal[:, :, 6:9], 0), thick, patient, SCOUT)
    if masks is not None:
        (masks / name).mkdir(parents=True)
        write_on_grid(masks / name / "T1.nii.gz", label, grid)
