"""DICOM: geometry from positions, several volumes in one series, values and colours, damage."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

import dicom_maker as make
from vesalius.core.errors import UnusableInput
from vesalius.formats.find import find_scans
from vesalius.formats.scan import Refused, Scan

VOLUME = np.arange(6 * 5 * 4).reshape(6, 5, 4).astype("int16")


def _one(folder: Path) -> Scan:
    (found,) = find_scans(folder)
    assert isinstance(found, Scan), found
    return found


def _refused(folder: Path, words: str) -> Refused:
    (found,) = find_scans(folder)
    assert isinstance(found, Refused), found
    assert words in found.reason, found.reason
    assert found.remedy and "P1" not in found.reason + found.remedy
    return found


def test_slices_are_sorted_by_position_whatever_their_names_and_numbers(tmp_path: Path) -> None:
    slices = make.volume_slices(VOLUME, RescaleSlope=1, RescaleIntercept=-1024)
    random.Random(0).shuffle(slices)
    for number, dataset in enumerate(slices):
        dataset.InstanceNumber = number
    make.write(tmp_path / "a" / "series", slices)
    scan = _one(tmp_path)
    assert (scan.name, scan.source, scan.patient, scan.modality) == ("a/series", "dicom", "P1", "CT")
    assert scan.grid.spacing == (0.5, 0.7, 2.0) and scan.grid.orientation == "LPS"
    assert np.allclose(scan.grid.origin, (-10, -20, 30))
    assert len(scan.files) == 4 and scan.grid.frame_of_reference
    values = scan.pixels.read()
    assert values.dtype == np.int16 and np.array_equal(values[0], VOLUME - 1024)


def test_the_grid_agrees_with_simpleitk_for_an_oblique_stack(tmp_path: Path) -> None:
    import SimpleITK as sitk

    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    make.write(tmp_path, make.volume_slices(VOLUME, row=turn[:, 0], column=turn[:, 1]))
    scan = _one(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in scan.files])
    image = reader.Execute()
    for index in ((0, 0, 0), (5, 4, 3), (2, 0, 1)):
        assert np.allclose(scan.grid.to_patient(index), image.TransformIndexToPhysicalPoint(index), atol=1e-3)
        assert scan.pixels.read()[(0, *index)] == image[index]


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    slices = make.volume_slices(np.repeat(VOLUME, 3, axis=2))
    make.write(tmp_path, slices[:5] + slices[6:])
    assert "between slices 5 and 6 of 11" in _refused(tmp_path, "1 slice is missing").reason


def test_a_doubled_slice_is_named(tmp_path: Path) -> None:
    slices = make.volume_slices(VOLUME)
    make.write(tmp_path, slices)
    make.write(tmp_path, [slices[2]], ["copy.dcm"])
    _refused(tmp_path, "lie where another one does")


def test_a_series_copied_into_a_second_folder_is_read_from_each(tmp_path: Path) -> None:
    slices = make.volume_slices(VOLUME)
    make.write(tmp_path / "a", slices)
    make.write(tmp_path / "b", slices)
    found = list(find_scans(tmp_path))
    assert [type(scan) for scan in found] == [Scan, Scan] and len({scan.name for scan in found}) == 2


def test_a_series_spread_over_folders_is_one_volume(tmp_path: Path) -> None:
    slices = make.volume_slices(VOLUME)
    make.write(tmp_path / "x" / "1", slices[::2])
    make.write(tmp_path / "x" / "2", slices[1::2])
    scan = _one(tmp_path)
    assert scan.name == "x" and np.array_equal(scan.pixels.read()[0], VOLUME)


def test_uneven_gaps_slices_out_of_line_and_lost_positions_are_refused(tmp_path: Path) -> None:
    slices = make.volume_slices(VOLUME)
    slices[2].ImagePositionPatient = [-10, -20, 34.7]
    make.write(tmp_path / "uneven", slices)
    _refused(tmp_path / "uneven", "unevenly spaced")
    slices = make.volume_slices(VOLUME)
    slices[1].ImagePositionPatient = [-7, -20, 32]
    make.write(tmp_path / "line", slices)
    _refused(tmp_path / "line", "do not lie in a line")
    slices = make.volume_slices(VOLUME)
    del slices[1].ImagePositionPatient
    make.write(tmp_path / "lost", slices)
    _refused(tmp_path / "lost", "state no position")
    slices = make.volume_slices(VOLUME)
    for dataset in slices:
        del dataset.PixelSpacing
    make.write(tmp_path / "spacing", slices)
    _refused(tmp_path / "spacing", "pixel spacing")
    slices = make.volume_slices(VOLUME, row=(1, 0, 0), column=(1, 0, 0), step=(0, 0, 1))
    make.write(tmp_path / "skew", slices)
    _refused(tmp_path / "skew", "right angles")


def test_rounded_positions_are_still_even(tmp_path: Path) -> None:
    slices = make.volume_slices(np.repeat(VOLUME, 6, axis=2), step=(0, 0, 0.98333))
    for dataset in slices:
        dataset.ImagePositionPatient = [round(float(x), 1) for x in dataset.ImagePositionPatient]
    make.write(tmp_path, slices)
    assert abs(_one(tmp_path).grid.spacing[2] - 0.983) < 0.01


def test_gantry_tilt_gives_a_sheared_grid_that_puts_every_slice_where_it_was(tmp_path: Path) -> None:
    step = (0.0, 0.5, 2.0)
    make.write(tmp_path, make.volume_slices(VOLUME, step=step))
    scan = _one(tmp_path)
    assert 13 < scan.attributes["ShearDegrees"] < 15
    assert np.allclose(scan.grid.to_patient((0, 0, 3)), np.array((-10, -20, 30)) + 3 * np.array(step))
    assert np.isclose(scan.grid.voxel_ml, 0.5 * 0.7 * 2.0 / 1000)
    make.write(tmp_path / "steep", make.volume_slices(VOLUME, step=(0, 9, 2), SeriesInstanceUID="1.2.3"))
    assert any("shifted" in found.reason for found in find_scans(tmp_path) if isinstance(found, Refused))


@pytest.mark.parametrize(
    ("trait", "worth"),
    [
        ("EchoTime", (4.9, 90.0)), ("EchoNumbers", (1, 2)), ("DiffusionBValue", (0.0, 1000.0)),
        ("TemporalPositionIdentifier", (1, 2)), ("AcquisitionNumber", (1, 2)), ("TriggerTime", (10.0, 50.0)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
    ],
)  # fmt: skip
def test_several_volumes_of_one_series_are_told_apart(tmp_path: Path, trait: str, worth: tuple) -> None:
    slices = []
    for number, value in enumerate(worth):
        slices += make.volume_slices(VOLUME + 500 * number, sop_class=make.MR, modality="MR", **{trait: value})
    random.Random(1).shuffle(slices)
    make.write(tmp_path / "s", slices)
    found = list(find_scans(tmp_path))
    assert [scan.name for scan in found] == ["s#1", "s#2"]
    assert all(np.array_equal(scan.pixels.read()[0], VOLUME + 500 * n) for n, scan in enumerate(found))
    assert all(trait in scan.attributes["Volume"] for scan in found)


def test_an_incomplete_volume_does_not_spoil_the_other(tmp_path: Path) -> None:
    first = make.volume_slices(VOLUME, DiffusionBValue=0.0)
    second = make.volume_slices(VOLUME, DiffusionBValue=1000.0)
    make.write(tmp_path / "s", first + second[:1] + second[2:])
    found = list(find_scans(tmp_path))
    assert [type(entry) for entry in found] == [Scan, Refused] and "missing" in found[1].reason


def test_diffusion_directions_and_cine_phases(tmp_path: Path) -> None:
    slices = make.volume_slices(VOLUME, DiffusionBValue=0.0)
    for direction in ([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]):
        slices += make.volume_slices(VOLUME, DiffusionBValue=1000.0, DiffusionGradientOrientation=direction)
    make.write(tmp_path / "dwi", slices)
    assert len(list(find_scans(tmp_path / "dwi"))) == 4
    slices = []
    for phase in range(5):
        part = make.volume_slices(VOLUME + phase)
        for k, dataset in enumerate(part):
            dataset.TriggerTime = 100.0 * phase + k  # differs from slice to slice
        slices += part
    make.write(tmp_path / "cine", slices)
    found = list(find_scans(tmp_path / "cine"))
    assert len(found) == 5
    assert all(np.array_equal(scan.pixels.read()[0], VOLUME + n) for n, scan in enumerate(found))


def test_a_localiser_of_three_orientations_and_mixed_sizes_are_kept_apart(tmp_path: Path) -> None:
    slices = make.volume_slices(VOLUME[:, :, :1])
    slices += make.volume_slices(VOLUME[:, :, :1], row=(0, 1, 0), column=(0, 0, -1))
    slices += make.volume_slices(VOLUME[:, :, :1], row=(1, 0, 0), column=(0, 0, -1))
    slices += make.volume_slices(VOLUME[:3])
    make.write(tmp_path / "loc", slices)
    found = list(find_scans(tmp_path))
    assert sorted(scan.grid.shape for scan in found) == [(3, 5, 4), (6, 5, 1), (6, 5, 1), (6, 5, 1)]


def test_two_patients_in_one_series_are_refused(tmp_path: Path) -> None:
    slices = make.volume_slices(VOLUME)
    slices[3].PatientID = "P2"
    make.write(tmp_path, slices)
    _refused(tmp_path, "2 different patients")


def test_mixed_series_of_one_folder_are_told_apart_by_number(tmp_path: Path) -> None:
    one = make.volume_slices(VOLUME, SeriesInstanceUID="1.2.3.1", SeriesNumber=4)
    two = make.volume_slices(VOLUME + 9, SeriesInstanceUID="1.2.3.2", SeriesNumber=7)
    make.write(tmp_path / "study", [piece for pair in zip(one, two, strict=True) for piece in pair])
    assert [scan.name for scan in find_scans(tmp_path)] == ["study#4", "study#7"]


def test_patient_falls_back_to_name_and_birth_date(tmp_path: Path) -> None:
    make.write(tmp_path, make.volume_slices(VOLUME, PatientID=""))
    assert _one(tmp_path).patient == "Invented^Person|19500101"


def test_slopes_that_differ_by_slice_are_applied_by_slice(tmp_path: Path) -> None:
    slices = make.volume_slices(VOLUME, sop_class="1.2.840.10008.5.1.4.1.1.128", modality="PT")
    for k, dataset in enumerate(slices):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + k, 0
    make.write(tmp_path, slices)
    values = _one(tmp_path).pixels.read()
    assert values.dtype == np.float32 and np.allclose(values[0], VOLUME * (0.5 + np.arange(4)))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_slices_are_read_exactly(tmp_path: Path, syntax: str) -> None:
    volume = np.random.default_rng(0).integers(0, 4000, (64, 80, 3)).astype("uint16")
    slices = make.volume_slices(volume)
    for dataset in slices:
        dataset.compress(syntax, generate_instance_uid=False)
    make.write(tmp_path, slices)
    assert np.array_equal(_one(tmp_path).pixels.read()[0], volume)


def test_enhanced_multi_frame_with_two_echoes(tmp_path: Path) -> None:
    dataset = make.enhanced_mr([VOLUME, VOLUME + 300], [5.0, 80.0])
    make.write(tmp_path, [dataset], ["enhanced.dcm"])
    found = list(find_scans(tmp_path))
    assert [scan.name for scan in found] == ["enhanced.dcm#1", "enhanced.dcm#2"]
    assert [scan.attributes["EchoTime"] for scan in found] == [5.0, 80.0]
    assert found[0].grid.spacing == (0.5, 0.7, 2.0)
    assert np.array_equal(found[0].pixels.read()[0], VOLUME * 2)
    assert np.array_equal(found[1].pixels.read()[0], (VOLUME + 300) * 2 + 1)
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:-1]
    make.write(tmp_path, [dataset], ["enhanced.dcm"])
    _refused(tmp_path, "declares 8 frames and describes 7")


def test_projection_images(tmp_path: Path) -> None:
    picture = np.arange(20, dtype="uint16").reshape(4, 5)
    plain = make.image(picture, make.MG, "MG", ImagerPixelSpacing=[0.1, 0.2], ViewPosition="MLO",
                       ImageLaterality="L", BitsStored=12, HighBit=11)  # fmt: skip
    make.write(tmp_path / "plain", [plain])
    scan = _one(tmp_path / "plain")
    assert scan.grid.shape == (5, 4, 1) and not scan.grid.placed and scan.grid.spacing[:2] == (0.2, 0.1)
    assert scan.name == "001.dcm" and scan.attributes["ImageLaterality"] == "L"
    assert np.array_equal(scan.pixels.read()[0, :, :, 0], picture.T)
    plain.PhotometricInterpretation = "MONOCHROME1"
    make.write(tmp_path / "inverse", [plain])
    assert np.array_equal(_one(tmp_path / "inverse").pixels.read()[0, :, :, 0], 4095 - picture.T)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [20, 0, 8], [min(255, 10 * n) for n in range(20)]
    plain.PhotometricInterpretation = "MONOCHROME2"
    plain.VOILUTSequence = [table]
    for element in table:
        element.VR = "US" if element.keyword == "LUTDescriptor" else "OW"
    table.LUTData = np.array([min(255, 10 * n) for n in range(20)], "<u2").tobytes()
    make.write(tmp_path / "voi", [plain])
    assert np.array_equal(_one(tmp_path / "voi").pixels.read()[0, :, :, 0], picture.T * 10)


def test_contradictory_laterality_is_never_guessed(tmp_path: Path) -> None:
    picture = np.zeros((4, 4), "uint8")
    make.write(tmp_path, [make.image(picture, make.MG, "MG", ImageLaterality="L", Laterality="R")])
    _refused(tmp_path, "laterality")


def test_no_spacing_is_said(tmp_path: Path) -> None:
    make.write(tmp_path, [make.image(np.zeros((4, 4), "uint8"), make.CR, "CR")])
    assert _one(tmp_path).grid.unit == "pixel"


def test_colour_palette_and_cine(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (6, 4, 3)).astype("uint8")
    make.write(tmp_path / "rgb", [make.image(colour, make.SC, "OT")])
    scan = _one(tmp_path / "rgb")
    assert scan.channels == 3 and scan.attributes["SecondaryCapture"] == "yes"
    assert np.array_equal(scan.pixels.read()[..., 0], colour.transpose(2, 1, 0))
    palette = make.image(np.array([[0, 1], [2, 3]], "uint8"), make.SC, "OT", PhotometricInterpretation="PALETTE COLOR")
    for number, name in enumerate(("Red", "Green", "Blue")):
        setattr(palette, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        table = (np.arange(4) * 256 * 60 // (number + 1)).astype("<u2")
        setattr(palette, f"{name}PaletteColorLookupTableData", table.tobytes())
    make.write(tmp_path / "palette", [palette])
    assert np.array_equal(_one(tmp_path / "palette").pixels.read()[0, :, :, 0], [[0, 120], [60, 180]])
    film = np.arange(60, dtype="uint8").reshape(3, 4, 5)
    make.write(tmp_path / "film", [make.image(film, make.US_MULTI, "US")])
    scan = _one(tmp_path / "film")
    assert scan.grid.shape == (5, 4, 3) and not scan.grid.placed and scan.attributes["Film"] == "yes"
    assert np.array_equal(scan.pixels.read()[0], film.transpose(2, 1, 0))
    make.write(tmp_path / "mr", [make.image(film, make.MR, "MR")])
    _refused(tmp_path / "mr", "state no position")


def test_files_without_preamble_are_read(tmp_path: Path) -> None:
    for number, dataset in enumerate(make.volume_slices(VOLUME)):
        bare = Dataset(dataset)
        bare.save_as(tmp_path / f"{number}", implicit_vr=True, little_endian=True)
    assert np.array_equal(_one(tmp_path).pixels.read()[0], VOLUME)


def test_cut_off_slices_refuse_with_their_reason(tmp_path: Path) -> None:
    paths = make.write(tmp_path, make.volume_slices(VOLUME))
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-10])
    found = list(find_scans(tmp_path))
    assert any("cut off" in entry.reason for entry in found if isinstance(entry, Refused))
    assert not any(isinstance(entry, Scan) for entry in found)


def test_absurd_sizes_video_and_objects_without_pixels_are_refused(tmp_path: Path) -> None:
    dataset = make.image(np.zeros((4, 4), "uint8"), make.SC, "OT")
    dataset.Rows = dataset.Columns = 65535
    dataset.NumberOfFrames = 100000
    make.write(tmp_path / "huge", [dataset])
    _refused(tmp_path / "huge", "more than can be read")
    dataset = make.image(np.zeros((4, 4), "uint8"), make.SC, "OT")
    make.write(tmp_path / "video", [dataset])
    data = (tmp_path / "video" / "001.dcm").read_bytes()
    (tmp_path / "video" / "001.dcm").write_bytes(
        data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.100\0\0"[:20])
    )
    assert all(isinstance(found, Refused) for found in find_scans(tmp_path / "video"))
    report = Dataset(make.image(np.zeros((4, 4), "uint8"), make.SC, "SR"))
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(tmp_path / "sr.dcm", implicit_vr=False, little_endian=True)
    (found,) = find_scans(tmp_path / "sr.dcm")
    assert "structured report" in found.reason


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "color3d_jpeg_baseline.dcm",
                                  "SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm"])  # fmt: skip
def test_files_that_pydicom_ships_are_read(name: str) -> None:
    path = pydicom.data.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("not shipped")
    (scan,) = find_scans(Path(path))
    assert isinstance(scan, Scan) and scan.name == name
    assert scan.pixels.read().shape == (scan.channels, *scan.grid.shape)


@given(st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "fuzz"
    if not folder.exists():
        make.write(folder, make.volume_slices(VOLUME[:, :, :2]))
        packed = make.image(np.arange(64, dtype="uint8").reshape(8, 8), make.SC, "OT", SOPInstanceUID="1.2.9")
        packed.compress(RLELossless, generate_instance_uid=False)
        make.write(folder, [make.enhanced_mr([VOLUME[:, :, :2]], [5.0]), packed], ["e.dcm", "r.dcm"])
    name = data.draw(st.sampled_from(["001.dcm", "e.dcm", "r.dcm"]))
    raw = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    mutated = tmp_path / "mutated.dcm"
    mutated.write_bytes(bytes(raw[: data.draw(st.integers(1, len(raw)))]) if data.draw(st.booleans()) else bytes(raw))
    for found in find_scans(mutated):
        if isinstance(found, Scan):
            with contextlib.suppress(UnusableInput):
                assert found.pixels.read().shape == (found.channels, *found.grid.shape)
