"""Names of inputs: the path below the argument, and the same without an image suffix."""

from __future__ import annotations

import re

SUFFIXES = (
    ".seg.nii.gz", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpeg", ".jpg", ".tiff", ".tif",
    ".pgm", ".ppm", ".bmp", ".dcm", ".ima", ".zip",
)  # fmt: skip


def volume_of(name: str) -> tuple[str, str]:
    """A name and which of the volumes in it is meant: ("a.nii.gz", "2") of "a.nii.gz#2", "" where there is one."""
    found = re.fullmatch(r"(.+)#(\d+(?:\.\d+)?)", name)
    return (found[1], found[2]) if found else (name, "")


def without_suffix(name: str) -> str:
    """The name without its image suffix; other dots are left alone."""
    lower = name.lower()
    suffix = next((suffix for suffix in SUFFIXES if lower.endswith(suffix) and len(lower) > len(suffix)), "")
    return name[: len(name) - len(suffix)]
