"""A DICOM header whose elements are decoded when they are asked for, and equal bytes only once.

The slices of a series repeat nearly all of each other's values. What `dicom_header` asks for is looked up here
in the bytes of the file; pydicom decodes what was not met before, so that both ways give the same values.
"""

from __future__ import annotations

import io
from functools import cache, lru_cache
from typing import Any, NamedTuple

from vesalius.formats.dicom_elements import Element, Layout
from vesalius.formats.dicom_values import ATTRIBUTE_KEYWORDS, attributes_of
from vesalius.formats.scan import Attribute

_LONGEST_REMEMBERED = 1024  # bytes of a value
_CHARACTER_SET = 0x00080005
# Functional groups, and where makers keep the diffusion weighting: these depend on more than their own bytes.
_ELSEWHERE = frozenset({0x52009229, 0x52009230, 0x0019100C, 0x20011003, 0x00431039})
_MOST_ATTRIBUTES = 512
_attributes: dict[tuple[str, bool, tuple[bytes, ...]], dict[str, Attribute]] = {}


class Value(NamedTuple):
    """What an element holds."""

    value: Any


class QuickHeader:
    """Stands in for a pydicom data set where single values are read."""

    def __init__(self, data: bytes, layout: Layout) -> None:
        self._data, self._implicit = data, layout.implicit
        self._at = {element.tag: element for element in layout.elements}
        charset = self._at.get(_CHARACTER_SET)
        self._charset = data[charset.value : charset.stop] if charset is not None else b""
        self.file_meta = _Meta(data, layout.meta)

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, name: str | tuple[int, int]) -> bool:
        return _tag(name) in self._at

    def __getattr__(self, keyword: str) -> Any:
        element = self._at.get(_tag(keyword))
        if element is None:
            raise AttributeError(keyword)
        return self._decoded(element)

    def __getitem__(self, tag: tuple[int, int]) -> Value:
        return Value(self._decoded(self._at[_tag(tag)]))

    def attributes(self, sop_class: str) -> dict[str, Attribute]:
        """`attributes_of` this header; worked out once for equal bytes."""
        if not _ELSEWHERE.isdisjoint(self._at):
            return attributes_of(self, sop_class)
        data, at = self._data, self._at
        raw = tuple(data[one.start : one.stop] for tag in _attribute_tags() if (one := at.get(tag)) is not None)
        key = (sop_class, self._implicit, raw)
        found = _attributes.get(key)
        if found is None:
            if len(_attributes) >= _MOST_ATTRIBUTES:
                _attributes.clear()
            found = _attributes[key] = attributes_of(self, sop_class)
        return dict(found)

    def _decoded(self, element: Element) -> Any:
        tag, vr, _, start, stop = element
        if vr == b"SQ" or tag >> 16 & 1 or (self._implicit and _is_sequence(tag)):
            return self._with_context(element)
        raw = self._data[start:stop]
        if len(raw) > _LONGEST_REMEMBERED:
            return _decode.__wrapped__(tag, vr, raw, self._charset)
        return _decode(tag, vr, raw, self._charset)

    def _with_context(self, element: Element) -> Any:
        """Decoded beside the elements that say how: the character set and the creators of private blocks."""
        block = element.tag >> 16 << 16
        creators = [at for tag, at in self._at.items() if element.tag >> 16 & 1 and block < tag <= block + 0xFF]
        context = [self._at[_CHARACTER_SET]] if _CHARACTER_SET in self._at else []
        parts = [self._data[at.start : at.stop] for at in (*context, *creators, element)]
        return parsed(b"".join(parts), self._implicit)[element.tag].value


class _Meta:
    """The file meta information: UIDs, as text."""

    def __init__(self, data: bytes, elements: list[Element]) -> None:
        self._data = data
        self._at = {element.tag: element for element in elements}

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self._at

    def __getattr__(self, keyword: str) -> str:
        element = self._at.get(_tag(keyword))
        if element is None:
            raise AttributeError(keyword)
        return self._data[element.value : element.stop].decode("latin-1").rstrip(" \0")


def parsed(elements: bytes, implicit: bool) -> Any:
    """A pydicom data set of some elements, as they stand in a little endian file."""
    from pydicom.filereader import read_dataset

    return read_dataset(io.BytesIO(elements), implicit, True, bytelength=len(elements), at_top_level=False)


@lru_cache(maxsize=16384)
def _decode(tag: int, vr: bytes, raw: bytes, charset: bytes) -> Any:
    from pydicom.dataelem import RawDataElement, convert_raw_data_element
    from pydicom.tag import BaseTag

    element = RawDataElement(BaseTag(tag), vr.decode() or None, len(raw), raw, 0, not vr, True)
    return convert_raw_data_element(element, encoding=encodings(charset)).value


@cache
def encodings(charset: bytes) -> list[str]:
    """Python's names of the character sets that the value of Specific Character Set names."""
    from pydicom.charset import convert_encodings

    return convert_encodings([part.strip() for part in charset.decode("latin-1").strip(" \0").split("\\")])


@cache
def _tag(name: str | tuple[int, int]) -> int:
    from pydicom.datadict import tag_for_keyword

    if isinstance(name, tuple):
        return name[0] << 16 | name[1]
    tag = tag_for_keyword(name)
    return -1 if tag is None else tag


@cache
def _attribute_tags() -> tuple[int, ...]:
    return tuple(sorted({_tag(keyword) for keyword in ATTRIBUTE_KEYWORDS}))


@cache
def _is_sequence(tag: int) -> bool:
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    return dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"
