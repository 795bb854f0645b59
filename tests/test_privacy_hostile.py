"""Damaged, absurd and hostile files: nothing hangs, nothing escapes, memory stays bounded, and the rest comes in."""

import io
import os
import resource
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataelem import DataElement

from test_privacy_door import CANARY, dicom, holds
from vesalius.core.errors import UnusableInput
from vesalius.formats.dicom_elements import NotPlain, layout_of
from vesalius.privacy.copying import FileCopier
from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.objects import SeriesCleaner
from vesalius.privacy.profile import PixelMode, Profile
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.store.cohort import open_cohort, quarantine

MEMORY, SECONDS = 3 << 30, 100
ITEM, ITEM_END, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
UNDEFINED = b"\xff\xff\xff\xff"


def whole(name="CT_small.dcm") -> bytes:
    return Path(get_testdata_file(name, download=False)).read_bytes()


def with_element(raw: bytes, element: bytes) -> bytes:
    """The CT with an element put before its pixel data."""
    place = raw.index(b"\xe0\x7f\x10\x00OW")
    return raw[:place] + element + raw[place:]


def nested(depth: int, *, closed: bool) -> bytes:
    head = b"\x40\x00\x30\xa7SQ\0\0" + UNDEFINED + ITEM + UNDEFINED
    return head * depth + (ITEM_END + END) * depth * closed


def deflated_bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = b"\0" * (1 << 20)
    body = b"".join(packer.compress(zeros) for _ in range(600)) + packer.flush()
    syntax = b"1.2.840.10008.1.2.1.99"
    meta = b"\x02\0\x10\0UI" + struct.pack("<H", len(syntax)) + syntax
    return b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\4\0" + struct.pack("<L", len(meta)) + meta + body


