"""What travels with pixel data and is none: comments in compressed streams, and bytes after the last pixel.

JPEG and JPEG-LS: ITU-T T.81 B.2 and T.87 C; JPEG 2000: T.800 A. Nothing is decoded, so pixels cannot change.
"""

from __future__ import annotations

import re
import struct
from typing import Any

from vesalius.core.errors import UnusableInput
from vesalius.formats.dicom_values import text, whole

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_KEPT_APPLICATION = {0xE0: b"JFIF\0", 0xE8: b"", 0xEE: b"Adobe"}  # what decoders need
_AGAIN = "Export it again from its source, uncompressed if it can be."


def strip_pixel_data(dataset: Any) -> bool:
    """Cut what is no pixel out of an image's pixel data, in place; whether anything was there.

    Raises:
        UnusableInput: the compressed stream is damaged, so that nobody can say what is in it.
    """
    if "PixelData" not in dataset:
        return False
    if str(dataset.file_meta.get("TransferSyntaxUID", "")) in ("", *_NATIVE):
        return _strip_native(dataset)
    return _strip_encapsulated(dataset)


def strip_stream(frame: bytes) -> bytes:
    """One frame's compressed stream without comments, application data, and bytes after its end.

    A stream of another kind (RLE, video) is returned as it is.

    Raises:
        UnusableInput: it is damaged.
    """
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096) if frame[:4] == b"\0\0\0\x0c" else 0
    try:
        if frame[start : start + 2] == b"\xff\x4f":
            return _strip_jpeg_2000(frame[max(start, 0) :])
        if frame[:2] == b"\xff\xd8":
            return _strip_jpeg(frame)
    except (struct.error, IndexError) as error:
        raise UnusableInput("Its compressed pixel data are cut off.", remedy=_AGAIN) from error
    return frame


def _strip_native(dataset: Any) -> bool:
    rows, columns, bits = whole(dataset, "Rows"), whole(dataset, "Columns"), whole(dataset, "BitsAllocated") or 16
    total = rows * columns * (whole(dataset, "SamplesPerPixel") or 1) * max(whole(dataset, "NumberOfFrames"), 1) * bits
    if text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        total = total * 2 // 3
    size = (total + 7) // 8
    if _is_big_endian(dataset):
        size += size % 2  # bytes stand swapped in words, the odd one last but one
    data = dataset.PixelData
    changed = False
    if 0 < size < len(data) and data[size:].strip(b"\0"):
        data, changed = data[:size] + b"\0" * (size % 2), True
    if bits == 16 and _overlay_in_pixels(dataset):
        data, changed = _without_spare_bits(dataset, data), True
    if changed:
        dataset.PixelData = data
    return changed


def _is_big_endian(dataset: Any) -> bool:
    return str(dataset.file_meta.get("TransferSyntaxUID", "")) == "1.2.840.10008.1.2.2"


def _overlay_in_pixels(dataset: Any) -> bool:
    """Whether an overlay is kept in the unused bits of the pixels (PS3.5 8.1.2, retired)."""
    groups = range(0x6000, 0x6020, 2)
    positions = (dataset.get((group, 0x0102)) for group in groups)
    return any(element is not None and element.value for element in positions)


def _without_spare_bits(dataset: Any, data: bytes) -> bytes:
    import numpy as np

    stored, high = whole(dataset, "BitsStored") or 16, whole(dataset, "HighBit") or 15
    words = np.frombuffer(data[: len(data) // 2 * 2], ">u2" if _is_big_endian(dataset) else "<u2")
    mask = ((1 << stored) - 1) << (high + 1 - stored)
    kept = words & mask
    if whole(dataset, "PixelRepresentation") == 1 and high < 15:
        sign = (words >> high) & 1  # a negative number fills the bits above with ones
        kept = kept | (sign * (0xFFFF & ~((1 << (high + 1)) - 1))).astype(words.dtype)
    return kept.astype(words.dtype).tobytes()


def _strip_encapsulated(dataset: Any) -> bool:
    from pydicom.encaps import encapsulate, generate_frames

    count = whole(dataset, "NumberOfFrames")
    try:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=max(count, 1)))
    except Exception as error:  # pydicom raises nearly anything on damaged fragments
        raise UnusableInput("Its compressed pixel data are damaged.", remedy=_AGAIN) from error
    cleaned = [strip_stream(frame) for frame in frames]
    if all(new == old or new == old[:-1] for new, old in zip(cleaned, frames, strict=True)):
        return False
    dataset.PixelData = encapsulate(cleaned, has_bot=False)
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)
    return True


def _strip_jpeg(stream: bytes) -> bytes:
    kept = [b"\xff\xd8"]
    position = 2
    while True:
        match = _MARKER.search(stream, position)
        if match is None:
            return b"".join(kept) + stream[position:]  # cut off: the decoder will tell
        kept.append(stream[position : match.start()])
        marker, start = match[0][1], match.start()
        if marker == 0xD9:
            return b"".join(kept) + b"\xff\xd9"
        (length,) = struct.unpack(">H", stream[start + 2 : start + 4])
        segment = stream[start : start + 2 + length]
        position = start + 2 + length
        if marker == 0xFE or 0xE0 <= marker <= 0xEF:
            wanted = _KEPT_APPLICATION.get(marker)
            if marker == 0xFE or wanted is None or not segment[4:].startswith(wanted) or length > 64:
                continue
        kept.append(segment)


def _strip_jpeg_2000(stream: bytes) -> bytes:
    kept, position = [b"\xff\x4f"], 2
    while stream[position : position + 2] != b"\xff\x90":
        (marker, length) = struct.unpack(">HH", stream[position : position + 4])
        if marker != 0xFF64:
            kept.append(stream[position : position + 2 + length])
        position += 2 + length
    start = position
    while stream[position : position + 2] == b"\xff\x90":
        (size,) = struct.unpack(">I", stream[position + 6 : position + 10])
        if size == 0:
            end = stream.rfind(b"\xff\xd9")
            position = end if end > 0 else len(stream)
            break
        position += size
    return b"".join(kept) + stream[start:position] + b"\xff\xd9"
