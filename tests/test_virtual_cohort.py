"""The virtual cohort: anatomy that looks like heads, DICOM that stands the same place as its mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from vesalius.core.grid import Grid
from vesalius.formats.nifti import read_nifti
from vesalius.virtual.anatomy import FLUID, GREY, WHITE, Anatomy, average_brain
from vesalius.virtual.cohort import VirtualCohort, virtual_scan, write_virtual_cohort
from vesalius.virtual.head import draw_head, sample_head
from vesalius.virtual.scanner import draw_scanner


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return average_brain()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> VirtualCohort:
    return write_virtual_cohort(tmp_path_factory.mktemp("virtual"), patients=2, seed=5)


def test_tissue_shares_sum_to_one_inside_the_brain(anatomy: Anatomy) -> None:
    total = anatomy.tissues.sum(axis=0)
    inside = anatomy.distance == 0
    assert np.allclose(total[inside], 1.0, atol=1e-5)
    assert not total[~inside].any()


def test_average_brain_has_the_volumes_of_a_brain(anatomy: Anatomy) -> None:
    grey, white, fluid = anatomy.tissues.sum(axis=(1, 2, 3)) / 1000  # 1 mm voxels, so ml
    assert 700 < grey < 1300
    assert 400 < white < 800
    assert 80 < fluid < 500


def test_truth_and_signal_agree_about_contrast(anatomy: Anatomy) -> None:
    for index in range(3):
        scan = virtual_scan(anatomy, 1, index)
        white, grey, fluid = (np.median(scan.signal[scan.truth == value]) for value in (WHITE, GREY, FLUID))
        assert white > 1.15 * grey > 1.15 * 1.2 * fluid


def test_brains_differ_in_size_and_age_shows_in_the_fluid(anatomy: Anatomy) -> None:
    rng = np.random.default_rng(3)
    scanner, head = draw_scanner(rng), draw_head(rng)
    young = sample_head(type(head)(**{**vars(head), "age": 25.0}), anatomy, scanner.grid)
    old = sample_head(type(head)(**{**vars(head), "age": 80.0}), anatomy, scanner.grid)
    assert old.tissues[2].sum() > 1.3 * young.tissues[2].sum()
    assert np.allclose(old.tissues.sum(axis=0), young.tissues.sum(axis=0), atol=1e-4)


def test_the_same_seed_gives_the_same_scan(anatomy: Anatomy) -> None:
    first, second, other = (virtual_scan(anatomy, seed, 4) for seed in (7, 7, 8))
    assert np.array_equal(first.signal, second.signal)
    assert first.patient == second.patient
    assert first.patient != other.patient


def test_left_is_left(anatomy: Anatomy) -> None:
    """The grid's x runs to the patient's left: the template's shares at +x are those of its left half."""
    x = anatomy.grid.to_patient(np.array([[0, 0, 0], [anatomy.grid.shape[0] - 1, 0, 0]]))[:, 0]
    assert x.min() < -60
    assert x.max() > 60


def _grid_of(folder: Path) -> tuple[Grid, np.ndarray]:
    """The series' grid and signal straight from the headers, by DICOM PS3.3 C.7.6.2.1.1."""
    slices = sorted((pydicom.dcmread(path) for path in folder.glob("*.dcm")), key=lambda s: s.InstanceNumber)
    first, last = (np.array(s.ImagePositionPatient, dtype=float) for s in (slices[0], slices[-1]))
    orientation = np.array(slices[0].ImageOrientationPatient, dtype=float)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * float(slices[0].PixelSpacing[1])
    affine[:3, 1] = orientation[3:] * float(slices[0].PixelSpacing[0])
    affine[:3, 2] = (last - first) / (len(slices) - 1)
    affine[:3, 3] = first
    signal = np.stack([s.pixel_array.T * float(s.RescaleSlope) for s in slices], axis=-1)
    return Grid(signal.shape, affine), signal


def test_mask_lies_on_the_grid_of_its_series(written: VirtualCohort) -> None:
    folders = sorted(written.masks.glob("*/*.nii.gz"))
    assert [str(path.relative_to(written.masks)) for path in folders] == [
        "patient_01/T1.nii.gz", "patient_02/T1.nii.gz",
    ]  # fmt: skip
    for path in folders:
        grid, signal = _grid_of(written.scans / path.parent.name / "T1")
        mask = read_nifti(path)[0]
        array = mask.pixels.read()[0]
        assert grid.matches(mask.grid, tolerance_mm=0.01)
        assert np.median(signal[array == WHITE]) > np.median(signal[array == GREY])


def test_headers_hold_invented_identifiers_that_do_not_repeat(written: VirtualCohort) -> None:
    headers = [
        pydicom.dcmread(next(folder.glob("T1/*.dcm")), stop_before_pixels=True) for folder in written.scans.iterdir()
    ]
    assert len({str(header.PatientID) for header in headers}) == len(headers) == 3
    assert len({str(header.PatientName) for header in headers}) == len(headers)
    for header in headers:
        assert header.PatientBirthDate < header.StudyDate
        assert "Invented" in header.InstitutionName


def test_damaged_series_has_a_gap_and_the_scout_is_named(written: VirtualCohort) -> None:
    broken = sorted(written.scans.glob("patient_03/T1/*.dcm"))
    numbers = [int(path.stem[2:]) for path in broken]
    assert max(np.diff(numbers)) > 2
    scout = pydicom.dcmread(next(written.scans.glob("patient_01/localizer/*.dcm")))
    assert scout.SeriesDescription == "Localizer"
    assert "LOCALIZER" in scout.ImageType
