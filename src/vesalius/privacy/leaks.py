"""The reader before a share: looks through a whole cohort for what should not be in it.

Independent of the de-identifier, which wrote the cohort: other rules for text, another pipeline around OCR, its own
walk through headers, its own reading of NIfTI, PNG and SQLite. What it tells is where something stands and of what
kind it is, never the thing itself.
"""

from __future__ import annotations

import re
import sqlite3
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vesalius.core.progress import Progress
from vesalius.privacy.leaks_dicom import DicomReader
from vesalius.privacy.leaks_files import ByteSearch, database_leaks, nifti_leaks, png_leaks, text_leaks
from vesalius.privacy.leaks_pixels import pixel_leaks
from vesalius.privacy.leaks_text import Known, suspicious
from vesalius.privacy.pseudonyms import Pseudonyms

_NAMES = re.compile(
    r"(?:images|labels)/C[0-9a-f]{16}/I[0-9a-f]{16}(?:\.nii\.gz|\.png|/\d{5}\.dcm)?"
    r"|images/C[0-9a-f]{16}/O[0-9a-f]{16}\.dcm|(?:images|labels)/C[0-9a-f]{16}|images|labels"
)
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z_.-]*")
_DISPOSABLE = ("cache",)  # never leaves the folder, and can be made again


@dataclass(frozen=True, order=True)
class Leak:
    """Something that should not be there: where (file below the cohort and place in it) and of what kind."""

    place: str
    kind: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}"


def owners_knowledge(folder: Path, pseudonyms: Pseudonyms | None, originals: frozenset[str]) -> Known:
    """What the owner of a cohort can recognise in it.

    Args:
        folder: the cohort.
        pseudonyms: of the key that the cohort was made with; None for who has it not.
        originals: identified keys of its patients, from the vault.
    """
    with closing(sqlite3.connect(f"file:{folder / 'cohort.sqlite'}?mode=ro", uri=True)) as connection:

        def column(query: str) -> frozenset[str]:
            return frozenset(row[0] for row in connection.execute(query))

        return Known(
            words=frozenset(word for word in originals if len(word.strip()) >= 4),
            patient=pseudonyms.patient if pseudonyms else None,
            source=pseudonyms.source if pseudonyms else None,
            uid=pseudonyms.uid if pseudonyms else None,
            patients=column("SELECT DISTINCT patient FROM cases"),
            sources=column("SELECT key FROM sources"),
            instances=column("SELECT uid FROM instances"),
        )


def leaks_in(folder: Path, known: Known, progress: Progress, *, pixels: bool = True) -> list[Leak]:
    """Everything in a cohort's folder that should not be there, each place and kind once.

    Args:
        folder: the cohort.
        known: what the owner can recognise.
        progress: told how far the work is.
        pixels: read text in pixels too.
    """
    reader = DicomReader(known, *_site_choices(folder))
    search = ByteSearch(known.words)
    with closing(sqlite3.connect(f"file:{folder / 'cohort.sqlite'}?mode=ro", uri=True)) as connection:
        patients = dict(connection.execute("SELECT id, patient FROM cases").fetchall())
        images = [row[0] for row in connection.execute("SELECT DISTINCT path FROM images ORDER BY path")]
    found: set[Leak] = set()
    files = sorted(path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in _DISPOSABLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, path in enumerate(progress.track(files, "Checking files", len(files))):
            shown, kinds = _named(path, folder, number, known)
            found |= {Leak(shown, kind) for kind in kinds}
            if path.is_symlink():
                found.add(Leak(shown, "a link, which may lead anywhere"))
            elif path.is_file():
                parts = path.relative_to(folder).parts
                patient = patients.get(parts[1]) if parts[0] == "images" and len(parts) > 2 else None
                found |= {Leak(f"{shown}, {place}", kind) for place, kind in _in_file(path, patient, reader, search)}
        for name in progress.track(images, "Reading pixels", len(images)) if pixels else ():
            found |= {Leak(f"{name}, {place}", kind) for place, kind in pixel_leaks(folder / name, known)}
    return sorted(found)


def _in_file(path: Path, patient: str | None, reader: DicomReader, search: ByteSearch) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM" or path.suffix == ".dcm":
        yield from reader.leaks(path, patient)
        with path.open("rb") as file:
            if search.finds(file, pixels=True):
                yield "its bytes", "the original identifier of a patient"
    elif path.name.endswith((".nii", ".nii.gz")):
        yield from nifti_leaks(path, search)
    elif path.suffix == ".png":
        yield from png_leaks(path)
    elif path.suffix == ".sqlite":
        yield from database_leaks(path, reader.known)
        with path.open("rb") as file:
            if search.finds(file, pixels=False):
                yield "its bytes", "the original identifier of a patient"
    else:
        yield from text_leaks(path, reader.known, search)


def _named(path: Path, folder: Path, number: int, known: Known) -> tuple[str, set[str]]:
    """How a file may be called in the list, and what its name gives away."""
    name = path.relative_to(folder).as_posix()
    if name.startswith(("images", "labels")):
        if _NAMES.fullmatch(name):
            return name, set()
        return f"{name.split('/')[0]}, file or folder {number}", {"a name that this program does not give"}
    own = path.relative_to(folder).name
    kinds = known.in_text(own) | suspicious(own, latest=None)
    plain = all(_PLAIN_NAME.fullmatch(part) for part in name.split("/")) and not kinds
    shown = name if plain else f"{name.split('/')[0] if '/' in name else 'the folder'}, file or folder {number}"
    return shown, {f"{kind}, in its name" for kind in kinds}


def _site_choices(folder: Path) -> tuple[frozenset[int], frozenset[tuple[int, int, str]]]:
    """What the site's profile keeps on purpose: tags, and private attributes."""
    from pydicom.datadict import tag_for_keyword

    path = folder / "privacy.toml"
    data = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    chosen = data.get("attributes", {})
    tags = set()
    for name in [*chosen.get("keep", []), *chosen.get("clean", [])]:
        digits = re.sub(r"[(), ]", "", str(name))
        tag = tag_for_keyword(str(name)) or (int(digits, 16) if re.fullmatch(r"[0-9a-fA-F]{8}", digits) else None)
        if tag is not None:
            tags.add(tag)
    private = set()
    for entry in data.get("private", {}).get("keep", []):
        group, element, creator = str(entry).split(",", 2)
        private.add((int(group, 16), int(element.strip()[2:], 16), creator.strip()))
    return frozenset(tags), frozenset(private)
