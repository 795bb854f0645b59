"""Text in images that come without a header to tell who the patient is: PNG, JPEG, TIFF, NIfTI, NRRD.

What may stand in such a picture is short markers, numbers and terms of imaging; any other text is hidden,
because nothing says that it is harmless.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from vesalius.core.grid import Array
from vesalius.formats.scan import Scan
from vesalius.privacy.burned import TextFinder
from vesalius.privacy.profile import PixelMode
from vesalius.privacy.words import fold, vocabulary

_HARMLESS = re.compile(r"^(?:\w{1,3}|[+-]?\d{1,4}(?:[.,:]\d{1,3})?[a-zA-Z%°/]{0,4})$")


def hide_in_array(array: Array, scan: Scan, patient: str, mode: PixelMode) -> Array:
    """The array (channels, i, j, k) with text filled by its darkest value; the same array where none is found.

    A volume without a header comes from a converter, which does not draw into slices: it is read only when
    the mode is strict, so that no anatomy is ever taken for writing.
    """
    plane = array.shape[3] == 1
    if mode is PixelMode.KEEP or (mode is PixelMode.CLEAN and not plane):
        return array
    told = {fold(word) for word in re.findall(r"[^\W\d_]{3,}", f"{patient} {PurePosixPath(scan.name).name}")}

    def sensitive(reading: str) -> bool:
        words = re.findall(r"[\w.,:%°/+-]+", reading)
        return mode is PixelMode.STRICT or not all(_is_harmless(word, told) for word in words)

    finder = TextFinder(sensitive, frozenset({(0, 0)} if plane else ()))
    for k in range(array.shape[3]):
        shown = array[..., k].transpose(2, 1, 0)
        finder.look((0, k), shown if shown.shape[2] == 3 else shown[..., 0])
    boxes = finder.boxes()
    if not boxes:
        return array
    covered = array.copy()
    for (_, k), rectangles in boxes.items():
        for box in rectangles:
            covered[:, box.left : box.right, box.top : box.bottom, k] = array[..., k].min()
    return covered


def _is_harmless(word: str, told: set[str]) -> bool:
    if fold(word) in told - vocabulary():
        return False
    return bool(_HARMLESS.match(word)) or fold(word.strip(".,:")) in vocabulary()
