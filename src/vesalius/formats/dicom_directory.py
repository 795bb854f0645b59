"""DICOMDIR: the list of files on a DICOM medium (PS3.3 annex F, PS3.10)."""

from __future__ import annotations

from pathlib import Path

from vesalius.core.errors import UnusableInput
from vesalius.formats.dicom_header import lenient
from vesalius.formats.dicom_values import text, value


def is_directory(path: Path) -> bool:
    """Whether a file is a DICOMDIR by its name (which the standard fixes)."""
    return path.name.upper().split(".")[0] == "DICOMDIR"


def listed_files(path: Path) -> list[Path]:
    """The image files that a DICOMDIR lists, whether or not they are there, in its order.

    Names that point out of the medium are left out.

    Raises:
        UnusableInput: damaged, or not a DICOMDIR.
    """
    from pydicom import dcmread

    with lenient():
        try:
            records = value(dcmread(path, force=True), "DirectoryRecordSequence")
        except Exception as error:  # pydicom raises nearly anything on damaged files
            raise UnusableInput("This DICOMDIR is damaged.", remedy="Give its folder instead.") from error
        if records is None:
            raise UnusableInput("This is not a DICOMDIR.", remedy="Give the folder instead.")
        files = []
        for record in records:
            if text(record, "DirectoryRecordType") != "IMAGE":
                continue
            parts = text(record, "ReferencedFileID").split("\\")
            if parts == [""] or ".." in parts or any("/" in part for part in parts):
                continue
            files.append(_as_stored(path.parent, parts))
    return files


def _as_stored(folder: Path, parts: list[str]) -> Path:
    """The file, also where the medium was copied with names in lower case."""
    file = folder.joinpath(*parts)
    lower = folder.joinpath(*(part.lower() for part in parts))
    return lower if not file.exists() and lower.exists() else file
