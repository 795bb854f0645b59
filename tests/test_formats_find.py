"""Finding scans: mixed and damaged folders, archives, DICOMDIR, and names."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.fileset import FileSet

import dicom_maker as make
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.formats import archive as archive_module
from vesalius.formats.archive import unpack
from vesalius.formats.find import find_scans
from vesalius.formats.scan import Refused, Scan

VOLUME = np.arange(6 * 5 * 4).reshape(6, 5, 4).astype("int16")
REAL = Path(__file__).parents[2] / "shared" / "data"


def _study(folder: Path) -> None:
    make.write(folder / "p1" / "ct", make.volume_slices(VOLUME))
    (folder / "nifti").mkdir()
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), folder / "nifti" / "a.nii.gz")
    Image.fromarray(np.zeros((4, 6), "uint8")).save(folder / "b.png")


def test_a_mixed_folder_streams_files_first_and_then_series(tmp_path: Path) -> None:
    _study(tmp_path)
    (tmp_path / "notes.txt").write_text("about")
    (tmp_path / "Thumbs.db").write_bytes(b"xx")
    (tmp_path / ".hidden.nii").write_bytes(b"xx")
    assert [scan.name for scan in find_scans(tmp_path)] == ["b.png", "nifti/a.nii.gz", "p1/ct"]
    assert [scan.name for scan in find_scans(tmp_path / "p1" / "ct")] == ["ct"]
    assert [scan.name for scan in find_scans(tmp_path / "p1" / "ct" / "001.dcm")] == ["001.dcm"]
    assert [scan.name for scan in find_scans(tmp_path / "nifti" / "a.nii.gz")] == ["a.nii.gz"]
    assert [s.name for s in find_scans(tmp_path, name_filter=lambda name: name.endswith("png"))] == ["b.png"]
    seen: list[int] = []
    list(find_scans(tmp_path, on_file=lambda: seen.append(1)))
    assert len(seen) == 9
    with pytest.raises(UsageError):
        list(find_scans(tmp_path / "nothing"))


def test_what_the_user_names_is_meant_even_if_hidden(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), tmp_path / ".new.nii.gz")
    (scan,) = find_scans(tmp_path / ".new.nii.gz")
    assert isinstance(scan, Scan)
    (tmp_path / "notes.txt").write_text("about")
    (refused,) = find_scans(tmp_path / "notes.txt")
    assert isinstance(refused, Refused)


def test_every_strange_thing_is_refused_with_its_reason_and_nothing_stops(tmp_path: Path) -> None:
    _study(tmp_path)
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "folder.dcm").mkdir()
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "words.dcm").write_text("this is no image at all, only words " * 9)
    (tmp_path / "words.png").write_text("words")
    (tmp_path / "program.exe").write_bytes(b"MZ" + bytes(600))
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    os.mkfifo(tmp_path / "pipe.dcm")
    found = list(find_scans(tmp_path))
    refused = {entry.name: entry for entry in found if isinstance(entry, Refused)}
    assert set(refused) == {"empty.dcm", "words.dcm", "words.png", "program.exe", "gone.dcm", "self", "pipe.dcm"}
    assert all(entry.reason and entry.remedy for entry in refused.values())
    assert "empty" in refused["empty.dcm"].reason and "known here" in refused["program.exe"].reason
    assert len([entry for entry in found if isinstance(entry, Scan)]) == 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    _study(tmp_path)
    (tmp_path / "nifti").chmod(0)
    (tmp_path / "b.png").chmod(0)
    try:
        reasons = [entry.reason for entry in find_scans(tmp_path) if isinstance(entry, Refused)]
    finally:
        (tmp_path / "nifti").chmod(0o700)
    assert len(reasons) == 2 and all("may not be read" in reason for reason in reasons)


def _zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder).as_posix())


def test_an_archive_is_read_while_its_scans_live_and_leaves_nothing(tmp_path: Path) -> None:
    _study(tmp_path / "in")
    _zip(tmp_path / "study.zip", tmp_path / "in")
    found = list(find_scans(tmp_path / "study.zip"))
    assert [scan.name for scan in found] == ["study.zip/b.png", "study.zip/nifti/a.nii.gz", "study.zip/p1/ct"]
    assert [scan.pixels.read().shape for scan in found] == [(1, 6, 4, 1), (1, 6, 5, 4), (1, 6, 5, 4)]
    unpacked = found[0].files[0].parent
    assert unpacked.exists() and oct(unpacked.stat().st_mode)[-3:] == "700"
    del found
    assert not unpacked.exists()


def test_hostile_and_damaged_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_LARGE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "slip.zip", "w") as archive:
        for name in ("../out.nii", "/abs.nii", "a/../../out.nii", "C:\\x.nii", "..\\out.nii"):
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("link.nii")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    (refused,) = find_scans(tmp_path / "slip.zip")
    assert isinstance(refused, Refused) and "6 files" in refused.reason
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.nii", "w") as file,
    ):
        for _ in range(20):
            file.write(bytes(1 << 20))
    with pytest.raises(UnusableInput, match="absurd"):
        unpack(tmp_path / "bomb.zip")
    _study(tmp_path / "in")
    _zip(tmp_path / "whole.zip", tmp_path / "in")
    data = (tmp_path / "whole.zip").read_bytes()
    for number, damaged in enumerate(
        (data[:-30], data[: len(data) // 2], b"", b"PK\x03\x04", data[:60] + b"\xff" * 99 + data[159:])
    ):
        (tmp_path / f"{number}.zip").write_bytes(damaged)
        assert any(isinstance(entry, Refused) for entry in find_scans(tmp_path / f"{number}.zip"))
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "whole.zip", "inner.zip")
    (refused,) = find_scans(tmp_path / "outer.zip")
    assert refused.name == "outer.zip/inner.zip" and "within" in refused.reason


def test_a_dicomdir_gives_what_it_lists_and_says_what_is_lost(tmp_path: Path) -> None:
    files = FileSet()
    for dataset in make.volume_slices(VOLUME, StudyID="1"):
        files.add(dataset)
    files.write(tmp_path / "disc")
    make.write(tmp_path / "disc" / "other", make.volume_slices(VOLUME + 1, SeriesInstanceUID="1.2.3"))
    (scan,) = find_scans(tmp_path / "disc" / "DICOMDIR")
    assert np.array_equal(scan.pixels.read()[0], VOLUME)
    assert len(list(find_scans(tmp_path / "disc"))) == 2
    scan.files[0].unlink()
    reasons = [entry.reason for entry in find_scans(tmp_path / "disc" / "DICOMDIR") if isinstance(entry, Refused)]
    assert reasons == ["1 of the 4 files that it lists are not there."]
    (tmp_path / "DICOMDIR").write_bytes(b"rubbish")
    (refused,) = find_scans(tmp_path / "DICOMDIR")
    assert isinstance(refused, Refused)


def test_names_stay_unique_when_series_share_a_number(tmp_path: Path) -> None:
    for number in range(3):
        make.write(tmp_path / "s", make.volume_slices(VOLUME + number, SeriesInstanceUID=f"1.2.{number}"),
                   [f"{number}{k}" for k in range(4)])  # fmt: skip
    names = [scan.name for scan in find_scans(tmp_path)]
    assert len(set(names)) == 3 and all(name.startswith("s#1") for name in names)


@pytest.mark.skipif(not (REAL / "dicom").exists(), reason="the real files are not here")
def test_every_real_file_gives_a_scan_that_reads_or_a_reason() -> None:
    read = 0
    for found in find_scans(REAL / "dicom" / "pydicom" / "test_files"):
        if isinstance(found, Refused):
            assert found.reason and found.remedy
            continue
        with contextlib.suppress(UnusableInput):
            assert found.pixels.read().shape == (found.channels, *found.grid.shape)
            read += 1
    assert read >= 25
