"""Plane images and NRRD / MetaImage volumes."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vesalius.core.errors import UnusableInput
from vesalius.formats.find import find_scans
from vesalius.formats.raster import read_raster, write_png
from vesalius.formats.scan import Refused, Scan
from vesalius.formats.volumes import read_volume

PICTURE = np.arange(24, dtype="uint8").reshape(4, 6)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm"])
def test_grey_images_are_turned_so_that_i_runs_right_and_j_down(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(PICTURE).save(tmp_path / f"a{suffix}")
    (scan,) = find_scans(tmp_path)
    assert scan.grid.shape == (6, 4, 1) and scan.grid.unit == "pixel" and not scan.grid.placed
    assert scan.channels == 1 and np.array_equal(scan.pixels.read()[0, :, :, 0], PICTURE.T)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_stay(tmp_path: Path, suffix: str) -> None:
    deep = PICTURE.astype("uint16") * 2500
    Image.fromarray(deep).save(tmp_path / f"a{suffix}")
    values = read_raster(tmp_path / f"a{suffix}")[0].pixels.read()
    assert values.dtype == np.uint16 and np.array_equal(values[0, :, :, 0], deep.T)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1", "CMYK", "L", "I;16"])
def test_every_mode_has_one_or_three_channels(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PICTURE.astype("uint16")) if mode == "I;16" else Image.fromarray(PICTURE).convert(mode)
    suffix = ".tif" if mode == "CMYK" else ".png"
    image.save(tmp_path / f"a{suffix}")
    (scan,) = read_raster(tmp_path / f"a{suffix}")
    assert scan.pixels.read().shape == (scan.channels, 6, 4, 1)
    assert scan.channels == (3 if mode in ("RGB", "RGBA", "P", "CMYK") else 1)


def test_jpeg_is_turned_upright_and_tiff_pages_are_told_apart(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg", exif=exif)
    (scan,) = read_raster(tmp_path / "a.jpg")
    assert scan.grid.shape == (4, 6, 1) and scan.pixels.read().shape == (1, 4, 6, 1)
    pages = [Image.fromarray(PICTURE + n) for n in range(3)]
    pages[0].save(tmp_path / "p.tiff", save_all=True, append_images=pages[1:])
    scans = read_raster(tmp_path / "p.tiff")
    assert [scan.name for scan in scans] == ["p.tiff#1", "p.tiff#2", "p.tiff#3"]
    assert np.array_equal(scans[2].pixels.read()[0, :, :, 0], PICTURE.T + 2)


def test_png_is_written_exactly(tmp_path: Path) -> None:
    for array in (PICTURE.T.astype("uint16") * 999, PICTURE.T[None, :, :, None], np.stack([PICTURE.T] * 3)[..., None]):
        write_png(tmp_path / "o.png", array)
        back = read_raster(tmp_path / "o.png")[0].pixels.read()
        assert back.dtype == array.dtype and np.array_equal(back.reshape(array.shape), array)
    with pytest.raises(ValueError, match="does not go"):
        write_png(tmp_path / "o.png", PICTURE.astype("float32"))


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_bombs_and_damage_are_refused(tmp_path: Path) -> None:
    for size in ((60000, 60000), (2**31 - 1, 1), (30000, 20000)):
        (tmp_path / "bomb.png").write_bytes(_png(*size))
        assert all(isinstance(found, Refused) for found in find_scans(tmp_path))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), "uint8")).save(tmp_path / "bomb.png")
    data = (tmp_path / "bomb.png").read_bytes()
    (tmp_path / "bomb.png").write_bytes(data[: len(data) // 2])
    for found in find_scans(tmp_path):
        if isinstance(found, Scan):
            with pytest.raises(UnusableInput):
                found.pixels.read()


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_pictures_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from([".png", ".tif", ".bmp", ".pgm", ".jpg"]))
    path = tmp_path / f"m{suffix}"
    Image.fromarray(PICTURE).save(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    for found in find_scans(path):
        if isinstance(found, Scan):
            with contextlib.suppress(UnusableInput):
                assert found.pixels.read().shape == (found.channels, *found.grid.shape)


def _image(pixel: int = sitk.sitkInt16) -> sitk.Image:
    image = sitk.Cast(sitk.GetImageFromArray(np.arange(120, dtype="int16").reshape(4, 5, 6)), pixel)
    image.SetSpacing((0.5, 0.7, 2.0))
    image.SetOrigin((-10, -20, 30))
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    return image


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd", ".nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_volumes_stand_where_simpleitk_puts_them(tmp_path: Path, suffix: str, packed: bool) -> None:
    image = _image()
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"), packed)
    (scan,) = find_scans(tmp_path)
    assert isinstance(scan, Scan) and scan.grid.placed and scan.grid.shape == (6, 5, 4)
    for index in ((0, 0, 0), (5, 4, 3), (1, 2, 3)):
        assert np.allclose(scan.grid.to_patient(index), image.TransformIndexToPhysicalPoint(index))
        assert scan.pixels.read()[(0, *index)] == image[index]


def test_colour_and_series_of_volumes(tmp_path: Path) -> None:
    colour = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), "uint8"), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "c.mha"))
    (scan,) = read_volume(tmp_path / "c.mha")
    assert scan.channels == 3 and scan.pixels.read().shape == (3, 6, 5, 4)
    vectors = np.arange(4 * 5 * 6 * 2, dtype="int16").reshape(4, 5, 6, 2)
    sitk.WriteImage(sitk.GetImageFromArray(vectors, isVector=True), str(tmp_path / "v.nrrd"))
    scans = read_volume(tmp_path / "v.nrrd")
    assert len(scans) == 2 and np.array_equal(scans[1].pixels.read()[0], vectors[..., 1].transpose(2, 1, 0))
    four = sitk.JoinSeries([_image(), _image() + 7])
    sitk.WriteImage(four, str(tmp_path / "f.mha"))
    scans = read_volume(tmp_path / "f.mha")
    assert len(scans) == 2 and (scans[1].pixels.read() - scans[0].pixels.read() == 7).all()


def test_nrrd_without_a_space_is_not_placed(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(
        b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nspacings: 1 2 3\nencoding: raw\n\n" + bytes(24)
    )
    (scan,) = read_volume(tmp_path / "a.nrrd")
    assert not scan.grid.placed and scan.grid.spacing == (1, 2, 3)


def test_damaged_headers_and_data_elsewhere_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(_image(), str(tmp_path / "a.mha"))
    data = (tmp_path / "a.mha").read_bytes()
    for damaged in (data[:-50], data[:60], b"words", data.replace(b"6 5 4", b"6 5 9999999")):
        (tmp_path / "a.mha").write_bytes(damaged)
        (found,) = find_scans(tmp_path)
        assert isinstance(found, Refused) and found.remedy
    (tmp_path / "a.mha").unlink()
    head = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = "
    for elsewhere in ("/etc/passwd", "../x.raw", "gone.raw", "LIST", "s%03d.raw 1 2 1"):
        (tmp_path / "e.mhd").write_text(head + elsewhere + "\n")
        (found,) = find_scans(tmp_path)
        assert isinstance(found, Refused), elsewhere
