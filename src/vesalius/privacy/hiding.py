"""Hiding rectangles and other shapes in the pixel data of a DICOM file without changing any other pixel.

Native data are changed byte by byte where they stand. Compressed data are decoded and written without loss: in
the same family of compression where an encoder is at hand, else uncompressed; colours become RGB, so that every
pixel is shown as it was. That an image was once compressed with loss stays in its
header (PS3.3 C.7.6.1.1.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array
from vesalius.formats.dicom_pixels import decoded
from vesalius.formats.dicom_values import damaged, text, whole
from vesalius.privacy.ocr import Box

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", _BIG_ENDIAN)
_RLE, _JPEG_LS, _JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
_WRITTEN_AS = {_RLE: _RLE, _JPEG_LS: _JPEG_LS, "1.2.840.10008.1.2.4.81": _JPEG_LS}
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91")
_PLUGINS = {_RLE: "pydicom", _JPEG_LS: "pyjpegls", _JPEG_2000: "pylibjpeg"}


Area = Sequence[Box] | Array  # rectangles, or (rows, columns) bool


def hide(dataset: Any, boxes: Mapping[int, Area]) -> None:
    """Fill areas of frames with the darkest value of their frame, in place.

    Args:
        dataset: with its pixel data as read from the file.
        boxes: by frame number from 0; masks only in frames of one sample a pixel.

    Raises:
        UnusableInput: the pixels do not decode, or are of a kind that cannot be changed here.
    """
    if str(dataset.file_meta.TransferSyntaxUID) in _NATIVE:
        _hide_native(dataset, boxes)
    else:
        _hide_compressed(dataset, boxes)


def _hide_native(dataset: Any, boxes: Mapping[int, Area]) -> None:
    rows, columns, bits = whole(dataset, "Rows"), whole(dataset, "Columns"), whole(dataset, "BitsAllocated")
    samples, frames = whole(dataset, "SamplesPerPixel") or 1, max(whole(dataset, "NumberOfFrames"), 1)
    photometric = text(dataset, "PhotometricInterpretation")
    big = str(dataset.file_meta.TransferSyntaxUID) == _BIG_ENDIAN
    if bits not in (8, 16, 32):
        raise UnusableInput("Text stands in pixels of a rare depth.", remedy="Export it with 8 or 16 bits a pixel.")
    raw = bytearray(dataset.PixelData)
    if big and bits == 8:
        raw = bytearray(np.frombuffer(bytes(raw), "<u2").byteswap().tobytes())
    kind = np.dtype(f"{'>' if big else '<'}{'i' if whole(dataset, 'PixelRepresentation') else 'u'}{bits // 8}")
    if photometric == "YBR_FULL_422":
        shape: tuple[int, ...] = (frames, rows, columns // 2, 4)
    elif samples > 1 and whole(dataset, "PlanarConfiguration") == 1:
        shape = (frames, samples, rows, columns)
    else:
        shape = (frames, rows, columns, samples)
    pixels = np.frombuffer(raw, kind, count=int(np.prod(shape))).reshape(shape)
    for number, rectangles in boxes.items():
        frame = pixels[number]
        if samples > 1 and len(shape) == 4 and shape[1] == samples and photometric != "YBR_FULL_422":
            frame = np.moveaxis(frame, 0, -1)
        _fill(frame, rectangles, photometric)
    if big and bits == 8:
        raw = bytearray(np.frombuffer(bytes(raw), "<u2").byteswap().tobytes())
    dataset.PixelData = bytes(raw)


def _fill(frame: Array, boxes: Area, photometric: str) -> None:
    """Fill areas of a frame (rows, columns, samples) in place; 4:2:2 has pairs of columns as Y Y Cb Cr."""
    if photometric == "YBR_FULL_422" and frame.shape[-1] == 4:
        colour: Any = (0, 0, 128, 128)
    elif photometric.startswith("YBR_FULL") or photometric == "YBR_PARTIAL_420":
        colour = (0, 128, 128)
    elif frame.shape[-1] > 1:
        colour = 0
    else:
        colour = frame.max() if photometric == "MONOCHROME1" else frame.min()
    if isinstance(boxes, np.ndarray):
        frame[boxes] = colour
        return
    step = 2 if frame.shape[-1] == 4 else 1
    for box in boxes:
        frame[box.top : box.bottom, box.left // step : -(-box.right // step)] = colour


def _hide_compressed(dataset: Any, boxes: Mapping[int, Area]) -> None:
    from pydicom.uid import UID, ExplicitVRLittleEndian

    syntax = str(dataset.file_meta.TransferSyntaxUID)
    frames, photometric = _stored(dataset)
    for number, rectangles in boxes.items():
        _fill(frames[number], rectangles, photometric)
    dataset.PixelData = frames.tobytes() + b"\0" * (frames.nbytes % 2)
    dataset["PixelData"].VR = "OB" if frames.dtype.itemsize == 1 else "OW"
    dataset["PixelData"].is_undefined_length = False
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = frames.dtype.itemsize * 8
    if frames.shape[-1] > 1:
        dataset.PlanarConfiguration = 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)
    if syntax in _LOSSY:
        dataset.LossyImageCompression = "01"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    _compress(dataset, UID(_WRITTEN_AS.get(syntax, _JPEG_2000)))


def _stored(dataset: Any) -> tuple[Array, str]:
    """All frames, (frames, rows, columns, samples), and what their colours mean: RGB, as every reader shows them."""
    frames = np.stack(list(decoded(dataset, list(range(max(whole(dataset, "NumberOfFrames"), 1))))))
    photometric = text(dataset, "PhotometricInterpretation")
    if frames.ndim == 3:
        return frames[..., None], photometric
    return frames, "RGB" if photometric.startswith("YBR") else photometric


def _compress(dataset: Any, syntax: Any) -> None:
    """Compress without loss where that gives back the same pixels; else the data stay uncompressed."""
    from pydicom.uid import ExplicitVRLittleEndian

    native, photometric = dataset.PixelData, dataset.PhotometricInterpretation
    if _compressed(dataset, syntax, native, photometric):
        return
    dataset.PixelData = native
    dataset["PixelData"].is_undefined_length = False
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    dataset.PhotometricInterpretation = photometric
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _compressed(dataset: Any, syntax: Any, native: bytes, photometric: str) -> bool:
    try:
        dataset.compress(syntax, encoding_plugin=_PLUGINS[str(syntax)], generate_instance_uid=False)
        frames, _ = _stored(dataset)
    except damaged(RuntimeError, UnusableInput):
        return False  # no encoder for this depth or colour
    return bool(dataset.PhotometricInterpretation == photometric and native.startswith(frames.tobytes()))
