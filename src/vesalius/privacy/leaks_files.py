"""The reader before a share, for everything that is not DICOM: NIfTI, PNG, SQLite, text, and bytes of any file."""

from __future__ import annotations

import gzip
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from vesalius.privacy.leaks_text import Known, suspicious

_CHUNK = 1 << 20
_LARGEST_TEXT = 64 << 20
_ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "iso8859-5", "shift_jis", "iso2022_jp")
_SHORTEST, _SHORTEST_IN_PIXELS = 5, 7  # bytes: shorter ones stand by chance in a large file of pixels
_PLAIN_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"sBIT", b"pHYs", b"cHRM", b"sRGB"})
_PNG = b"\x89PNG\r\n\x1a\n"
# (name, offset, length) of what NIfTI-1 and NIfTI-2 headers say in words
_WORDS_1 = (("data_type", 4, 10), ("db_name", 14, 18), ("descrip", 148, 80), ("aux_file", 228, 24),
            ("intent_name", 328, 16))  # fmt: skip
_WORDS_2 = (("descrip", 240, 80), ("aux_file", 320, 24), ("intent_name", 508, 16))
_DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+")
_OWN_TABLES = frozenset({"sources", "instances", "quarantine"})  # keyed pseudonyms, and sentences of this program


class ByteSearch:
    """Finds the original identifiers of patients in the bytes of any file, in the common encodings.

    Args:
        words: the identifiers.
    """

    def __init__(self, words: Iterable[str]) -> None:
        forms = {form for word in words for code in _ENCODINGS if (form := _encoded(word, code))}
        self._all = _pattern(form for form in forms if len(form) >= _SHORTEST)
        self._long = _pattern(form for form in forms if len(form) >= _SHORTEST_IN_PIXELS)
        self._overlap = max(map(len, forms), default=1) - 1

    def finds(self, file: BinaryIO, *, pixels: bool) -> bool:
        """Whether one stands in a stream; in pixels only longer ones count, which cannot stand there by chance."""
        pattern = self._long if pixels else self._all
        if pattern is None:
            return False
        rest = b""
        while block := file.read(_CHUNK):
            if pattern.search(rest + block):
                return True
            rest = (rest + block)[-self._overlap :] if self._overlap else b""
        return False


def nifti_leaks(path: Path, search: ByteSearch) -> Iterator[tuple[str, str]]:
    """(place, kind) in a NIfTI file: words in its header, extensions, names and bytes beside the image."""
    with path.open("rb") as raw:
        start = raw.read(10)
        packed = start[:2] == b"\x1f\x8b"
        if packed and start[3] & 0x1C:
            yield "gzip header", "a name, comment or extra field"
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            head = file.read(544)
            yield from _nifti_header(head)
            if search.finds(file, pixels=True):  # type: ignore[arg-type]
                yield "the voxels", "the original identifier of a patient"
    except (OSError, EOFError, zlib.error, struct.error):
        yield "the file", "data that cannot be read, so that nobody can vouch for them"


def _nifti_header(head: bytes) -> Iterator[tuple[str, str]]:
    size = {348: "<", 540: "<"}.get(struct.unpack("<i", head[:4])[0], ">")
    version_2 = struct.unpack(f"{size}i", head[:4])[0] == 540
    for name, offset, length in _WORDS_2 if version_2 else _WORDS_1:
        if head[offset : offset + length].strip(b"\0 "):
            yield f"header field {name}", "words where none belong"
    extension = head[540:544] if version_2 else head[348:352]
    if extension[:1].strip(b"\0"):
        yield "header extension", "an extension, which can hold anything"


def png_leaks(path: Path) -> Iterator[tuple[str, str]]:
    """(place, kind) in a PNG file: any chunk that is not of the image, and what follows its end."""
    with path.open("rb") as file:
        if file.read(8) != _PNG:
            yield "the file", "a file of another kind than its name says"
            return
        while head := file.read(8):
            length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
            if kind not in _PLAIN_CHUNKS:
                yield f"chunk {kind.decode('latin-1') if kind.isalpha() else '?'}", "data that are not of the image"
                return
            file.seek(length + 4, 1)
            if kind == b"IEND":
                if file.read(1):
                    yield "after the end", "bytes that do not belong there"
                return


def database_leaks(path: Path, known: Known) -> Iterator[tuple[str, str]]:
    """(table and column, kind) in the cohort's database."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in tables:
            if name in _OWN_TABLES:
                continue
            rows = connection.execute(f'SELECT * FROM "{name}"')  # noqa: S608 - a name that the file itself gives
            columns = [one[0] for one in rows.description]
            found = {
                (column, kind)
                for row in rows
                for column, value in zip(columns, row, strict=True)
                if isinstance(value, str) and column not in ("path", "grid", "digest", "recipients")
                for kind in known.in_text(value) | suspicious(value, numbers=column in ("value", "name"))
            }
            for column, kind in sorted(found):
                yield f"table {name}, column {column}", kind


def text_leaks(path: Path, known: Known, search: ByteSearch) -> Iterator[tuple[str, str]]:
    """(place, kind) in a file of any other kind: reports, cards, tables, settings; bytes where it is no text."""
    with path.open("rb") as file:
        if search.finds(file, pixels=path.suffix not in _TEXTS):
            yield "its bytes", "the original identifier of a patient"
    if path.suffix not in _TEXTS or path.stat().st_size > _LARGEST_TEXT:
        return
    text = _DATA_URI.sub(" ", path.read_bytes().decode("utf-8", "replace"))
    for kind in sorted(known.in_text(text) | suspicious(text, numbers=False, web=False)):
        yield "its text", kind


_TEXTS = frozenset({".json", ".jsonl", ".md", ".html", ".htm", ".csv", ".tsv", ".txt", ".toml", ".svg", ".xml", ""})


def _encoded(word: str, code: str) -> bytes:
    try:
        return word.encode(code)
    except UnicodeEncodeError:
        return b""


def _pattern(forms: Iterable[bytes]) -> re.Pattern[bytes] | None:
    chosen = sorted(forms, key=len, reverse=True)
    return re.compile(b"|".join(map(re.escape, chosen))) if chosen else None
