"""Names of inputs: the path below the argument, and the same without an image suffix."""

from __future__ import annotations

import re
from pathlib import Path

SUFFIXES = (
    ".seg.nii.gz", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpeg", ".jpg", ".tiff", ".tif",
    ".pgm", ".ppm", ".bmp", ".dcm", ".ima", ".zip", ".npz",
)  # fmt: skip


# How masks are called that lie beside their images: scan_mask.png, scan_seg.nii.gz, "scan_mask_1.png".
MASK_ENDING = re.compile(
    r"[-_. ](?:mask|seg|segmentation|label|labels|labelmap|gt|truth)(?:[-_ ]?\d{1,2})?$", re.IGNORECASE
)


def volume_of(name: str) -> tuple[str, str]:
    """A name and which of the volumes in it is meant: ("a.nii.gz", "2") of "a.nii.gz#2", "" where there is one."""
    found = re.fullmatch(r"(.+)#(\d+(?:\.\d+)?)", name)
    return (found[1], found[2]) if found else (name, "")


def is_mask_of_a_neighbour(path: Path) -> bool:
    """Whether a file is called like an image beside it with an ending such as `_mask`: truth, never an input."""
    bare = bare_mask_name(path)
    return bool(bare) and any(path.with_name(bare + suffix).exists() for suffix in SUFFIXES)


def bare_mask_name(path: Path) -> str:
    """The name without suffix and without an ending such as `_mask`; "" where it has no such ending."""
    plain = without_suffix(path.name)
    bare = MASK_ENDING.sub("", plain)
    return bare if bare != plain else ""


def without_suffix(name: str) -> str:
    """The name without its image suffix; other dots are left alone."""
    lower = name.lower()
    suffix = next((suffix for suffix in SUFFIXES if lower.endswith(suffix) and len(lower) > len(suffix)), "")
    return name[: len(name) - len(suffix)]
