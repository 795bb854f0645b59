"""Reading text in a picture, with the PP-OCRv4 networks that lie inside the wheel of rapidocr-onnxruntime.

Detection gives a map of where text stands (Liao et al., Real-time scene text detection with differentiable
binarization, AAAI 2020), recognition reads each place from left to right (connectionist temporal
classification). Only the two networks are used; they run in ONNX Runtime like every other here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import MissingExtra
from vesalius.core.grid import Array

_SMALL_SIDE, _LARGEST_SIDE, _MOST_ENLARGED = 736, 1536, 6.0
_TEXT_FROM, _PLACE_FROM, _READ_FROM = 0.3, 0.5, 0.5
_GROWN = 1.6
_LINE_HEIGHT = 48
_LONGEST_LINE = 2400  # pixels after scaling to the line height


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels: rows top to bottom, columns left to right, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Line:
    """A line of text that was read, with the network's mean confidence from 0 to 1."""

    text: str
    box: Box
    score: float


def read_text(picture: Array) -> list[Line]:
    """The lines of text in a grey picture (rows, columns) of uint8; in no particular order.

    Raises:
        MissingExtra: the networks are not installed.
    """
    return [line for box in _places(picture) if (line := _read(picture, box)).score >= _READ_FROM and line.text.strip()]


def _places(picture: Array) -> list[Box]:
    from PIL import Image
    from scipy import ndimage

    rows, columns = picture.shape
    scale = min(_SMALL_SIDE / min(rows, columns), _LARGEST_SIDE / max(rows, columns), _MOST_ENLARGED)
    size = tuple(max(32, round(side * scale / 32) * 32) for side in (columns, rows))
    grey = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC), np.float32)
    network = (np.repeat(grey[None, None], 3, axis=1) / 255 - 0.5) / 0.5
    chances = _session("det").run(None, {"x": network})[0][0, 0]
    marked, _ = ndimage.label(ndimage.binary_dilation(chances > _TEXT_FROM, np.ones((2, 2))))
    across, down = columns / size[0], rows / size[1]
    boxes = []
    for number, (vertical, horizontal) in enumerate(ndimage.find_objects(marked), start=1):
        inside = marked[vertical, horizontal] == number
        if chances[vertical, horizontal][inside].mean() < _PLACE_FROM:
            continue
        height, width = inside.shape
        if min(height, width) < 3:
            continue
        grown = height * width * _GROWN / (2 * (height + width))
        boxes.append(
            Box(
                max(int((vertical.start - grown) * down), 0),
                max(int((horizontal.start - grown) * across), 0),
                min(int(np.ceil((vertical.stop + grown) * down)), rows),
                min(int(np.ceil((horizontal.stop + grown) * across)), columns),
            )
        )
    return [box for box in boxes if box.bottom > box.top and box.right > box.left]


def _read(picture: Array, box: Box) -> Line:
    crop = picture[box.top : box.bottom, box.left : box.right]
    turns = (1, 3) if crop.shape[0] > 1.5 * crop.shape[1] else (0,)
    readings = [_recognised(np.rot90(crop, turn)) for turn in turns]
    text, score = max(readings, key=lambda reading: reading[1])
    return Line(text, box, score)


def _recognised(crop: Array) -> tuple[str, float]:
    from PIL import Image

    width = max(_LINE_HEIGHT, min(round(crop.shape[1] * _LINE_HEIGHT / crop.shape[0]), _LONGEST_LINE))
    scaled = Image.fromarray(np.ascontiguousarray(crop)).resize((width, _LINE_HEIGHT), Image.Resampling.BICUBIC)
    network = (np.repeat(np.asarray(scaled, np.float32)[None, None], 3, axis=1) / 255 - 0.5) / 0.5
    chances = _session("rec").run(None, {"x": network})[0][0]
    best = chances.argmax(axis=1)
    letters = [
        (int(letter), float(chances[position, letter]))
        for position, letter in enumerate(best)
        if letter and (position == 0 or best[position - 1] != letter)
    ]
    if not letters:
        return "", 0.0
    alphabet = _alphabet()
    return "".join(alphabet[letter - 1] for letter, _ in letters), float(np.mean([chance for _, chance in letters]))


@cache
def _session(kind: str) -> Any:
    import onnxruntime

    package = find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        raise MissingExtra(
            "The networks that read text in pixels are not installed.",
            remedy="Run `pip install rapidocr-onnxruntime`, or choose `--pixels keep` where no pixel holds text.",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # many files are worked on side by side
    options.log_severity_level = 3
    path = Path(package.origin).parent / "models" / f"ch_PP-OCRv4_{kind}_infer.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@cache
def _alphabet() -> tuple[str, ...]:
    listed = _session("rec").get_modelmeta().custom_metadata_map["character"].splitlines()
    return (*listed, " ")
