"""DICOM series and files as scans.

A series of slices becomes one scan per volume in it; a file with many frames in the patient becomes one scan
per volume; a plane image (radiograph, mammogram, ultrasound, secondary capture) is a scan by itself, a film
of them a scan with the frames along k. Nothing is resampled, sorted by file name or guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vesalius.core.errors import GeometryError, UnusableInput
from vesalius.core.grid import Grid
from vesalius.formats.dicom_files import Series, SeriesIndex
from vesalius.formats.dicom_frames import Frame
from vesalius.formats.dicom_geometry import shear_degrees, stack
from vesalius.formats.dicom_header import Header, read_header
from vesalius.formats.dicom_pixels import DicomPixels, Source
from vesalius.formats.dicom_planes import plane_spacing
from vesalius.formats.dicom_split import Slice, check_one_patient, split
from vesalius.formats.dicom_values import Attributes
from vesalius.formats.scan import Attribute, Refused, Scan, check_size

_COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")


def read_dicom(path: Path, name: str | None = None) -> list[Scan | Refused]:
    """The images of one file, or of a folder that holds one or several series (not of folders below it).

    Raises:
        UnusableInput: the file is damaged or holds no image.
    """
    if path.is_dir():
        index = SeriesIndex()
        found: list[Scan | Refused] = []
        for file in sorted(entry for entry in path.iterdir() if entry.is_file()):
            header = read_header(file)
            if header is not None and is_slice(header):
                index.add(header)
            elif header is not None:
                found += scans_of_file(header, file.name)
        for series in index.series():
            found += scans_of_series(series, path.name)
        index.close()
        return found
    header = read_header(path)
    return [] if header is None else list(scans_of_file(header, name or path.name))


def is_slice(header: Header) -> bool:
    """Whether the file is one slice that waits for the others of its series."""
    return header.spatial and len(header.frames) == 1


def scans_of_series(series: Series, name: str, keep: object = None) -> Iterator[Scan | Refused]:
    """The volumes of a series of single slices, each under `name` and, where there are several, `.1`, `.2`."""
    copies = _one_copy(series.headers)
    for copy in copies:
        label = name if len(copies) == 1 else f"{name}/{Path(copy[0].path).parent.name}"
        yield from _volumes(copy, label, keep)


def scans_of_file(header: Header, name: str, keep: object = None) -> Iterator[Scan | Refused]:
    """The images of one file."""
    if header.spatial:
        yield from _volumes([header], name, keep)
        return
    try:
        yield _plane(header, name, keep)
    except UnusableInput as error:
        yield Refused.because(name, (Path(header.path),), error)


def scans_of_headers(headers: Sequence[Header], name: str) -> Iterator[Scan | Refused]:
    """What `find.find_scans` would find in one folder with these files, in its order."""
    series: dict[str, list[Header]] = {}
    for header in headers:
        if is_slice(header):
            series.setdefault(header.series, []).append(header)
        else:
            yield from scans_of_file(header, name)
    for part in series.values():
        yield from scans_of_series(Series(tuple(part), Path(part[0].path).parent, alone=True), name)


def _one_copy(headers: Sequence[Header]) -> list[list[Header]]:
    """The files of a series together; by folder where folders repeat each other's instances (copies)."""
    folders: dict[Path, list[Header]] = {}
    for header in headers:
        folders.setdefault(Path(header.path).parent, []).append(header)
    within = sum(len({header.sop_instance for header in part}) for part in folders.values())
    overall = len({header.sop_instance for header in headers})
    if within == len(headers) > overall:
        return list(folders.values())
    return [list(headers)]