def picture_bomb() -> bytes:
    """A PNG of 60000 x 60000 in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    head = struct.pack(">LLBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * (1 << 22), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("../escaped.dcm", "/escaped.dcm", "..\\escaped.dcm", "C:\\escaped.dcm", "a/../../escaped.dcm"):
            packed.writestr(name, whole())
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(path.with_name("bomb.zip"), "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(4):
            packed.writestr(f"{number}.dcm", b"\0" * (200 << 20))


def directory(folder: Path) -> None:
    """A DICOMDIR that lists files outside of its medium."""
    ds = dcmread(get_testdata_file("DICOMDIR", download=False))
    images = [one for one in ds.DirectoryRecordSequence if one.DirectoryRecordType == "IMAGE"]
    wanted = (["..", "..", "etc", "passwd"], ["/etc/passwd"], ["..\\secret"], ["C:", "secret"])
    for record, parts in zip(images, wanted, strict=False):
        record._dict[0x00041500] = DataElement(0x00041500, "CS", parts, validation_mode=0)
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(folder / "DICOMDIR")


def hostile(folder: Path) -> None:
    folder.mkdir()
    dicom(folder / "good" / "a.dcm")
    raw = whole()
    pixels = raw.index(b"\xe0\x7f\x10\x00OW")
    absurd = {
        "deep_open.dcm": with_element(raw, nested(3000, closed=False)),
        "deep_closed.dcm": with_element(raw, nested(3000, closed=True)),
        "deeper.dcm": with_element(raw, nested(200_000, closed=True)),
        "giant_text.dcm": with_element(raw, b"\x10\x20\x10\x20UT\0\0\xfe\xff\xff\xff" + CANARY.encode()),
        "giant_pixels.dcm": raw[: pixels + 8] + b"\xfe\xff\xff\x7f" + raw[pixels + 12 :],
        "no_end.dcm": with_element(raw, b"\x40\x00\x30\xa7SQ\0\0" + UNDEFINED),
        "no_end_pixels.dcm": raw[: pixels + 8] + UNDEFINED + raw[pixels + 12 :],
        "long_item.dcm": with_element(raw, b"\x40\x00\x30\xa7SQ\0\0\x10\0\0\0" + ITEM + b"\xff\0\0\0" + b"\0" * 8),
        "many_elements.dcm": raw + b"\0" * (200 << 20),
        "cut.dcm": raw[:700],
        "cut_in_meta.dcm": raw[:150],
        "empty.dcm": b"",
        "zeros.dcm": b"\0" * 5000,
        "deflated.dcm": deflated_bomb(),
        "bomb.png": picture_bomb(),
        "no\nnewline\x1b[31m.dcm": raw[:600],
        "half.tif": b"II*\0\xff\xff\xff\x7f",
    }  # fmt: skip
    for name, data in absurd.items():
        (folder / name).write_bytes(data)
    tiff = io.BytesIO()
    Image.new("L", (50, 40)).save(tiff, format="TIFF")
    (folder / "wide.tif").write_bytes(tiff.getvalue().replace(struct.pack("<L", 50), struct.pack("<L", 2**31 - 1), 1))
    archive(folder / "names.zip")
    directory(folder / "medium")
    os.mkfifo(folder / "pipe.dcm")
    (folder / "null.dcm").symlink_to("/dev/zero")
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.dcm").symlink_to(folder / "nothing")


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def run(*arguments: str, home: Path, limits: Callable[[], None] | None = limited) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vesalius", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, preexec_fn=limits, check=False,
        env={**os.environ, "XDG_DATA_HOME": str(home), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_a_hostile_folder_stops_nothing_and_nothing_escapes(tmp_path):
    hostile(tmp_path / "in")
    before = {path for path in tmp_path.rglob("*") if "in" not in path.relative_to(tmp_path).parts}
    done = run(
        "ingest", str(tmp_path / "in"), "--into", str(tmp_path / "study"), "--pixels", "keep", home=tmp_path / "d"
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "\x1b" not in done.stderr and CANARY not in done.stdout + done.stderr
    cohort = open_cohort(tmp_path / "study")
    assert CANARY.lower() not in str(cohort).lower() and holds(tmp_path / "study") == []
    assert len(quarantine(tmp_path / "study")) >= 15
    assert any(image.modality == "CT" for case in cohort.cases for image in case.images)
    outside = {path for path in tmp_path.rglob("*") if path.relative_to(tmp_path).parts[0] not in ("in", "study", "d")}
    assert outside == before and not list(tmp_path.parent.glob("escaped*"))
    assert not [path for path in (tmp_path / "study").rglob("*") if path.is_symlink() or path.name.startswith(".new-")]


def test_a_medium_that_points_outside_gives_nothing_from_there(tmp_path):
    directory(tmp_path / "medium")
    done = run("ingest", str(tmp_path / "medium" / "DICOMDIR"), "--into", str(tmp_path / "study"), home=tmp_path / "d")
    assert done.returncode == 2 and "root:" not in done.stdout + done.stderr


def attempt(file: Path, target: Path) -> bool:
    """Whether the file was cleaned; it may be refused, but not crash."""
    header = HeaderCleaner(Pseudonyms(b"k" * 32), "P1", "MRN7788123", Profile(pixels=PixelMode.KEEP))
    try:
        SeriesCleaner(header).write([file], [target])
    except (UnusableInput, OSError):
        return False
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_are_cleaned_or_refused(tmp_path, data):
    raw = bytearray(whole(data.draw(st.sampled_from(["CT_small.dcm", "MR_small_implicit.dcm", "test-SR.dcm"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(132, min(len(raw) - 9, 6000)))
        new = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"SQ\0\0", b"\xfe\xff\xff\xff", ITEM, END, b"UN"]))
        raw[place : place + len(new)] = new
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(140, len(raw))) :]
    file = tmp_path / "a.dcm"
    file.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attempt(file, tmp_path / "b.dcm")


@pytest.mark.parametrize("place", [*range(132, 160), *range(336, 372, 4)])
def test_mutated_lengths_and_tags_are_cleaned_or_refused(tmp_path, place):
    """At 137 pydicom raises an error of its own that is no ValueError."""
    raw = bytearray(whole())
    raw[place : place + 4] = UNDEFINED
    (tmp_path / "a.dcm").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attempt(tmp_path / "a.dcm", tmp_path / "b.dcm")


def test_both_ways_of_cleaning_give_the_same(tmp_path):
    """What is copied element by element equals what pydicom reads, cleans and writes."""
    same = 0
    shipped = Path(get_testdata_file("CT_small.dcm", download=False)).parent
    for name in sorted(shipped.glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = HeaderCleaner(Pseudonyms(b"k" * 32), "P1", "1CT1", Profile(pixels=PixelMode.KEEP))
            try:
                FileCopier(header).copy(name).write(tmp_path / "a.dcm")
            except (NotPlain, UnusableInput):
                continue
            header = HeaderCleaner(Pseudonyms(b"k" * 32), "P1", "1CT1", Profile(pixels=PixelMode.KEEP))
            ds = dcmread(name)
            SeriesCleaner(header).clean(ds, {})
            ds.save_as(tmp_path / "b.dcm", enforce_file_format=True)
            first, second = dcmread(tmp_path / "a.dcm"), dcmread(tmp_path / "b.dcm")
            assert first == second, name
            same += 1
    assert same > 20


def test_a_layout_is_taken_only_to_the_letter():
    raw = whole()
    assert layout_of(raw, len(raw), header=False).elements[-1].stop == len(raw)
    for broken in (raw[:131], raw[:-3], raw.replace(b"LO", b"ZZ"), raw[:128] + b"DICT" + raw[132:]):
        with pytest.raises(NotPlain):
            layout_of(broken, len(broken), header=False)


def test_a_number_holds_nothing_but_numbers(tmp_path):
    """A value of numbers with a name in it, as a broken exporter or a joker writes it."""
    raw = with_element(whole(), b"")
    place = raw.index(b"\x28\x00\x30\x00")
    word = CANARY.encode().ljust(64)
    (tmp_path / "a.dcm").write_bytes(
        raw[:place] + b"\x28\x00\x20\x01US" + struct.pack("<H", len(word)) + word + raw[place:]
    )
    for order in ("a.dcm",):
        attempt(tmp_path / order, tmp_path / "b.dcm")
        assert CANARY.encode() not in (tmp_path / "b.dcm").read_bytes()
    assert np.array_equal(dcmread(tmp_path / "b.dcm").pixel_array, dcmread(io.BytesIO(whole())).pixel_array)
