"""Find every scan in files, folders and archives, as a stream.

Memory does not grow with the number of files: it holds the names in one folder, the identity of each folder
on the way (against loops of links), and one series' headers (`dicom_files.py`). An archive needs the disk
space of its unpacked size while scans from it are in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vesalius.core.errors import UnusableInput, UsageError
from vesalius.formats import archive, medmnist, nifti, raster, volumes
from vesalius.formats.dicom import is_slice, scans_of_file, scans_of_series
from vesalius.formats.dicom_directory import is_directory, listed_files
from vesalius.formats.dicom_files import Series, SeriesIndex
from vesalius.formats.dicom_header import NotAnImage, looks_like_dicom, read_header
from vesalius.formats.scan import Refused, Scan

# What lies beside scans and is none: passed over without a word.
_COMPANIONS = (
    ".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".rst", ".html", ".htm", ".toml", ".yaml", ".yml", ".log",
    ".bval", ".bvec", ".sha256", ".md5", ".ini", ".inf", ".lnk", ".pdf", ".xlsx", ".xls", ".docx", ".py", ".sh",
    ".bat", ".css", ".js", ".ico", ".db", ".sqlite", ".toc", ".idx",
)  # fmt: skip
_COMPANION_NAMES = ("license", "licence", "readme", "changes", "dataset_description", "version", "lockfile")
_PIXEL_PARTS = {
    ".img": (".hdr",),
    ".img.gz": (".hdr.gz",),
    ".raw": (".mhd", ".nhdr"),
    ".raw.gz": (".nhdr",),
    ".zraw": (".mhd",),
}

NameFilter = Callable[[str], bool]


@dataclass
class _Search:
    """One argument of the command: where names begin, what keeps its files alive, and what it has named."""

    root: Path
    prefix: str
    keep: object = None
    name_filter: NameFilter | None = None
    on_file: Callable[[], None] | None = None
    index: SeriesIndex = field(default_factory=SeriesIndex)
    used: set[str] = field(default_factory=set)

    def name(self, path: Path) -> str:
        """The path below the argument; the root's own name for the root itself."""
        below = path.relative_to(self.root).as_posix()
        if below == ".":
            return self.prefix.rstrip("/") or self.root.name or "."
        return self.prefix + below


def find_scans(
    source: Path,
    *,
    name_filter: NameFilter | None = None,
    on_file: Callable[[], None] | None = None,
) -> Iterator[Scan | Refused]:
    """Everything under a file, folder, zip archive or DICOMDIR that is, or should have been, an image.

    Plain files and files with many frames come as they are met; series of slices come after all folders were
    walked, because their slices may lie anywhere.

    Args:
        source: what the user named.
        name_filter: looks at the name of each file; False passes over it.
        on_file: called for each file that was looked at, for progress.

    Raises:
        UsageError: the source does not exist.
    """
    source = Path(source)
    if not os.path.lexists(source):
        raise UsageError("There is no such file or folder.", remedy="Check the path.", file=source)
    if source.is_dir():
        search = _Search(source, "", None, name_filter, on_file)
        yield from _search(search, _walk(source, search))
        return
    search = _Search(source.parent, "", None, name_filter, on_file)
    if is_directory(source):
        yield from _listed(source, search)
    else:
        yield from _search(search, iter([source]), single=True)


def _search(search: _Search, paths: Iterator[Path | Refused], *, single: bool = False) -> Iterator[Scan | Refused]:
    try:
        for path in paths:
            if isinstance(path, Refused):
                yield path
                continue
            name = search.name(path)
            if search.name_filter is not None and not search.name_filter(name):
                continue
            if single or not _is_companion(path):  # what the user named is always meant
                yield from _file(path, name, search)
            if search.on_file is not None:
                search.on_file()
        for series in search.index.series():
            name = search.name(Path(series.headers[0].path)) if single else _series_name(series, search)
            yield from scans_of_series(series, name, search.keep)
    finally:
        search.index.close()


def _series_name(series: Series, search: _Search) -> str:
    """The series' folder, with `#` and its number where the folder holds several series."""
    name = search.name(series.folder)
    if not series.alone:
        name = f"{name}#{series.headers[0].number}"
    unique, attempt = name, 1
    while unique in search.used:
        attempt += 1
        unique = f"{name}-{attempt}" if "#" in name else f"{name}#{attempt}"
    search.used.add(unique)
    return unique


