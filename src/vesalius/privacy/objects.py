"""From identified DICOM files to de-identified ones: the files of one series, read twice and written once.

First every header is read for what it knows of the patient and every frame is searched for text; then each
file is cleaned and written: copied (`copying.py`) where its pixels stay as they are, decoded where text in them
is hidden or the file is laid out oddly. With `--pixels keep` no pixel is decoded and files are read once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array
from vesalius.formats.dicom_elements import NotPlain
from vesalius.formats.dicom_header import lenient
from vesalius.formats.dicom_pixels import decoded, open_whole
from vesalius.formats.dicom_values import damaged, text, whole
from vesalius.privacy.burned import Frame, TextFinder, sensitive_reading
from vesalius.privacy.codestream import strip_pixel_data
from vesalius.privacy.copying import FileCopier
from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.hiding import hide
from vesalius.privacy.ocr import Box, read_text
from vesalius.privacy.profile import Option, PixelMode

_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
_SHEET = re.compile(
    r"screen ?(?:save|shot|capture)|dose[ _-]?(?:report|info|sheet|record|summary)|patient[ _-]?protocol"
    r"|exam[ _-]?protocol|secondary[ _-]?capture|\bprotocol[ _]?page",
    re.IGNORECASE,
)

Hidden = dict[Frame, list[Box]]


@dataclass(frozen=True)
class Written:
    """What became of the files of a series.

    Args:
        hidden: rectangles by (file, frame).
        copied: whether every file's pixel data are the bytes that they were.
    """

    hidden: Hidden
    copied: bool


@dataclass
class SeriesCleaner:
    """De-identifies the files of one series, and then of others of the same patient.

    Args:
        header: for the patient of the series; it learns what each file knows.
    """

    header: HeaderCleaner
    _copier: FileCopier = field(init=False)
    _declared: bool = False

    def __post_init__(self) -> None:
        self._copier = FileCopier(self.header)

    def write(self, files: Sequence[Path], targets: Sequence[Path], pixels: PixelMode | None = None) -> Written:
        """Write each file de-identified.

        Args:
            files: as they came.
            targets: where to.
            pixels: what is done about text in pixels, where that is not what the profile says.

        Raises:
            UnusableInput: a header or its pixels are damaged, so that nobody can say what is in them.
        """
        mode = pixels or self.header.profile.pixels
        hidden: Hidden = {}
        if mode is not PixelMode.KEEP:
            hidden = self._search(files)
        copied = True
        for number, (file, target) in enumerate(zip(files, targets, strict=True)):
            boxes = {frame: boxes for (n, frame), boxes in hidden.items() if n == number}
            with lenient():
                try:
                    if boxes or not self._copy(file, target):
                        copied = False
                        dataset = open_whole(file)
                        self.clean(dataset, boxes)
                        dataset.save_as(target, enforce_file_format=True)
                except damaged() as error:
                    raise UnusableInput(
                        f"The DICOM header is damaged, so it cannot be de-identified ({type(error).__name__}).",
                        remedy="Send the object again from its source.",
                    ) from error
        return Written(hidden, copied)

    def _copy(self, file: Path, target: Path) -> bool:
        """Write the file without decoding its pixels, where that can be done."""
        if Option.GRAPHICS in self.header.profile.options:
            return False  # overlays are looked at
        try:
            self._copier.copy(file).write(target)
        except NotPlain:
            return False
        return True

    def clean(self, dataset: Any, boxes: dict[int, list[Box]]) -> None:
        """Header, streams, overlays and rectangles of one file, in place."""
        image = "PixelData" in dataset
        if Option.GRAPHICS in self.header.profile.options:
            _drop_overlays_with_text(dataset)
        if image:
            strip_pixel_data(dataset)  # before the header forgets that an overlay lies in the pixels
        self.header.clean(dataset)
        if boxes:
            hide(dataset, boxes)
        if image and self.header.profile.pixels is not PixelMode.KEEP:
            dataset.BurnedInAnnotation = "NO"

    def _search(self, files: Sequence[Path]) -> Hidden:
        with lenient():
            finder = TextFinder(self._sensitive, _always(files))
            for number, file in enumerate(files):
                try:
                    dataset = open_whole(file)
                    self.header.learn(dataset)
                    self._declared = text(dataset, "BurnedInAnnotation") == "YES"
                except damaged() as error:
                    raise UnusableInput(
                        f"The DICOM header is damaged, so it cannot be de-identified ({type(error).__name__}).",
                        remedy="Send the object again from its source.",
                    ) from error
                for index, picture in enumerate(pictures(dataset)):
                    finder.look((number, index), picture)
            return finder.boxes()

    def _sensitive(self, reading: str) -> bool:
        if self.header.profile.pixels is PixelMode.STRICT or self._declared:
            return True
        known = self.header.identity
        return sensitive_reading(reading, self.header.text.clean, known.names, known.numbers)


def _drop_overlays_with_text(dataset: Any) -> None:
    """Where graphics are kept, an overlay with any text, or one that does not decode, goes all the same."""
    for group in range(0x6000, 0x6020, 2):
        tags = [tag for tag in list(dataset.keys()) if tag.group == group]
        if not tags:
            continue
        try:
            bitmap = np.asarray(dataset.overlay_array(group))
            clear = not read_text((bitmap > 0).astype(np.uint8) * 255)
        except damaged():
            clear = False
        for tag in tags if not clear else ():
            del dataset[tag]


def pictures(dataset: Any) -> Iterator[Array]:
    """Each frame as it would be seen: (rows, columns), or (rows, columns, 3) of RGB, one decoded at a time.

    Raises:
        UnusableInput: the pixels do not decode.
    """
    from pydicom.pixels.processing import apply_color_lut

    if "PixelData" not in dataset:
        return
    palette = text(dataset, "PhotometricInterpretation") == "PALETTE COLOR"
    for frame in decoded(dataset, list(range(max(whole(dataset, "NumberOfFrames"), 1)))):
        if palette and frame.ndim == 2:
            try:
                frame = np.asarray(apply_color_lut(frame, dataset))[..., :3]
            except damaged() as error:
                raise UnusableInput("Its colour table is damaged.", remedy="Export it again.") from error
        yield frame


def is_secondary(sop_class: str, descriptions: Sequence[str]) -> bool:
    """Whether an object is a secondary capture, a screenshot or a dose sheet rather than an acquisition."""
    return sop_class.startswith(_SECONDARY) or any(_SHEET.search(words) for words in descriptions)


def _always(files: Sequence[Path]) -> frozenset[Frame]:
    """The first, middle and last frame of the series."""
    if len(files) > 1:
        return frozenset({(0, 0), (len(files) // 2, 0), (len(files) - 1, 0)})
    from pydicom import dcmread

    head = dcmread(files[0], force=True, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
    count = max(whole(head, "NumberOfFrames"), 1)
    return frozenset({(0, 0), (0, count // 2), (0, count - 1)})
