"""Where each element of a DICOM data set stands in a file, without decoding any.

Only files that follow PS3.5 7.1 and PS3.10 to the letter are taken: little endian, a preamble and file meta
information, tags that rise, known value representations, even lengths that stay inside. Anything else is `NotPlain`,
and is left to pydicom, which forgives more and takes ten times as long.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

_SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"  # length in 16 bits
_LONGER = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV"
_SHORT_VRS, _LONG_VRS = frozenset(_SHORT.split()), frozenset(_LONGER.split())
_EXPLICIT, _IMPLICIT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<HHL"), struct.Struct("<L")
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEEPEST = 32  # sequences in sequences; real objects stay below ten
PIXELS = 0x7FE00008  # pixel data begin with this tag or a higher one of its group

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_OTHER_WAYS = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95")
_STANDARD = "1.2.840.10008.1.2"


class NotPlain(Exception):
    """The file is not laid out to the letter of the standard, or is big endian or deflated."""


class Element(NamedTuple):
    """An element: its tag, its value representation (b"" where it is implicit), and where it stands.

    `start` is where its tag begins, `value` where its value does, and `stop` where the next element begins;
    a value of undefined length includes its delimiter.
    """

    tag: int
    vr: bytes
    start: int
    value: int
    stop: int


class Layout(NamedTuple):
    """The elements of a file in order, and how they are written.

    Args:
        syntax: Transfer Syntax UID.
        implicit: whether value representations are left out.
        meta: the elements of the file meta information.
        elements: those of the data set; pixel data and what follows are left out where only a header was asked.
        pixels: where pixel data begin, or the end of the data.
    """

    syntax: str
    implicit: bool
    meta: list[Element]
    elements: list[Element]
    pixels: int


def layout_of(data: bytes, end: int, *, header: bool) -> Layout:
    """The layout of a file.

    Args:
        data: its bytes, or so many of them as are at hand.
        end: how many bytes the whole file has.
        header: stop at the pixel data, which need not be at hand then.

    Raises:
        NotPlain: see above; also where the bytes at hand end before the header does.
    """
    if len(data) < 140 or data[128:132] != b"DICM":
        raise NotPlain
    try:
        meta, position = _elements(data, 132, len(data), len(data), False, below=0x00030000)
        syntax = next((_text(data, one) for one in meta if one.tag == 0x00020010), "")
        if not syntax.startswith(_STANDARD) or syntax in _OTHER_WAYS:
            raise NotPlain
        implicit = syntax == IMPLICIT
        if implicit and data[position + 4 : position + 6].isalpha():
            raise NotPlain
        below = PIXELS if header else _UNDEFINED
        elements, position = _elements(data, position, len(data), end, implicit, below=below)
    except struct.error as error:
        raise NotPlain from error
    if not elements or elements[0].tag < 0x00080000:
        raise NotPlain
    return Layout(syntax, implicit, meta, elements, position)


def is_whole(path: Path) -> bool:
    """Whether a file that is neither big endian nor deflated is laid out to the letter."""
    data = path.read_bytes()
    try:
        layout_of(data, len(data), header=False)
    except NotPlain:
        return any(way.encode() in data[:1024] for way in _OTHER_WAYS)
    return True


def _elements(
    data: bytes, position: int, stop: int, end: int, implicit: bool, *,
    below: int = _UNDEFINED, item: bool = False, depth: int = 0,
) -> tuple[list[Element], int]:  # fmt: skip
    """Elements from `position` to `stop`, or to a tag that is not below `below`, or to the end of the item."""
    found: list[Element] = []
    before = -1
    while position < stop:
        if implicit:
            group, element, length = _IMPLICIT.unpack_from(data, position)
            vr, value = b"", position + 8
        else:
            group, element, vr, length = _EXPLICIT.unpack_from(data, position)
            value = position + 8
        tag = group << 16 | element
        if item and tag == _ITEM_END:
            return found, position + 8
        if tag >= below and group != 0xFFFE:
            return found, position
        if tag <= before or group == 0xFFFE:
            raise NotPlain
        before = tag
        if not implicit and vr not in _SHORT_VRS:
            if vr not in _LONG_VRS:
                raise NotPlain
            (length,) = _LONG.unpack_from(data, position + 8)
            value = position + 12
        after = value + length if length != _UNDEFINED else _past_items(data, value, tag, vr, implicit, depth)
        if after & 1 or after > end or (after > len(data) and tag < PIXELS):
            raise NotPlain
        found.append(Element(tag, vr, position, value, after))
        position = after
    if item:
        raise NotPlain
    return found, position


def _past_items(data: bytes, position: int, tag: int, vr: bytes, implicit: bool, depth: int) -> int:
    """Where a sequence, or fragments of pixel data, of undefined length end."""
    fragments = tag >= PIXELS and tag >> 16 == PIXELS >> 16
    if depth > _DEEPEST or (not implicit and vr != b"SQ" and not fragments):
        raise NotPlain
    while True:
        found, length = _tag_and_length(data, position)
        position += 8
        if found == _SEQUENCE_END:
            return position
        if found != _ITEM:
            raise NotPlain
        if length != _UNDEFINED:
            position += length
        elif fragments:
            raise NotPlain
        else:
            end = len(data)
            _, position = _elements(data, position, end, end, implicit, item=True, depth=depth + 1)


def _tag_and_length(data: bytes, position: int) -> tuple[int, int]:
    group, element, length = _IMPLICIT.unpack_from(data, position)
    return group << 16 | element, length


def _text(data: bytes, element: Element) -> str:
    return data[element.value : element.stop].decode("latin-1").strip(" \0")
