"""An identified acquisition as it came in, and an input that was refused.

Nothing here is de-identified. Only `formats`, `privacy`, `steps/ingest`, `steps/predict` and `clinic` may see
a `Scan`; what learning sees is a `core.case.Case`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Grid
from vesalius.core.image import Pixels

Attribute = str | float

# More voxels than any scanner makes in one volume; a header that declares more is damaged or hostile.
MAX_VOXELS = 2**31


@dataclass(frozen=True)
class Scan:
    """One volume or plane image, identified, with lazy pixels.

    Args:
        name: path below the argument it was found under, with suffix, "/"-separated. A DICOM series has the
            path of its folder. "#<n>" is added where one file or folder holds several volumes.
        files: source files in slice order (one file may hold all slices).
        source: "dicom", "nifti", "nrrd" or "raster".
        patient: PatientID, else name and birth date; "" for files without a header that says it.
        study: StudyInstanceUID, "" for plain files.
        series: SeriesInstanceUID, "" for plain files.
        modality: DICOM modality, "" where unknown.
        grid: where the voxels stand.
        channels: 1 for grey, 3 for colour.
        attributes: what role rules look at, such as SeriesDescription, EchoTime or ViewPosition.
        pixels: `read()` gives (channels, i, j, k) in real-world values and raises `UnusableInput` where the
            pixel data turn out to be damaged.
        answers: what comes with the image and becomes covariates of its case: class labels, the given part.
    """

    name: str
    files: tuple[Path, ...]
    source: str
    patient: str
    study: str
    series: str
    modality: str
    grid: Grid
    channels: int
    pixels: Pixels
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    instances: tuple[str, ...] = ()
    answers: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """An input that is set aside: why, and what the user can do. Neither sentence holds an identifier."""

    name: str
    files: tuple[Path, ...]
    reason: str
    remedy: str

    @classmethod
    def because(cls, name: str, files: tuple[Path, ...], error: UnusableInput) -> Refused:
        """The refusal that an error explains."""
        return cls(name, files, error.what, error.remedy)


@dataclass(frozen=True)
class Companion(Refused):
    """A DICOM object beside images: a report, an outline, a plan, a waveform. It is no image, and refused as one.

    Args:
        kind: what it is.
        patient: identified, as of a `Scan`.
        study, instance: UIDs.
    """

    kind: str = ""
    patient: str = ""
    study: str = ""
    instance: str = ""


def check_size(shape: tuple[int, ...]) -> None:
    """Refuse sizes below 1 and volumes larger than any scanner makes.

    Raises:
        UnusableInput: the header declares such a size.
    """
    total = 1
    for size in shape:
        total *= int(size)
    if min(shape, default=0) < 1:
        raise UnusableInput("The header declares an empty image.", remedy="Export it again from its source.")
    if total > MAX_VOXELS:
        raise UnusableInput(
            f"The header declares {total:.2g} values in one volume, more than can be read.",
            remedy="Check the header; a larger image must be cropped or split first.",
        )
