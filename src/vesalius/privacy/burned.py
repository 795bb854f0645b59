"""Finding text that is burned into the frames of an image or series.

A frame is read by OCR where it may hold text that no frame before it held at the same place, so that a
thousand slices with one patient's name on all, one, or none of them cost a few readings. What is found is
then looked for in every other frame by its edges.

What may be text: many strong rising and falling edges close together, at three scales, along rows or along
columns. The first, middle and last frame are read in any case. Memory: a bit per pixel of the series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from vesalius.core.grid import Array
from vesalius.privacy.identity import within_edits
from vesalius.privacy.ocr import Box, Line, read_text

_STRONG = 0.18  # of the frame's whole range of values: an edge of text
_EDGES = 10  # rising and falling edges in a window that may hold text
_WINDOW = (8, 32)  # rows and columns of the window
_SAME = 0.6  # share of a text's edges that must stand in another frame for the same text
_MARGIN = 2  # pixels hidden around a text
_WINDOWED = 3.0  # a range so much wider than its central part is read a second time, narrowed

Frame = tuple[int, int]  # number of the file, number of the frame in it


@dataclass
class TextFinder:
    """Finds what text stands in the frames of one series.

    Args:
        sensitive: whether a text that was read must be hidden.
        always: frames that are read in any case.
    """

    sensitive: Callable[[str], bool]
    always: frozenset[Frame]
    read: int = 0
    _edges: dict[Frame, tuple[tuple[int, ...], bytes]] = field(default_factory=dict)
    _found: list[tuple[Frame, Box]] = field(default_factory=list)
    _before: tuple[Array, Array] | None = None

    def look(self, frame: Frame, picture: Array) -> None:
        """Take in a frame: (rows, columns), or (rows, columns, 3) of RGB; in the order of the series."""
        grey = _brightness(picture)
        edges, places = _edge_map(grey)
        new = places
        if self._before is not None and self._before[0].shape == edges.shape:
            new = places & _near(edges & ~_grown(self._before[0]))
        if frame in self.always or new.any() or (self._before and self._before[0].shape != edges.shape):
            self.read += 1
            for line in _lines(grey):
                if self.sensitive(line.text):
                    self._found.append((frame, _with_margin(line.box, grey.shape)))
        self._before = (edges, places)
        self._edges[frame] = (edges.shape, np.packbits(edges).tobytes())

    def boxes(self) -> dict[Frame, list[Box]]:
        """What must be hidden, by frame, once all frames were looked at."""
        hidden: dict[Frame, set[Box]] = {}
        for frame, box in self._found:
            hidden.setdefault(frame, set()).add(box)
        for frame, (shape, packed) in self._edges.items() if self._found else ():
            edges = _unpacked(shape, packed)
            for origin, box in self._found:
                if self._edges[origin][0] == shape and self._holds(origin, box, edges):
                    hidden.setdefault(frame, set()).add(box)
        return {frame: sorted(boxes, key=lambda box: (box.top, box.left)) for frame, boxes in hidden.items()}

    def _holds(self, origin: Frame, box: Box, edges: Array) -> bool:
        area = (slice(box.top, box.bottom), slice(box.left, box.right))
        wanted = _unpacked(*self._edges[origin])[area]
        if wanted.sum() < _EDGES:
            return True  # too faint to be recognised: hidden wherever it may stand
        return bool((wanted & _grown(edges[area])).sum() >= _SAME * wanted.sum())


def sensitive_reading(text: str, clean: Callable[[str], str], names: Iterable[str], numbers: Iterable[str]) -> bool:
    """Whether a text that was read holds an identifier, allowing for letters that OCR confuses.

    Args:
        text: as it was read.
        clean: the cleaner for texts of this patient.
        names: folded words of names.
        numbers: identifiers as written.
    """
    from vesalius.privacy.words import fold, vocabulary

    for form in (text, text.title()):
        if clean(form) != form:
            return True
    plain = _confused(fold(text))
    for name in names:
        target = _confused(name)
        if len(target) >= 4 and target in plain:
            return True
        for word in plain.split():
            if len(target) >= 4 and word not in vocabulary() and _reads_like(word, target):
                return True
    letters = plain.replace(" ", "")
    wanted = (_confused("".join(c for c in fold(number) if c.isalnum())) for number in numbers)
    return any(
        len(target) >= 5
        and (target in letters or (abs(len(letters) - len(target)) < 2 and within_edits(letters, target, 1)))
        for target in wanted
    )


def _reads_like(word: str, name: str) -> bool:
    """Whether a reading may be of a name: letters with accents, which the network does not know, read as any."""
    if within_edits(word, name, max(1, len(name) // 4)):
        return True
    return word[:1] == name[:1] and within_edits(word, name, len(name) // 3)


def _confused(text: str) -> str:
    """Letters and digits that look alike as one of them; everything else parts words."""
    swapped = text.translate(str.maketrans("01l5826g", "oiisbzbq"))
    return " ".join("".join(c if c.isalnum() else " " for c in swapped).split())


def _brightness(picture: Array) -> Array:
    """(rows, columns) as float32 between 0 and 1 over the whole range of the frame."""
    values = picture.max(axis=-1) if picture.ndim == 3 else picture
    values = values.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _lines(grey: Array) -> list[Line]:
    """What OCR reads over the whole range and, where a few values stretch that, over its central part."""
    lines = read_text((grey * 255).astype(np.uint8))
    low, high = (float(value) for value in np.percentile(grey, (1, 99)))
    if 0 < high - low < 1 / _WINDOWED:
        narrowed = np.clip((grey - low) / (high - low), 0, 1)
        lines += read_text((narrowed * 255).astype(np.uint8))
    return lines


def _edge_map(grey: Array) -> tuple[Array, Array]:
    """Strong edges, and where they stand as dense as in text: two (rows, columns) of bool."""
    across, down = np.diff(grey, axis=1, prepend=grey[:, :1]), np.diff(grey, axis=0, prepend=grey[:1])
    edges = (np.abs(across) > _STRONG) | (np.abs(down) > _STRONG)
    places = np.zeros_like(edges)
    for step in (1, 2, 4):
        if min(grey.shape) // step < _WINDOW[0]:
            break
        places |= _as_large(_dense(_shrunk(grey, step)), step, edges.shape)
    return edges, places


def _dense(grey: Array) -> Array:
    from scipy.ndimage import uniform_filter

    dense = np.zeros(grey.shape, bool)
    for axis, window in ((1, _WINDOW), (0, _WINDOW[::-1])):
        change = np.diff(grey, axis=axis, prepend=np.take(grey, [0], axis=axis))
        area = window[0] * window[1]
        rising = uniform_filter((change > _STRONG).astype(np.float32), window, mode="constant") * area
        falling = uniform_filter((change < -_STRONG).astype(np.float32), window, mode="constant") * area
        dense |= np.minimum(rising, falling) >= _EDGES
    return dense


def _shrunk(grey: Array, step: int) -> Array:
    rows, columns = (side // step * step for side in grey.shape)
    cut = grey[:rows, :columns]
    return cut.reshape(rows // step, step, columns // step, step).max(axis=(1, 3)) if step > 1 else cut


def _as_large(dense: Array, step: int, shape: tuple[int, ...]) -> Array:
    large = np.repeat(np.repeat(dense, step, axis=0), step, axis=1)
    return np.pad(large, [(0, size - have) for size, have in zip(shape, large.shape, strict=True)])


def _grown(edges: Array) -> Array:
    from scipy.ndimage import maximum_filter

    return np.asarray(maximum_filter(edges, 3))


def _near(edges: Array) -> Array:
    """Where new edges stand as dense as in a letter or two."""
    from scipy.ndimage import uniform_filter

    return np.asarray(uniform_filter(edges.astype(np.float32), 15) * 225 >= _EDGES)


def _unpacked(shape: tuple[int, ...], packed: bytes) -> Array:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def _with_margin(box: Box, shape: tuple[int, ...]) -> Box:
    return Box(
        max(box.top - _MARGIN, 0), max(box.left - _MARGIN, 0),
        min(box.bottom + _MARGIN, shape[0]), min(box.right + _MARGIN, shape[1]),
    )  # fmt: skip
