"""Text in pixels: found in any frame, hidden where it stands, and no other pixel changed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid

from vesalius.privacy.burned import TextFinder
from vesalius.privacy.codestream import strip_pixel_data, strip_stream
from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.objects import SeriesCleaner
from vesalius.privacy.profile import PixelMode, Profile
from vesalius.privacy.pseudonyms import Pseudonyms

PSEUDONYMS = Pseudonyms(b"k" * 32)
SIZE = 192


def letters(word: str, shape, at=(4, 6), size=14) -> np.ndarray:
    page = Image.new("L", shape[::-1])
    ImageDraw.Draw(page).text(at[::-1], word, fill=255, font=ImageFont.load_default(size))
    return np.asarray(page) > 127


def anatomy(slices: int, seed: int = 0) -> np.ndarray:
    """Smooth bright bodies that change slowly from slice to slice, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    frames = []
    for k in range(slices):
        body = 700.0 * (((x - 96) / 70) ** 2 + ((y - 96) / (60 + k / 4)) ** 2 < 1)
        core = 500.0 * (((x - 80 - k / 3) / 15) ** 2 + ((y - 100) / 22) ** 2 < 1)
        frames.append(body + core + rng.normal(0, 12, body.shape))
    return np.clip(np.array(frames), 0, 1500).astype(np.uint16)


def write_series(folder: Path, frames: np.ndarray) -> list[Path]:
    folder.mkdir()
    series, paths = generate_uid(), []
    for k, frame in enumerate(frames):
        ds = dcmread(get_testdata_file("MR_small.dcm"))
        ds.PatientName, ds.PatientID = "Vandermolen^Harriet", "MRN778812"
        ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.InstanceNumber = generate_uid(), series, k + 1
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.Rows, ds.Columns = frame.shape
        ds.PixelData = frame.tobytes()
        paths.append(folder / f"{k}.dcm")
        ds.save_as(paths[-1])
    return paths


def cleaned(paths: list[Path], folder: Path, mode=PixelMode.CLEAN) -> list[Path]:
    folder.mkdir()
    targets = [folder / path.name for path in paths]
    header = HeaderCleaner(PSEUDONYMS, "P1", "MRN778812", Profile(pixels=mode))
    SeriesCleaner(header).write(paths, targets)
    return targets


@pytest.mark.parametrize("bright", [1.0, 0.6])
def test_one_marked_slice_among_many_is_found_and_few_are_read(bright):
    frames = anatomy(40)
    frames[23][letters("VANDERMOLEN", frames[0].shape, (150, 30))] = int(frames.max() * bright)
    finder = TextFinder(lambda text: "ANDERM" in text.upper(), frozenset({(0, 0), (20, 0), (39, 0)}))
    for k, frame in enumerate(frames):
        finder.look((k, 0), frame)
    assert set(finder.boxes()) == {(23, 0)}
    assert finder.read <= 12


def test_a_name_on_all_slices_is_hidden_on_all_and_a_marker_stays(tmp_path):
    frames = anatomy(6)
    name, marker = letters("VANDERMOLEN", frames[0].shape), letters("AX 3", frames[0].shape, (170, 150))
    frames[:, name | marker] = 1500
    targets = cleaned(write_series(tmp_path / "in", frames), tmp_path / "out")
    for before, target in zip(frames, targets, strict=True):
        ds = dcmread(target)
        after = ds.pixel_array
        rows, columns = np.nonzero(name)
        inside = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert np.ptp(after[inside]) == 0
        far = np.ones(after.shape, bool)
        far[: rows.max() + 12, : columns.max() + 12] = False
        assert np.array_equal(after[far], before[far])
        assert ds.BurnedInAnnotation == "NO"


def test_strict_hides_any_text_and_keep_touches_nothing(tmp_path):
    frames = anatomy(1)
    marker = letters("SUPINE", frames[0].shape)
    frames[:, marker] = 1500
    paths = write_series(tmp_path / "in", frames)
    for mode, same in ((PixelMode.STRICT, False), (PixelMode.CLEAN, True), (PixelMode.KEEP, True)):
        (target,) = cleaned(paths, tmp_path / mode.value, mode)
        assert np.array_equal(dcmread(target).pixel_array, frames[0]) is same
        assert target.read_bytes().find(b"Vandermolen") < 0


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=["rle", "jpegls", "j2k"])
def test_compressed_stays_compressed_and_changes_only_where_text_stood(tmp_path, syntax):
    frames = anatomy(1)
    name = letters("VANDERMOLEN", frames[0].shape)
    frames[:, name] = 1500
    (path,) = write_series(tmp_path / "in", frames)
    ds = dcmread(path)
    plugin = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}[syntax]
    ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    ds.save_as(path)
    (target,) = cleaned([path], tmp_path / "out")
    after = dcmread(target)
    assert after.file_meta.TransferSyntaxUID == syntax
    assert np.ptp(after.pixel_array[name]) == 0
    assert np.array_equal(after.pixel_array[60:], frames[0][60:])


def test_comments_in_streams_go_and_pixels_stay():
    for name in ("693_J2KI.dcm", "examples_jpeg2k.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        ds = dcmread(get_testdata_file(name, download=False))
        before = ds.pixel_array
        strip_pixel_data(ds)
        assert np.array_equal(ds.pixel_array, before), name


def test_a_comment_and_what_follows_the_end_of_a_jpeg_are_cut():
    stream = b"\xff\xd8\xff\xfe\x00\x08WILSON\xff\xda\x00\x04ab\x01\xff\x00\x02\xff\xd9WILSON"
    assert strip_stream(stream) == b"\xff\xd8\xff\xda\x00\x04ab\x01\xff\x00\x02\xff\xd9"


def test_bytes_after_the_last_pixel_go():
    ds = dcmread(get_testdata_file("CT_small.dcm"))
    before = ds.pixel_array
    ds.PixelData = ds.PixelData + b"WILSON"
    assert strip_pixel_data(ds) and b"WILSON" not in ds.PixelData
    assert np.array_equal(ds.pixel_array, before)
