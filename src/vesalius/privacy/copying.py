"""De-identifying a DICOM file by copying: each element passes as its bytes, or as the bytes that stand for them.

Pixel data are never decoded and the file is read once. What an element becomes is what `headers.HeaderCleaner`
makes of it; the answer is remembered by its bytes, because the slices of a series repeat most of each other's.
Memory: one file up to 64 MB, larger ones are mapped; and the answers of one patient, a few megabytes.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from bisect import bisect
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from vesalius.formats.dicom_elements import PIXELS, Element, Layout, NotPlain, layout_of
from vesalius.formats.dicom_quick import QuickHeader, parsed
from vesalius.formats.dicom_syntaxes import NATIVE
from vesalius.formats.dicom_values import text, whole
from vesalius.privacy.codestream import strip_pixel_data
from vesalius.privacy.headers import HeaderCleaner, decide, private_rule
from vesalius.privacy.identity import tells
from vesalius.privacy.profile import Action, PixelMode, Rule

_LARGE = 64 << 20  # bytes of a file that is mapped rather than read
_LONGEST_REMEMBERED = 1 << 14  # bytes of an element
_MOST_REMEMBERED = 1 << 15  # elements that told of the patient
_MOST_BYTES = 16 << 20  # of elements that were cleaned
_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018
_PATIENT = frozenset({0x00100010, 0x00100020})
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_OFFSETS = (0x7FE00001, 0x7FE00002)  # tables that hold only for streams as they came
_LONGEST = {b"SH": 16, b"LO": 64, b"ST": 1024, b"LT": 10240}  # characters of a value
_IMAGE_GROUPS = frozenset({0x0028, 0x7FE0, *range(0x6000, 0x6020, 2)})


@dataclass(frozen=True)
class Copied:
    """A file that is ready to be written.

    Args:
        header: everything before the pixel data.
        rest: pixel data and what follows.
    """

    header: bytes
    rest: list[bytes | memoryview]

    def write(self, target: Path) -> None:
        """Write it."""
        with target.open("wb") as file:
            file.write(self.header)
            file.writelines(self.rest)


@dataclass
class FileCopier:
    """Copies the files of one patient, de-identified.

    Args:
        header: what cleans the elements; it learns what each file knows.
    """

    header: HeaderCleaner
    _done: dict[tuple[Any, ...], bytes] = field(default_factory=dict)
    _rules: dict[tuple[int, str | None], Rule] = field(default_factory=dict)
    _told: set[tuple[bytes, bytes]] = field(default_factory=set)
    _marked: dict[tuple[bool, bool], dict[int, bytes]] = field(default_factory=dict)
    _text: object = None
    _size: int = 0

    def copy(self, file: Path) -> Copied:
        """What the file becomes.

        Raises:
            NotPlain: it is not laid out to the letter of the standard.
            UnusableInput: its compressed pixel data are damaged.
        """
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            data: Any = stream.read() if size <= _LARGE else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        layout = layout_of(data, size, header=False)
        self._learn(data, layout)
        return self._copied(data, layout)

    def _learn(self, data: bytes, layout: Layout) -> None:
        """Tell the header cleaner what this file knows of the patient and none before did."""
        charset = _bytes_of(data, layout, _CHARACTER_SET)
        new = []
        for element in layout.elements:
            if tells(element.tag, element.vr.decode() or None):
                raw = data[element.start : element.stop]
                told = (charset, raw if len(raw) < 64 else hashlib.blake2b(raw).digest())
                if told not in self._told:
                    self._told.add(told)
                    new.append(raw)
        if len(self._told) > _MOST_REMEMBERED:
            self._told.clear()
        if new or self._text is None:
            self.header.learn(parsed(charset + b"".join(new), layout.implicit))
        if self._text is not self.header.text or self._size > _MOST_BYTES:
            self._done.clear()
            self._size = 0
            self._text = self.header.text

    def _copied(self, data: bytes, layout: Layout) -> Copied:
        charset = _bytes_of(data, layout, _CHARACTER_SET)
        creators = {one.tag: _plain_text(data, one) for one in layout.elements if _is_creator(one.tag)}
        parts: dict[int, bytes | memoryview] = {}
        used: set[int] = set()
        for element in layout.elements:
            tag = element.tag
            if tag in _PIXELS:
                parts[tag] = memoryview(data)[element.start : element.stop]
            elif tag in creators:
                continue
            elif tag >> 16 & 1:
                home = tag >> 16 << 16 | tag >> 8 & 0xFF
                rule = self._rule(tag, creators.get(home, ""))
                if rule.action is not Action.REMOVE:
                    used.add(home)
                    context = charset + _bytes_of(data, layout, home)
                    parts[tag] = self._cleaned(data, element, rule, layout.implicit, context)
            else:
                rule = self._rule(tag)
                if rule.action is not Action.REMOVE:
                    parts[tag] = self._cleaned(data, element, rule, layout.implicit, charset)
        parts |= {tag: _bytes_of(data, layout, tag) for tag in used & creators.keys()}
        if 0x7FE00010 in parts:
            _strip_pixels(data, layout, parts)
        parts |= self._marks(layout.implicit, not _PIXELS.isdisjoint(parts))
        head = [bytes(part) for tag, part in sorted(parts.items()) if tag < PIXELS]
        meta = _meta(layout.syntax, *(_plain_value(parts.get(tag, b"")) for tag in (_SOP_CLASS, _SOP_INSTANCE)))
        rest = [part for tag, part in sorted(parts.items()) if tag >= PIXELS]
        return Copied(b"".join([meta, *head]), rest)

    def _rule(self, tag: int, creator: str | None = None) -> Rule:
        rule = self._rules.get((tag, creator))
        if rule is None:
            profile = self.header.profile
            rule = decide(profile, tag) if creator is None else private_rule(profile, tag, creator)
            self._rules[tag, creator] = rule
        return rule

    def _cleaned(self, data: bytes, element: Element, rule: Rule, implicit: bool, context: bytes) -> bytes:
        raw = data[element.start : element.stop]
        if len(raw) > _LONGEST_REMEMBERED:
            return self._clean(raw, element, rule, implicit, context)
        key = (raw, context, implicit)
        done = self._done.get(key)
        if done is None:
            done = self._done[key] = self._clean(raw, element, rule, implicit, context)
            self._size += len(raw) + len(done) + len(context)
        return done

    def _clean(self, raw: bytes, element: Element, rule: Rule, implicit: bool, context: bytes) -> bytes:
        """What stands for one element; b"" where it goes."""
        from pydicom.dataelem import RawDataElement
        from pydicom.tag import BaseTag

        vr = element.vr or (_dictionary_vr(element.tag) if implicit else b"")
        key = (element.tag, vr, implicit, rule.action) if _is_constant(rule.action, vr) else None
        plain = _constants.get(key) if key else self._plainly(raw, element, vr, rule, implicit)
        if plain is not None:
            return plain
        tag = BaseTag(element.tag)
        if rule.action is Action.KEEP and element.tag not in _PATIENT:
            value = raw[element.value - element.start :]
            stated = element.vr.decode() or None
            if self.header.passes(RawDataElement(tag, stated, len(value), value, 0, implicit, True), self.header.text):
                return raw
        dataset = parsed(context + raw, implicit)
        self.header.apply(rule, dataset, tag, self.header.text)
        done = _written(dataset, tag, implicit)
        if key and element.tag not in _PATIENT:
            _constants[key] = done
        return done

    def _plainly(self, raw: bytes, element: Element, vr: bytes, rule: Rule, implicit: bool) -> bytes | None:
        """UIDs, dates, and texts that stay, as `HeaderCleaner` treats them; None for the rest."""
        if element.tag in _PATIENT:
            return None
        if vr in _LONGEST and rule.action in (Action.CLEAN, Action.KEEP):
            value = raw[element.value - element.start :].rstrip(b" \0")
            parts = value.split(b"\\") if vr in (b"LO", b"SH") else [value]
            stays = value.isascii() and all(self._stays(part.rstrip(b" \0").decode(), vr) for part in parts)
            return raw if stays else None
        if rule.action in (Action.KEEP, Action.EMPTY) and (vr != b"UI" or rule.action is Action.KEEP):
            return None
        if vr not in (b"UI", b"DA", b"DT"):
            return None
        head = element.value - element.start
        values = raw[head:].decode("latin-1").strip(" \0").split("\\")
        change = self.header.uid if vr == b"UI" else self.header.text.dates.value
        changed = "\\".join(change(value.strip(" \0")) for value in values).encode()
        changed += (b"\0" if vr == b"UI" else b" ") * (len(changed) % 2)
        return raw[: head - (4 if implicit else 2)] + struct.pack("<L" if implicit else "<H", len(changed)) + changed

    def _stays(self, text: str, vr: bytes) -> bool:
        return len(text) <= _LONGEST[vr] and text.isprintable() and self.header.text.clean(text) == text

    def _marks(self, implicit: bool, image: bool) -> dict[int, bytes]:
        """What `HeaderCleaner.marks` adds, as elements."""
        if (implicit, image) not in self._marked:
            marks = self.header.marks()
            if image and self.header.profile.pixels is not PixelMode.KEEP:
                marks.BurnedInAnnotation = "NO"
            self._marked[implicit, image] = {int(one.tag): _written(marks, one.tag, implicit) for one in marks}
        return self._marked[implicit, image]


def _written(dataset: Any, tag: Any, implicit: bool) -> bytes:
    """One element of a data set as bytes; b"" where it is not there.

    Raises:
        NotPlain: pydicom would need to know more of the data set to write it.
    """
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_data_element

    if tag not in dataset:
        return b""
    element = dataset.get_item(tag)
    if element.VR is not None and len(element.VR) != 2:
        raise NotPlain  # US or SS, as another attribute decides
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    write_data_element(buffer, element, dataset.get("SpecificCharacterSet"))
    return buffer.getvalue()


def _strip_pixels(data: bytes, layout: Layout, parts: dict[int, bytes | memoryview]) -> None:
    """Cut what is no pixel out of the pixel data, where anything is there."""
    pixels = layout.elements[bisect([one.tag for one in layout.elements], 0x7FE00010) - 1]
    if layout.syntax in NATIVE and _holds_only_pixels(QuickHeader(data, layout), data, pixels):
        return
    wanted = (one for one in layout.elements if one.tag >> 16 in _IMAGE_GROUPS)
    dataset = parsed(b"".join(data[one.start : one.stop] for one in wanted), layout.implicit)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(layout.syntax)
    if strip_pixel_data(dataset):
        parts[pixels.tag] = _written(dataset, pixels.tag, layout.implicit)
        for tag in _OFFSETS:
            parts.pop(tag, None)


def _holds_only_pixels(header: Any, data: bytes, pixels: Element) -> bool:
    """Whether native pixel data end with the last pixel, and no overlay lies in their spare bits."""
    if any((group, 0x0102) in header for group in range(0x6000, 0x6020, 2)):
        return False
    if text(header, "PhotometricInterpretation") == "YBR_FULL_422":
        return False
    frames, samples = max(whole(header, "NumberOfFrames"), 1), whole(header, "SamplesPerPixel") or 1
    bits = whole(header, "Rows") * whole(header, "Columns") * samples * frames * (whole(header, "BitsAllocated") or 16)
    beyond = pixels.stop - pixels.value - (bits + 7) // 8
    return beyond <= 0 or (beyond == 1 and data[pixels.stop - 1 : pixels.stop] == b"\0")


def _meta(syntax: str, sop_class: str, sop_instance: str) -> bytes:
    """Preamble and file meta information (PS3.10 7.1) that say nothing of where the file came from.

    Raises:
        NotPlain: the object does not say what it is.
    """
    if not sop_class or not sop_instance:
        raise NotPlain
    elements = b"".join(
        struct.pack("<HH2sH", 2, element, vr, len(value)) + value
        for element, vr, value in (
            (0x02, b"UI", _even(sop_class)), (0x03, b"UI", _even(sop_instance)), (0x10, b"UI", _even(syntax)),
            (0x12, b"UI", _even(PYDICOM_IMPLEMENTATION_UID)),
        )
    )  # fmt: skip
    version = struct.pack("<HH2sHL", 2, 1, b"OB", 0, 2) + b"\0\1"
    group = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(version + elements))
    return b"\0" * 128 + b"DICM" + group + version + elements


def _even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _is_constant(action: Action, vr: bytes) -> bool:
    """Whether a value becomes nothing or a dummy, whatever it is."""
    if vr in (b"", b"SQ", b"UI", b"UN"):
        return False
    return action is Action.EMPTY or (action is Action.DUMMY and vr not in (b"DA", b"DT"))


_constants: dict[tuple[int, bytes, bool, Action], bytes] = {}


@cache
def _dictionary_vr(tag: int) -> bytes:
    return dictionary_VR(tag).encode() if dictionary_has_tag(tag) else b""


def _is_creator(tag: int) -> bool:
    return bool(tag >> 16 & 1) and 0x10 <= (tag & 0xFFFF) <= 0xFF


def _bytes_of(data: bytes, layout: Layout, tag: int) -> bytes:
    place = bisect(layout.elements, (tag,))
    found = layout.elements[place] if place < len(layout.elements) else None
    return data[found.start : found.stop] if found is not None and found.tag == tag else b""


def _plain_text(data: bytes, element: Element) -> str:
    return data[element.value : element.stop].decode("latin-1").strip(" \0")


def _plain_value(part: bytes | memoryview) -> str:
    """The text of a short element."""
    return bytes(part[8:]).decode("latin-1").strip(" \0")
