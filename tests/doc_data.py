"""What the documents' code blocks work on: a small hospital's worth of synthetic scans, masks and tables."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

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
    films/round/film_00.png …     planes with a spot each or none, in folders by its shape; films.csv and spots.csv
    new_films/film_90.png …       two more, of one patient: new_films.csv
    """
    for number in range(1, patients + 1):
        _write_patient(folder / "scans", folder / "masks", number)
    _write_patient(folder / "new_scans", None, 90)
    _write_films(folder)
    with (folder / "patients.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "age", "part"])
        for number in range(8):
            image, label = volume(100 + number)
            write_nifti(folder / "images" / f"case_{number:02d}.nii.gz", image)
            write_nifti(folder / "labels" / f"case_{number:02d}.nii.gz", label)
            part = "test" if number // 2 == 3 else "train"
            table.writerow([f"case_{number:02d}", f"P{number // 2}", 40 + 3 * (number // 2), part])


def _write_films(folder: Path, films: int = 60) -> None:
    shapes = ("round", "long", "none")
    tables = [["input", "patient", "shape"]], [["input", "class", "x", "y", "width", "height"]], [["input", "patient"]]
    for number in [*range(films), 90, 91]:
        shape = shapes[number % 3]
        name = f"film_{number:02d}"
        place = folder / "new_films" if number >= 90 else folder / "films" / shape
        x, y = _write_film(place / f"{name}.png", shape, number)
        if number >= 90:
            tables[2].append([name, "F45"])
            continue  # no more is known of new ones
        tables[0].append([name, f"F{number // 2}", shape])
        tables[1].append([name, *([] if shape == "none" else ["spot", x, y, 12, 12])])
    for table, rows in zip(("films.csv", "spots.csv", "new_films.csv"), tables, strict=True):
        with (folder / table).open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def _write_film(path: Path, shape: str, seed: int) -> tuple[int, int]:
    """A plane of 64 x 64 with a bright spot of this shape; returns its centre."""
    rng = np.random.default_rng(seed)
    x, y = (int(value) for value in rng.integers(14, 50, 2))
    across, down = np.meshgrid(np.arange(64), np.arange(64))
    wide = {"round": (5.0, 5.0), "long": (2.5, 9.0), "none": (1.0, 1.0)}[shape]
    spot = np.hypot((across - x) / wide[0], (down - y) / wide[1]) < 1
    pixels = rng.normal(90, 12, (64, 64)) + 70 * spot * (shape != "none")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return x, y


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
