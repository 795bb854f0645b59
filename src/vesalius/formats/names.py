"""Names of inputs: the path below the argument, and the same without an image suffix."""

from __future__ import annotations

SUFFIXES = (
    ".seg.nii.gz", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpeg", ".jpg", ".tiff", ".tif",
    ".pgm", ".ppm", ".bmp", ".dcm", ".ima", ".zip",
)  # fmt: skip


def without_suffix(name: str) -> str:
    """The name without its image suffix; other dots are left alone."""
    lower = name.lower()
    suffix = next((suffix for suffix in SUFFIXES if lower.endswith(suffix) and len(lower) > len(suffix)), "")
    return name[: len(name) - len(suffix)]
