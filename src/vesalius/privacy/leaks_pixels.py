"""The reader before a share, for text in pixels: RapidOCR's own pipeline on a sample of what an image shows.

Of a series or volume are read: the brightest value of each pixel over all slices, in which a text stands that is
burned into any one of them, its first slice and one from its middle. Neither the sampling nor the pipeline around the
networks is that of the de-identifier.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import MissingExtra
from vesalius.core.grid import Array
from vesalius.formats.dicom_values import damaged
from vesalius.privacy.leaks_text import Known, suspicious

_SURE = 0.5
_SMALLEST = 24  # pixels: no text can be read below
_NAME = re.compile(r"\b[A-ZÄÖÜ]{3,}\s?[,^]\s?[A-ZÄÖÜ][A-Za-zäöüß]{2,}")
_NUMBER = re.compile(r"(?<![\d.,])\d{7,}(?![\d.,])")


def pixel_leaks(path: Path, known: Known) -> Iterator[tuple[str, str]]:
    """(slice, kind) of text that identifies in a DICOM file, a folder of them, a NIfTI or a PNG file."""
    seen: set[str] = set()
    try:
        for place, picture in _sample(_frames(path)):
            for line in _read(picture):
                for kind in sorted(kinds_of_reading(line, known) - seen):
                    seen.add(kind)
                    yield place, kind
    except damaged(RuntimeError, OSError):
        yield "the pixels", "data that cannot be read, so that nobody can vouch for them"


def kinds_of_reading(text: str, known: Known) -> set[str]:
    """What a text that was read in a picture gives away; any date counts, as do long numbers and NAME, Given."""
    found = suspicious(text, numbers=False, latest=None) | known.in_text(text)
    if _NAME.search(text):
        found.add("a name")
    if _NUMBER.search(text):
        found.add("a long number")
    plain = _folded(text)
    if any(len(word) >= 5 and _folded(word) in plain for word in known.words):
        found.add("the original identifier of a patient")
    return {f"{kind}, in the picture" for kind in found}


def _folded(text: str) -> str:
    """Small letters and digits alone; letters and digits that OCR confuses as one of them."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in plain if c.isalnum()).translate(str.maketrans("01l58", "oiisb"))


def _sample(frames: Iterator[tuple[str, Array]]) -> Iterator[tuple[str, Array]]:
    """First frame, one from the middle, and the brightest of all, of each size; few frames held at a time."""
    kept: dict[tuple[int, ...], list[Any]] = {}
    for place, frame in frames:
        if min(frame.shape) < _SMALLEST:
            continue
        entry = kept.setdefault(frame.shape, [(place, frame), (place, frame), frame.copy(), 0])
        entry[3] += 1
        if entry[3] & (entry[3] - 1) == 0:  # 1, 2, 4, 8 ...: the last of these lies in the later half
            entry[1] = (place, frame)
        np.maximum(entry[2], frame, out=entry[2])
    for first, middle, brightest, count in kept.values():
        yield first
        if count > 1:
            yield "all slices together", brightest
        if count > 2:
            yield middle


def _frames(path: Path) -> Iterator[tuple[str, Array]]:
    """(place, rows x columns) of every frame, as stored; colours by their brightest."""
    if path.is_dir():
        for number, file in enumerate(sorted(path.iterdir()), start=1):
            for place, frame in _dicom_frames(file):
                yield f"file {number}, {place}", frame
    elif path.name.endswith((".nii", ".nii.gz")):
        import nibabel

        volume = np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
        volume = volume.reshape(*volume.shape[:2], -1)
        for k in range(volume.shape[2]):
            yield f"slice {k}", np.nan_to_num(np.asarray(volume[:, :, k], np.float32)).T
    elif path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture, np.float32)
        yield "the picture", pixels.max(axis=-1) if pixels.ndim == 3 else pixels
    else:
        yield from _dicom_frames(path)


def _dicom_frames(file: Path) -> Iterator[tuple[str, Array]]:
    import pydicom

    dataset = pydicom.dcmread(file)
    if "PixelData" not in dataset:
        return
    pixels = dataset.pixel_array
    colour = int(dataset.get("SamplesPerPixel") or 1) > 1
    single = pixels.ndim == (3 if colour else 2)
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    for number, frame in enumerate([pixels] if single else pixels):
        grey = np.asarray(frame, np.float32).max(axis=-1) if colour else np.asarray(frame, np.float32)
        yield f"frame {number + 1}", -grey if inverted else grey


def _read(picture: Array) -> Iterator[str]:
    """The lines of text in a picture, over its whole range of values and over the range of most of them."""
    low, high = float(picture.min()), float(picture.max())
    ranges = [(low, high)]
    narrow = tuple(float(value) for value in np.percentile(picture, (1, 99)))
    if 0 < narrow[1] - narrow[0] < (high - low) / 3:
        ranges.append((narrow[0], narrow[1]))
    for darkest, brightest in ranges:
        if brightest <= darkest:
            continue
        grey = (np.clip((picture - darkest) / (brightest - darkest), 0, 1) * 255).astype(np.uint8)
        lines, _ = _engine()(np.repeat(grey[..., None], 3, axis=2), use_cls=False)
        yield from (str(text) for _, text, score in lines or () if float(score) >= _SURE)


@cache
def _engine() -> Any:
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise MissingExtra(
            "The networks that read text in pixels are not installed.",
            remedy="Run `pip install rapidocr-onnxruntime`.",
        ) from error
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)
