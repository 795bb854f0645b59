"""NIfTI: geometry that contradicts itself is refused, what is written comes back, damage never crashes."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius.core.errors import GeometryError, UnusableInput
from vesalius.core.grid import Grid
from vesalius.formats.find import find_scans
from vesalius.formats.nifti import read_nifti, write_nifti
from vesalius.formats.scan import Refused, Scan


def _volume(*shape: int, dtype: str = "int16") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_ras_becomes_lps(tmp_path: Path) -> None:
    affine = np.array([[2.0, 0, 0, -5], [0, 3, 0, 7], [0, 0, 4, 11], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(_volume(3, 4, 5), affine), tmp_path / "a.nii.gz")
    (scan,) = read_nifti(tmp_path / "a.nii.gz")
    assert scan.name == "a.nii.gz" and scan.grid.orientation == "RAS" and scan.grid.placed
    assert np.allclose(scan.grid.origin, (5, -7, 11)) and scan.grid.spacing == (2, 3, 4)
    assert np.array_equal(scan.pixels.read()[0], _volume(3, 4, 5))


@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.tuples(*[st.floats(0.2, 5)] * 3),
    st.tuples(*[st.floats(-3, 3)] * 3),
    st.sampled_from(["uint8", "int16", "float32", "int32", "uint16"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_comes_back(tmp_path: Path, shape, spacing, angles, dtype) -> None:
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        part = np.eye(3)
        a, b = [index for index in range(3) if index != axis]
        part[a, a] = part[b, b] = c
        part[a, b], part[b, a] = -s, s
        turn = turn @ part
    grid = Grid.from_parts(shape, spacing=spacing, origin=(1, 2, 3), directions=turn)
    array = _volume(*shape, dtype=dtype)
    write_nifti(tmp_path / "x.nii.gz", array, grid)
    (scan,) = read_nifti(tmp_path / "x.nii.gz")
    assert scan.grid.matches(grid) and np.array_equal(scan.pixels.read()[0], array)
    reference = nib.load(tmp_path / "x.nii.gz")
    assert np.allclose(reference.affine, np.diag([-1, -1, 1, 1]) @ grid.affine, atol=1e-4)


def test_writing_is_repeatable_and_leaves_nothing_beside(tmp_path: Path) -> None:
    grid = Grid.from_parts((3, 4, 5))
    write_nifti(tmp_path / "a.nii.gz", _volume(3, 4, 5), grid)
    first = (tmp_path / "a.nii.gz").read_bytes()
    write_nifti(tmp_path / "a.nii.gz", _volume(3, 4, 5), grid)
    assert (tmp_path / "a.nii.gz").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_sheared_unplaced_boolean_and_wide_arrays_come_back(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[1, 2] = 0.3
    sheared = Grid((3, 4, 5), affine)
    write_nifti(tmp_path / "s.nii", _volume(3, 4, 5, dtype="int64"), sheared)
    (scan,) = read_nifti(tmp_path / "s.nii")
    assert scan.grid.matches(sheared) and scan.pixels.read().dtype.itemsize < 8
    loose = Grid.from_parts((3, 4, 5), spacing=(1, 2, 3), placed=False)
    write_nifti(tmp_path / "u.nii", np.ones((3, 4, 5), bool), loose)
    (scan,) = read_nifti(tmp_path / "u.nii")
    assert not scan.grid.placed and np.allclose(scan.grid.spacing, (1, 2, 3))
    write_nifti(tmp_path / "c.nii", _volume(3, 3, 4, 5, dtype="uint8"), sheared)
    (scan,) = read_nifti(tmp_path / "c.nii")
    assert scan.channels == 3 and np.array_equal(scan.pixels.read(), _volume(3, 3, 4, 5, dtype="uint8"))
    with pytest.raises(ValueError, match="does not lie"):
        write_nifti(tmp_path / "w.nii", _volume(2, 2, 2), sheared)


def test_conflicting_sform_and_qform_are_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_volume(4, 4, 4), np.eye(4))
    image.set_sform(np.eye(4), 1)
    image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(GeometryError, match="sform and qform") as error:
        read_nifti(tmp_path / "a.nii")
    assert error.value.remedy
    image.set_qform(np.eye(4) + np.diag([1e-5, 0, 0, 0]), 1)
    nib.save(image, tmp_path / "b.nii")
    assert read_nifti(tmp_path / "b.nii")[0].grid.placed


def test_only_qform_is_used_when_only_it_is_coded(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_volume(4, 4, 4), None)
    image.set_sform(np.diag([9.0, 9, 9, 1]), 0)
    image.set_qform(np.diag([2.0, 2, 2, 1]), 1)
    nib.save(image, tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii")[0].grid.spacing == (2, 2, 2)


def test_no_orientation_is_said_and_not_guessed(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_volume(4, 4, 4), None)
    image.header.set_zooms((1, 2, 3))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    grid = read_nifti(tmp_path / "a.nii")[0].grid
    assert not grid.placed and grid.spacing == (1, 2, 3)


def test_units_are_turned_into_millimetres(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_volume(4, 4, 4), np.diag([500.0, 500, 500, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii")
    assert np.allclose(read_nifti(tmp_path / "a.nii")[0].grid.spacing, 0.5)


@pytest.mark.parametrize(("slope", "intercept", "kind"), [(1, -1024, "int16"), (2, 0, "int16"), (0.5, 1, "float32")])
def test_scaling_is_applied_in_the_smallest_type(tmp_path: Path, slope, intercept, kind) -> None:
    image = nib.Nifti1Image(_volume(3, 3, 3), np.eye(4))
    image.header.set_slope_inter(slope, intercept)
    nib.save(image, tmp_path / "a.nii.gz")
    raw = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    raw[112:120] = np.array([slope, intercept], "<f4").tobytes()  # nibabel rescales on saving: set it again
    raw[352:] = _volume(3, 3, 3).tobytes(order="F")
    (tmp_path / "b.nii").write_bytes(bytes(raw))
    values = read_nifti(tmp_path / "b.nii")[0].pixels.read()
    assert values.dtype == kind and np.allclose(values[0], _volume(3, 3, 3) * slope + intercept)


def test_fourth_dimension_becomes_volumes_and_colour_channels(tmp_path: Path) -> None:
    data = _volume(3, 4, 5, 2)
    for suffix in (".nii", ".nii.gz"):
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"a{suffix}")
        scans = read_nifti(tmp_path / f"a{suffix}", f"sub/a{suffix}")
        assert [scan.name for scan in scans] == [f"sub/a{suffix}#1", f"sub/a{suffix}#2"]
        assert all(np.array_equal(scan.pixels.read()[0], data[..., n]) for n, scan in enumerate(scans))
    (tmp_path / "a.bval").write_text("0 1000\n")
    assert [scan.attributes["DiffusionBValue"] for scan in read_nifti(tmp_path / "a.nii")] == [0, 1000]
    nib.save(nib.Nifti1Image(_volume(3, 4, 5, 1), np.eye(4)), tmp_path / "one.nii")
    assert read_nifti(tmp_path / "one.nii")[0].pixels.read().shape == (1, 3, 4, 5)
    colour = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["G"] = 7
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "rgb.nii")
    (scan,) = read_nifti(tmp_path / "rgb.nii")
    assert scan.channels == 3 and (scan.pixels.read()[1] == 7).all()
    nib.save(nib.Nifti1Image(_volume(3, 4, 5, 1, 6), np.eye(4)), tmp_path / "five.nii")
    with pytest.raises(UnusableInput, match="dimensions"):
        read_nifti(tmp_path / "five.nii")


def test_pairs_analyze_and_plane_images(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(_volume(3, 4, 5), np.eye(4)), tmp_path / "p.img")
    found = list(find_scans(tmp_path))
    assert [scan.name for scan in found] == ["p.hdr"] and len(found[0].files) == 2
    assert np.array_equal(found[0].pixels.read()[0], _volume(3, 4, 5))
    nib.save(nib.Nifti1Image(_volume(3, 4), np.eye(4)), tmp_path / "plane.nii")
    assert read_nifti(tmp_path / "plane.nii")[0].pixels.read().shape == (1, 3, 4, 1)
    (tmp_path / "p.img").unlink()
    with pytest.raises(UnusableInput, match="missing"):
        read_nifti(tmp_path / "p.hdr")


def _good(tmp_path: Path, suffix: str = ".nii.gz") -> bytes:
    path = tmp_path / f"good{suffix}"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).integers(0, 999, (20, 20, 20), "i2"), np.eye(4)), path)
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("keep", [0, 1, 10, 100, 347, 353, 5000])
def test_cut_off_files_are_refused_when_found(tmp_path: Path, suffix: str, keep: int) -> None:
    (tmp_path / f"cut{suffix}").write_bytes(_good(tmp_path, suffix)[:keep])
    (refused,) = find_scans(tmp_path)
    assert isinstance(refused, Refused) and refused.reason and refused.remedy
    assert "cut" + suffix == refused.name and "good" not in refused.reason


def test_corrupt_gzip_is_found_out_at_the_latest_on_reading(tmp_path: Path) -> None:
    data = bytearray(_good(tmp_path))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "x.nii.gz").write_bytes(bytes(data))
    for found in find_scans(tmp_path):
        if isinstance(found, Scan):
            with pytest.raises(UnusableInput):
                found.pixels.read()


@pytest.mark.parametrize("shape", [(32767, 32767, 32767), (32767, 2, 2), (0, 3, 3), (-5, 3, 3)])
def test_absurd_declared_sizes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    raw = bytearray(gzip.decompress(_good(tmp_path)))
    raw[42:48] = np.array(shape, "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(bytes(raw))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    assert all(isinstance(found, Refused) for found in find_scans(tmp_path))


def test_complex_voxels_and_flat_affines_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.complex64), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(UnusableInput, match="type"):
        read_nifti(tmp_path / "a.nii")
    image = nib.Nifti1Image(_volume(3, 3, 3), None)
    image.set_sform(np.diag([1.0, 1, 0, 1]), 1)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "b.nii")
    with pytest.raises(GeometryError, match="flat"):
        read_nifti(tmp_path / "b.nii")


@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_headers_never_crash(tmp_path: Path, changes: list[tuple[int, int]], packed: bool) -> None:
    raw = bytearray(gzip.decompress(_good(tmp_path)))
    for place, byte in changes:
        raw[place] = byte
    path = tmp_path / ("m.nii.gz" if packed else "m.nii")
    path.write_bytes(gzip.compress(bytes(raw), 1) if packed else bytes(raw))
    for found in find_scans(path):
        if isinstance(found, Scan):
            with contextlib.suppress(UnusableInput):
                assert found.pixels.read().shape == (found.channels, *found.grid.shape)