def _volumes(headers: Sequence[Header], name: str, keep: object) -> Iterator[Scan | Refused]:
    files = tuple(Path(header.path) for header in headers)
    slices = [
        Slice(number, frame, (header.columns, header.rows, header.samples))
        for number, header in enumerate(headers)
        for frame in header.frames
    ]
    try:
        check_one_patient({header.patient for header in headers})
        _check_placed(headers)
        parts = split(slices)
    except UnusableInput as error:
        yield Refused.because(name, files, error)
        return
    for number, (part, words) in enumerate(parts):
        label = name if len(parts) == 1 else f"{name}{'.' if '#' in name else '#'}{number + 1}"
        try:
            yield _volume(headers, part, label, words, keep)
        except UnusableInput as error:
            yield Refused.because(label, tuple(dict.fromkeys(files[piece.file] for piece in part)), error)


def _check_placed(headers: Sequence[Header]) -> None:
    missing = sum(1 for header in headers for frame in header.frames if frame.position is None)
    total = sum(len(header.frames) for header in headers)
    if missing and total > 1:
        raise GeometryError(
            f"{missing} of its {total} slices state no position, so they cannot be put in order.",
            remedy="Export the complete series again from its source.",
        )


def _volume(headers: Sequence[Header], part: list[Slice], name: str, words: str, keep: object) -> Scan:
    first = headers[part[0].file]
    if part[0].frame.position is None or part[0].frame.orientation is None:
        return _plane(first, name, keep)
    frames = [piece.frame for piece in part]
    size = (first.columns, first.rows)
    grid, order = stack(frames, size, first.frame_of_reference)
    pieces = [part[index] for index in order]
    attributes = _merged(first.attributes, frames, words)
    if tilt := shear_degrees(grid):
        attributes["ShearDegrees"] = round(tilt, 2)
    sources = tuple(Source(headers[p.file].path, p.frame.index, p.frame.slope, p.frame.intercept) for p in pieces)
    files = tuple(dict.fromkeys(Path(source.path) for source in sources))
    colour = first.photometric in _COLOUR
    pixels = DicomPixels(sources, size, colour, False, keep)
    instances = tuple(dict.fromkeys((headers[piece.file].path, headers[piece.file].sop_instance) for piece in pieces))
    return _scan(first, name, files, grid, colour, pixels, attributes, tuple(uid for _, uid in instances))


def _plane(header: Header, name: str, keep: object) -> Scan:
    """A plane image, or a film of them along k, whose place in the patient is unknown."""
    size = (header.columns, header.rows)
    check_size((*size, len(header.frames)))
    spacing, unit, origin = plane_spacing(header)
    grid = Grid.from_parts((*size, len(header.frames)), spacing=(*spacing, 1.0), placed=False, unit=unit)
    colour = header.photometric in _COLOUR
    sources = tuple(Source(header.path, f.index, f.slope, f.intercept) for f in header.frames)
    attributes: dict[str, Attribute] = dict(header.attributes)
    attributes["SpacingFrom"] = origin
    if len(header.frames) > 1:
        attributes["Film"] = "yes"
    pixels = DicomPixels(sources, size, colour, not colour, keep)
    return _scan(header, name, (Path(header.path),), grid, colour, pixels, attributes, (header.sop_instance,))


def _scan(
    header: Header, name: str, files: tuple[Path, ...], grid: Grid, colour: bool, pixels: DicomPixels,
    attributes: Attributes, instances: tuple[str, ...],
) -> Scan:  # fmt: skip
    return Scan(
        name, files, "dicom", header.patient, header.study, header.series, header.modality, grid,
        3 if colour else 1, pixels, attributes, instances,
    )  # fmt: skip


def _merged(attributes: Attributes, frames: Sequence[Frame], words: str) -> dict[str, Attribute]:
    """The file's attributes, with those of this volume's frames where all of them agree."""
    merged = dict(attributes)
    for trait, worth in frames[0].traits.items():
        if trait in ("InstanceNumber", "AcquisitionTime", "ContentTime"):
            continue
        if all(frame.traits.get(trait) == worth for frame in frames):
            merged[trait] = worth
    if words:
        merged["Volume"] = words
    merged["Slices"] = float(len(frames))
    return merged
