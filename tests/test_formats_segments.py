"""Masks in and out: DICOM SEG, RTSTRUCT, and plain files of whole numbers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

import dicom_maker as make
from vesalius.core.cohort import Label
from vesalius.core.errors import GeometryError, UnusableInput
from vesalius.core.finding import Code
from vesalius.core.grid import Grid
from vesalius.formats.dicom_seg import masks_on, read_seg, write_seg
from vesalius.formats.find import find_scans
from vesalius.formats.labels import is_dicom, read_label
from vesalius.formats.rtstruct import rasterise, read_rtstruct
from vesalius.formats.scan import Scan
from vesalius.formats.segments import read_segments

LABELS = (Label(1, "anterior"), Label(4, "hippocampus", Code("5366008", "SCT", "Hippocampus")))


def _scan(folder: Path, shape: tuple[int, int, int] = (12, 10, 6), **geometry: object) -> Scan:
    volume = np.random.default_rng(0).integers(0, 900, shape).astype("int16")
    make.write(folder, make.volume_slices(volume, sop_class=make.MR, modality="MR", **geometry))
    (scan,) = find_scans(folder)
    assert isinstance(scan, Scan)
    return scan


def _map(shape: tuple[int, ...]) -> np.ndarray:
    array = np.zeros(shape, "uint8")
    array[2:6, 3:7, 1:4] = 1
    array[6:9, 3:7, 2:5] = 4
    return array


@pytest.mark.parametrize(
    "geometry",
    [{}, {"row": (0, 1, 0), "column": (0, 0, -1)}, {"step": (0, 0.4, 2.0)}, {"step": (0, 0, -2.0)}],
)
def test_a_written_seg_comes_back_on_the_same_grid(tmp_path: Path, geometry: dict) -> None:
    scan = _scan(tmp_path / "s", **geometry)
    truth = _map(scan.grid.shape)
    write_seg(tmp_path / "out.seg.dcm", truth, LABELS, scan, model_name="hippocampus", version="0.1")
    dataset = pydicom.dcmread(tmp_path / "out.seg.dcm")
    assert dataset.PatientID == "P1" and dataset.StudyInstanceUID == scan.study
    assert dataset.ImageType[0] == "DERIVED" and "research use only" in dataset.SeriesDescription
    assert "Research use only" in dataset.ContentDescription
    kinds = [item.SegmentedPropertyTypeCodeSequence[0] for item in dataset.SegmentSequence]
    assert [kind.CodeValue for kind in kinds] == ["L1", "5366008"]
    seg = read_seg(tmp_path / "out.seg.dcm")
    assert seg.series == (scan.series,) and [part.name for part in seg.segments] == ["anterior", "hippocampus"]
    sources = {pydicom.dcmread(file).SOPInstanceUID for file in scan.files}
    assert seg.instances and seg.instances <= sources
    masks = masks_on(seg, scan.grid)
    assert np.array_equal(masks[1], truth == 1) and np.array_equal(masks[2], truth == 4)
    assert seg.segments[1].code == Code("5366008", "SCT", "Hippocampus") and seg.segments[0].code is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.seg.dcm", "s"]


def test_highdicom_reads_it_as_the_same_volume(tmp_path: Path) -> None:
    import highdicom

    scan = _scan(tmp_path / "s")
    truth = _map(scan.grid.shape)
    write_seg(tmp_path / "o.dcm", truth, LABELS, scan, model_name="m", version="1")
    seg = highdicom.seg.segread(tmp_path / "o.dcm")
    volume = seg.get_volume(combine_segments=True)
    for k, j, i in zip(*np.nonzero(volume.array), strict=True):
        place = volume.map_indices_to_reference(np.array([[k, j, i]]))[0]
        index = tuple(np.rint(scan.grid.to_index(place)).astype(int))
        assert truth[index] == {1: 1, 2: 4}[int(volume.array[k, j, i])]
    assert np.count_nonzero(volume.array) == np.count_nonzero(truth)


def test_seg_of_enhanced_plane_and_empty_maps(tmp_path: Path) -> None:
    volume = np.arange(6 * 5 * 4).reshape(6, 5, 4).astype("int16")
    make.write(tmp_path / "e", [make.enhanced_mr([volume, volume], [5.0, 80.0])], ["e.dcm"])
    scan = list(find_scans(tmp_path / "e"))[1]
    truth = np.zeros(scan.grid.shape, "uint8")
    truth[1:3, 1:4, 2] = 4
    write_seg(tmp_path / "e.seg.dcm", truth, LABELS, scan, model_name="m", version="1")
    masks = masks_on(read_seg(tmp_path / "e.seg.dcm"), scan.grid)
    assert np.array_equal(masks[2], truth == 4) and not masks[1].any()
    dataset = pydicom.dcmread(tmp_path / "e.seg.dcm")
    group = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert group.ReferencedFrameNumber == 7
    picture = make.image(np.zeros((5, 6), "uint8"), make.MG, "MG", ImagerPixelSpacing=[0.1, 0.1])
    make.write(tmp_path / "p", [picture])
    (plane,) = find_scans(tmp_path / "p")
    write_seg(tmp_path / "p.seg.dcm", truth[:, :, 2:3], LABELS, plane, model_name="m", version="1")
    assert np.array_equal(masks_on(read_seg(tmp_path / "p.seg.dcm"), plane.grid)[2], truth[:, :, 2:3] == 4)
    empty = np.zeros(scan.grid.shape, "uint8")
    write_seg(tmp_path / "n.seg.dcm", empty, LABELS, scan, model_name="m", version="1")
    assert not any(mask.any() for mask in masks_on(read_seg(tmp_path / "n.seg.dcm"), scan.grid).values())


def test_a_film_cannot_be_referenced(tmp_path: Path) -> None:
    make.write(tmp_path / "f", [make.image(np.zeros((3, 4, 5), "uint8"), make.US_MULTI, "US")])
    (scan,) = find_scans(tmp_path / "f")
    with pytest.raises(UnusableInput, match="film"):
        write_seg(tmp_path / "o.dcm", np.zeros((5, 4, 3), "uint8"), LABELS, scan, model_name="m", version="1")


def test_a_seg_is_never_moved_onto_another_grid(tmp_path: Path) -> None:
    scan = _scan(tmp_path / "s")
    write_seg(tmp_path / "o.dcm", _map(scan.grid.shape), LABELS, scan, model_name="m", version="1")
    seg = read_seg(tmp_path / "o.dcm")
    shifted = np.array(scan.grid.affine)
    shifted[0, 3] += 0.3
    with pytest.raises(GeometryError, match="pixel on pixel"):
        masks_on(seg, Grid(scan.grid.shape, shifted))
    with pytest.raises(GeometryError, match="pixels, the image"):
        masks_on(seg, Grid((12, 11, 6), scan.grid.affine))
    (tmp_path / "o.dcm").write_bytes((tmp_path / "o.dcm").read_bytes()[:-20])
    with pytest.raises(UnusableInput):
        masks_on(seg, scan.grid)
    with pytest.raises(UnusableInput, match="no DICOM SEG"):
        read_seg(scan.files[0])


def _rtstruct(path: Path, contours: list[np.ndarray]) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.SOPInstanceUID = "1.2.3.4"
    roi, drawn, empty = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName = 5, "Liver"
    empty.ROINumber, empty.ROIName = 6, "Nothing"
    dataset.StructureSetROISequence = [roi, empty]
    drawn.ReferencedROINumber = 5
    drawn.ContourSequence = []
    for points in contours:
        item, reference = Dataset(), Dataset()
        item.ContourGeometricType = "CLOSED_PLANAR"
        item.NumberOfContourPoints = len(points)
        item.ContourData = [f"{value:.4f}" for value in points.ravel()]
        reference.ReferencedSOPInstanceUID = "1.2.3.9"
        item.ContourImageSequence = [reference]
        drawn.ContourSequence.append(item)
    dataset.ROIContourSequence = [drawn]
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = "1.2.3.8"
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = "1.2.3.7", [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.save_as(path, enforce_file_format=False)


def _polygon(grid: Grid, corners: list[tuple[float, float]], k: float) -> np.ndarray:
    return grid.to_patient([(i, j, k) for i, j in corners])


def test_outlines_fill_the_area_that_they_enclose_and_holes_stay_open(tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    grid = Grid.from_parts((200, 180, 4), spacing=(0.5, 0.8, 3), origin=(5, 6, 7), directions=turn)
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = [(100 + 80 * np.cos(a), 90 + 50 * np.sin(a)) for a in angles]
    hole = [(89.5, 79.5), (110.5, 79.5), (110.5, 100.5), (89.5, 100.5)]
    _rtstruct(tmp_path / "r.dcm", [_polygon(grid, circle, 1), _polygon(grid, hole, 1), _polygon(grid, hole, 2)])
    structures = read_rtstruct(tmp_path / "r.dcm")
    assert structures.series == ("1.2.3.8",) and structures.instances == {"1.2.3.9"}
    assert structures.frame_of_reference == "1.2.3.7" and structures.left_out == ("Nothing",)
    (liver,) = structures.structures
    mask = rasterise(liver.contours, grid)
    assert liver.name == "Liver" and mask[:, :, 2].sum() == 21 * 21
    assert abs(mask[:, :, 1].sum() - (np.pi * 80 * 50 - 441)) < 0.005 * np.pi * 80 * 50
    assert not mask[:, :, (0, 3)].any() and not mask[100, 90, 1] and mask[30, 90, 1]


def test_an_outline_off_the_slices_is_refused() -> None:
    grid = Grid.from_parts((20, 20, 4))
    square = [(2.0, 2.0), (8.0, 2.0), (8.0, 8.0), (2.0, 8.0)]
    for k in (1.5, -1.0, 4.0):
        with pytest.raises(GeometryError):
            rasterise([_polygon(grid, square, k)], grid)
    outside = rasterise([_polygon(grid, [(-5, -5), (30, -5), (30, 30), (-5, 30)], 0)], grid)
    assert outside[:, :, 0].all()


def test_seg_and_rtstruct_have_one_face(tmp_path: Path) -> None:
    scan = _scan(tmp_path / "s")
    truth = _map(scan.grid.shape)
    write_seg(tmp_path / "o.dcm", truth, LABELS, scan, model_name="m", version="1")
    segments = read_segments(tmp_path / "o.dcm")
    assert is_dicom(tmp_path / "o.dcm") and segments.names == ["anterior", "hippocampus"]
    array = segments.label_map(scan.grid, {7: "Hippocampus", 2: "anterior"})
    assert np.array_equal(array, np.choose(truth, [0, 2, 0, 0, 7]))
    square = [(2.0, 2.0), (8.0, 2.0), (8.0, 8.0), (2.0, 8.0)]
    _rtstruct(tmp_path / "r.dcm", [_polygon(scan.grid, square, 1)])
    assert read_segments(tmp_path / "r.dcm").label_map(scan.grid, {3: "liver"}).sum() == 3 * 36
    with pytest.raises(UnusableInput, match="no segmentation"):
        read_segments(scan.files[0])


def test_masks_are_whole_numbers_or_say_which_are_not(tmp_path: Path) -> None:
    data = np.zeros((4, 5, 6), "float32")
    data[1, 1, 1] = 3
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "m.nii.gz")
    array, grid = read_label(tmp_path / "m.nii.gz")
    assert array.dtype == np.uint8 and array.sum() == 3 and grid.shape == (4, 5, 6)
    data[2, 2, 2] = 0.25
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "m.nii.gz")
    with pytest.raises(UnusableInput, match=r"0\.25"):
        read_label(tmp_path / "m.nii.gz")
    palette = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], "uint8"), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "p.png")
    assert read_label(tmp_path / "p.png")[0][:, :, 0].tolist() == [[0, 2], [1, 1], [2, 0]]
    Image.new("RGB", (4, 4)).save(tmp_path / "c.png")
    with pytest.raises(UnusableInput, match="3 channels"):
        read_label(tmp_path / "c.png")
    (tmp_path / "x.txt").write_text("no mask")
    with pytest.raises(UnusableInput, match="not a mask"):
        read_label(tmp_path / "x.txt")