def _walk(folder: Path, search: _Search) -> Iterator[Path | Refused]:
    """Files below a folder, sorted by name within each; links are followed once."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            identity = current.stat()
            if (identity.st_dev, identity.st_ino) in seen:
                continue
            seen.add((identity.st_dev, identity.st_ino))
            with os.scandir(current) as entries:
                listing = sorted((entry.name, _is_folder(entry)) for entry in entries)
        except OSError:
            name = search.name(current)
            yield Refused(name, (current,), "This folder may not be read.", "Give yourself permission.")
            continue
        for name, is_folder in listing:
            if not is_folder:
                yield current / name
        waiting += [current / name for name, is_folder in reversed(listing) if is_folder and name[0] != "."]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file(path: Path, name: str, search: _Search) -> Iterator[Scan | Refused]:
    try:
        if not path.is_file():
            broken = "A link to nowhere." if path.is_symlink() else "Neither a file nor a folder."
            raise UnusableInput(broken, remedy="Remove it, or restore what it stood for.")
        with path.open("rb") as file:
            start = file.read(512)
        if not start:
            raise UnusableInput("The file is empty.", remedy="Copy or export it again from its source.")
        yield from _by_content(path, name, start, search)
    except NotAnImage as error:
        yield error.companion(name, path)
    except UnusableInput as error:
        yield Refused.because(name, (path,), error)
    except PermissionError:
        yield Refused(name, (path,), "It may not be read.", "Give yourself permission to read it.")
    except OSError as error:
        yield Refused(name, (path,), f"It cannot be read ({error.strerror}).", "Check the disk, then try again.")


def _by_content(path: Path, name: str, start: bytes, search: _Search) -> Iterator[Scan | Refused]:
    lower = path.name.lower()
    if lower.endswith(nifti.SUFFIXES):
        yield from nifti.read_nifti(path, name, search.keep)
    elif lower.endswith(volumes.SUFFIXES):
        yield from volumes.read_volume(path, name, search.keep)
    elif lower.endswith(medmnist.SUFFIX):
        yield from medmnist.read_npz(path, name, search.keep)
    elif lower.endswith(".zip"):
        if search.keep is not None:
            raise UnusableInput("An archive within an archive.", remedy="Unpack the outer one by hand.")
        yield from _archive(path, name, search)
    elif looks_like_dicom(path) or lower.endswith((".dcm", ".dicom", ".ima")):
        header = read_header(path)
        if header is not None and is_slice(header):
            search.index.add(header)
        elif header is not None:
            yield from scans_of_file(header, name, search.keep)
    elif raster.looks_like_raster(start):
        yield from raster.read_raster(path, name, search.keep)
    elif lower.endswith(raster.SUFFIXES):
        raise UnusableInput("It is not the image that its name says.", remedy="Export it again from its source.")
    else:
        raise UnusableInput(
            "It is not an image of a kind that is known here.",
            remedy="Convert it to DICOM, NIfTI, NRRD, MHA, PNG or TIFF, or leave it out.",
        )


def _archive(path: Path, name: str, search: _Search) -> Iterator[Scan | Refused]:
    folder, left_out = archive.unpack(path)
    if left_out:
        yield Refused(
            name, (path,), f"{left_out} files of the archive have unsafe names and were not unpacked.",
            "Pack it again with plain relative names.",
        )  # fmt: skip
    inner = _Search(folder.path, f"{name}/", folder, search.name_filter, search.on_file)
    yield from _search(inner, _walk(folder.path, inner))


def _listed(directory: Path, search: _Search) -> Iterator[Scan | Refused]:
    """Only the files that a DICOMDIR lists, in its order."""
    try:
        files = listed_files(directory)
    except UnusableInput as error:
        yield Refused.because(directory.name, (directory,), error)
        return
    lost = [file for file in files if not file.is_file()]
    if lost:
        yield Refused(
            directory.name, (directory,), f"{len(lost)} of the {len(files)} files that it lists are not there.",
            "Copy the whole medium again.",
        )  # fmt: skip
    yield from _search(search, iter([file for file in files if file.is_file()]))


def _is_companion(path: Path) -> bool:
    lower = path.name.lower()
    if lower.startswith(".") or lower.endswith(_COMPANIONS) or lower.split(".")[0] in _COMPANION_NAMES:
        return True
    for suffix, heads in _PIXEL_PARTS.items():
        if lower.endswith(suffix):
            base = path.name[: -len(suffix)]
            return any(path.with_name(base + head).exists() for head in heads)
    return False
