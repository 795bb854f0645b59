"""Decode DICOM pixel data into real-world values or colours.

Standard: PS3.3 C.7.6.3 (pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT); PS3.5 section 8 (encapsulation).
Decoders: pydicom's own, Pillow (JPEG), pyjpegls (JPEG-LS), pylibjpeg-openjpeg (JPEG 2000), GDCM (lossless and
12-bit JPEG, and where the others cannot). pylibjpeg-libjpeg (GPL) is never used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array
from vesalius.formats.dicom_header import PatientFile, lenient
from vesalius.formats.dicom_syntaxes import NATIVE, PLUGINS
from vesalius.formats.dicom_values import text, value, whole
from vesalius.formats.gdcm_apart import decode_apart
from vesalius.formats.values import rescaled

# Projection images carry their grey scale in look-up tables rather than in a physical unit.
PROJECTION = ("CR", "DX", "MG", "XA", "RF", "IO", "PX", "RG", "XC", "OT")

_AGAIN = "Export it again from its source, uncompressed if it can be."


@dataclass(frozen=True, slots=True)
class Source:
    """A frame in a file, with the scaling that its header states."""

    path: str
    index: int
    slope: float
    intercept: float


@dataclass(frozen=True)
class DicomPixels:
    """The frames of one volume, in the order of its k axis.

    Args:
        sources: one for each slice.
        size: columns, rows.
        colour: three values per pixel.
        plane: a plane image (or film): look-up tables and MONOCHROME1 are applied to each frame.
        keep: holds the folder of an unpacked archive while this exists.
    """

    sources: tuple[Source, ...]
    size: tuple[int, int]
    colour: bool
    plane: bool
    keep: object = None

    def read(self) -> Array:
        """(channels, i, j, k): rescaled values, or RGB from 0 to 255.

        Memory: the volume, one file, and once more the volume while whole-number scaling is applied.

        Raises:
            UnusableInput: a frame is damaged, cut off, or packed in a way that no decoder here reads.
        """
        scalings = {(source.slope, source.intercept) for source in self.sources}
        uniform = scalings.pop() if len(scalings) == 1 and not self.plane and not self.colour else None
        volume: Array | None = None
        k = 0
        for path, frames in groupby(self.sources, key=lambda source: source.path):
            chosen = list(frames)
            for source, frame in zip(chosen, self._frames(path, chosen), strict=True):
                if uniform is None and not self.plane and not self.colour:
                    frame = frame * np.float32(source.slope) + np.float32(source.intercept)
                volume = self._place(volume, frame, k, whole_number=uniform is not None)
                k += 1
        assert volume is not None
        return volume if uniform is None else rescaled(volume, *uniform)

    def _place(self, volume: Array | None, frame: Array, k: int, *, whole_number: bool) -> Array:
        """Put a frame (rows, columns[, 3]) into the volume at k, widening its type where that is needed."""
        columns, rows = self.size
        channels = 3 if self.colour else 1
        expected = (rows, columns, 3) if self.colour else (rows, columns)
        if frame.shape != expected:
            raise UnusableInput(
                f"A frame holds {frame.shape} pixels where the header declares {expected}.", remedy=_AGAIN
            )
        if volume is None:
            kind = frame.dtype.newbyteorder("=") if frame.dtype != np.float64 else np.dtype(np.float32)
            volume = np.zeros((channels, columns, rows, len(self.sources)), kind, order="F")
        elif volume.dtype != frame.dtype and frame.dtype != np.float64:
            wide = np.result_type(volume, frame)
            volume = volume.astype(wide if whole_number or wide.kind != "f" else np.float32)
        volume[..., k] = frame.transpose(2, 1, 0) if self.colour else frame.T[None]
        return volume

    def _frames(self, path: str, sources: list[Source]) -> Iterator[Array]:
        with lenient():
            try:
                dataset = open_whole(Path(path))
                for frame in decoded(dataset, [source.index for source in sources]):
                    yield self._finished(dataset, frame)
            except (UnusableInput, ImportError):
                raise
            except Exception as error:  # decoders raise nearly anything on damaged data
                raise UnusableInput(
                    "Its pixel data are damaged, cut off, or packed in a way that cannot be read.", remedy=_AGAIN
                ) from error

    def _finished(self, dataset: Any, frame: Array) -> Array:
        if self.colour:
            return _coloured(dataset, frame)
        return plane_values(dataset, frame) if self.plane else frame


def open_whole(path: Path) -> Any:
    """A data set with its pixels, and with a transfer syntax also where the file states none."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    with PatientFile(path) as opened:
        dataset = dcmread(opened, force=True)
    if not text(dataset.file_meta, "TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def decoded(dataset: Any, indices: list[int]) -> Iterator[Array]:
    """Frames of stored values (rows, columns), or (rows, columns, 3) in RGB, one decoded at a time."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    if syntax in NATIVE and whole(dataset, "BitsAllocated") == 1:
        for index in indices:
            yield _bits(dataset, index)
        return
    if syntax in NATIVE:
        for frame, _ in decoder.iter_array(dataset, indices=indices):
            yield np.asarray(frame)
        return
    plugins = [name for name in PLUGINS.get(str(syntax), ()) if name in decoder.available_plugins]
    if not plugins:
        raise UnusableInput("Its pixel data are compressed in a way that no installed decoder reads.", remedy=_AGAIN)
    if plugins == ["gdcm"]:
        yield from decode_apart(dataset.filename, indices)
        return
    for index in indices:
        yield _first_that_decodes(decoder, dataset, index, plugins)


def _bits(dataset: Any, index: int) -> Array:
    """One frame of packed bits, the lowest bit first; frames follow each other without padding (PS3.5 8.1.1)."""
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    start, stop = index * rows * columns, (index + 1) * rows * columns
    packed = np.frombuffer(dataset.PixelData, np.uint8)[start // 8 : (stop + 7) // 8]
    bits = np.unpackbits(packed, bitorder="little")[start % 8 :][: stop - start]
    return bits.reshape(rows, columns)


def _first_that_decodes(decoder: Any, dataset: Any, index: int, plugins: list[str]) -> Array:
    problem: Exception | None = None
    for plugin in plugins:
        try:
            if plugin == "gdcm":
                return next(decode_apart(dataset.filename, [index]))
            return np.asarray(decoder.as_array(dataset, index=index, decoding_plugin=plugin)[0])
        except Exception as error:  # the next decoder may read it; the last error is told
            problem = error
    raise UnusableInput("A frame of its compressed pixel data is damaged.", remedy=_AGAIN) from problem


def _coloured(dataset: Any, frame: Array) -> Array:
    """RGB as uint8 from palette indices or from RGB of any depth: (rows, columns, 3)."""
    from pydicom.pixels.processing import apply_color_lut

    if frame.ndim == 2:
        frame = np.asarray(apply_color_lut(frame, dataset))[..., :3]
    if frame.dtype == np.uint8:
        return frame
    bits = 16 if text(dataset, "PhotometricInterpretation") == "PALETTE COLOR" else whole(dataset, "BitsStored")
    return (frame.astype(np.uint32) >> max(bits - 8, 0)).astype(np.uint8)


def plane_values(dataset: Any, stored: Array) -> Array:
    """Grey values of a plane image, brighter for more signal as MONOCHROME2 shows it: (rows, columns).

    Applied in this order: modality LUT or rescale, a VOI look-up table or sigmoid (a linear window only clips
    and is left out), and the inversion that MONOCHROME1 stands for.
    """
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    modality = text(dataset, "Modality")
    inverted = text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    bits, signed = whole(dataset, "BitsStored") or 16, whole(dataset, "PixelRepresentation") == 1
    if value(dataset, "ModalityLUTSequence"):
        values = np.asarray(apply_modality_lut(stored, dataset))
        top = (1 << (16 if values.dtype.itemsize > 1 else 8)) - 1
    else:
        if inverted and stored.dtype.kind in "iu" and not _voi(dataset):
            ends = -1 if signed else (1 << bits) - 1
            stored, inverted = (ends - stored.astype(np.int64)).astype(stored.dtype), False
        slope, intercept = _scaling(dataset)
        values = rescaled(stored, slope, intercept)
        top = (1 << bits) - 1
    if modality in PROJECTION and _voi(dataset):
        values = np.asarray(apply_voi_lut(values, dataset))
        sequence = value(dataset, "VOILUTSequence")
        top = (1 << int(sequence[0].LUTDescriptor[2])) - 1 if sequence else top
    if inverted:
        values = (top - values.astype(np.float32)).astype(values.dtype)
    return values.astype(np.float32) if values.dtype == np.float64 else values


def _voi(dataset: Any) -> bool:
    sigmoid = text(dataset, "VOILUTFunction") == "SIGMOID" and value(dataset, "WindowCenter") is not None
    return bool(value(dataset, "VOILUTSequence")) or sigmoid


def _scaling(dataset: Any) -> tuple[float, float]:
    slope, intercept = value(dataset, "RescaleSlope"), value(dataset, "RescaleIntercept")
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))
