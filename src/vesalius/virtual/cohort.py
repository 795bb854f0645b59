"""A virtual study: DICOM series of invented patients, and masks of their tissues with full truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vesalius.core.grid import Grid
from vesalius.core.progress import Progress, Silent
from vesalius.formats.nifti import write_nifti
from vesalius.virtual.anatomy import Anatomy, Floats, average_brain
from vesalius.virtual.dicom_mr import SeriesLabel, write_series
from vesalius.virtual.head import draw_head
from vesalius.virtual.patient import Patient, invent_patient
from vesalius.virtual.scanner import Scanner, acquire, draw_scanner

T1 = SeriesLabel(3, "T1 MPRAGE")
SCOUT = SeriesLabel(1, "Localizer", ("M", "LOCALIZER"))


@dataclass(frozen=True)
class VirtualCohort:
    """Where a virtual study lies.

    Args:
        scans: `patient_01/T1/*.dcm` and so on; the first patient also has a localiser, and the last
            patient's series lacks slices, as when a transfer broke off.
        masks: `patient_01/T1.nii.gz` and so on, on the grid of the series of the same name.
        new_scans: one further patient without a mask.
        new_truth: that patient's mask, for whoever wants to look.
    """

    scans: Path
    masks: Path
    new_scans: Path
    new_truth: Path


@dataclass(frozen=True)
class VirtualScan:
    """One acquisition: who, how, the signal (i, j, k) and the truth (i, j, k)."""

    patient: Patient
    scanner: Scanner
    signal: Floats
    truth: npt.NDArray[np.uint8]


def virtual_scan(anatomy: Anatomy, seed: int, index: int) -> VirtualScan:
    """The T1 of virtual patient `index` of the study with this seed; the same two give the same scan."""
    rng = np.random.default_rng((seed, index))
    head, scanner = draw_head(rng), draw_scanner(rng)
    patient = invent_patient(rng, index, head.age)
    signal, truth = acquire(head, scanner, anatomy)
    return VirtualScan(patient, scanner, signal, truth)


def _write_scout(folder: Path, scan: VirtualScan) -> None:
    """Three thick slices from the middle of the head, the kind of series that role rules leave out."""
    grid, middle = scan.scanner.grid, scan.scanner.grid.shape[2] // 2
    chosen = [middle - 10, middle, middle + 10]
    affine = np.array(grid.affine)
    affine[:3, 3] = grid.to_patient((0, 0, chosen[0]))
    affine[:3, 2] *= 10
    scout = Grid((grid.shape[0], grid.shape[1], len(chosen)), affine)
    write_series(folder, scan.signal[:, :, chosen], scout, scan.patient, SCOUT)


def _write_mask(path: Path, scan: VirtualScan) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, scan.truth, scan.scanner.grid)


def write_virtual_cohort(
    to: Path, *, patients: int = 24, seed: int = 0, damaged: bool = True, progress: Progress | None = None
) -> VirtualCohort:
    """Grow a virtual study and write it below `to`.

    Args:
        to: folder; made if missing.
        patients: usable patients, each with one T1 and one mask.
        seed: draws everything.
        damaged: add one further patient whose series lacks slices.
        progress: told how far it is.

    Raises:
        MissingExtra: nilearn, which ships the brain maps, is not installed.
    """
    progress = progress or Silent()
    anatomy = average_brain()
    places = VirtualCohort(to / "scans", to / "masks", to / "new_scans", to / "new_truth")
    for index in progress.track(range(1, patients + 1), "virtual patients", total=patients):
        scan, name = virtual_scan(anatomy, seed, index), f"patient_{index:02d}"
        write_series(places.scans / name / "T1", scan.signal, scan.scanner.grid, scan.patient, T1)
        _write_mask(places.masks / name / "T1.nii.gz", scan)
        if index == 1:
            _write_scout(places.scans / name / "localizer", scan)
    if damaged:
        scan, name = virtual_scan(anatomy, seed, patients + 1), f"patient_{patients + 1:02d}"
        gap = tuple(range(20, 26))
        write_series(places.scans / name / "T1", scan.signal, scan.scanner.grid, scan.patient, T1, leave_out=gap)
    scan, name = virtual_scan(anatomy, seed, patients + 2), "new_patient"
    write_series(places.new_scans / name / "T1", scan.signal, scan.scanner.grid, scan.patient, T1)
    _write_mask(places.new_truth / name / "T1.nii.gz", scan)
    return places
