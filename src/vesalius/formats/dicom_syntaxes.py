"""Transfer syntaxes: which are plain, which decoders read the packed ones, which are not read.

UIDs: PS3.6 annex A. Decoder names are pydicom's plug-ins; "pylibjpeg" is used for JPEG 2000 only, where it
stands for pylibjpeg-openjpeg (its JPEG part, pylibjpeg-libjpeg, is GPL).
"""

from __future__ import annotations

DEFLATED = "1.2.840.10008.1.2.1.99"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", DEFLATED, "1.2.840.10008.1.2.2")

_JPEG = "1.2.840.10008.1.2.4."
_EXTENDED = f"{_JPEG}51"

PLUGINS: dict[str, tuple[str, ...]] = {
    f"{_JPEG}50": ("pillow", "gdcm"),
    _EXTENDED: ("pillow", "gdcm"),
    f"{_JPEG}57": ("gdcm",),
    f"{_JPEG}70": ("gdcm",),
    f"{_JPEG}80": ("pyjpegls",),
    f"{_JPEG}81": ("pyjpegls",),
    f"{_JPEG}90": ("pylibjpeg",),
    f"{_JPEG}91": ("pylibjpeg",),
    f"{_JPEG}201": ("pylibjpeg",),
    f"{_JPEG}202": ("pylibjpeg",),
    f"{_JPEG}203": ("pylibjpeg",),
    "1.2.840.10008.1.2.5": ("pydicom",),
}


def is_readable(syntax: str, bits_stored: int) -> bool:
    """Whether pixel data of this transfer syntax can be decoded; "" (no meta header) means plain.

    Left out: video (MPEG, HEVC), JPEG XL, and lossy JPEG of 12 bits, for which no decoder with a suitable
    licence gives trustworthy values.
    """
    if syntax == _EXTENDED:
        return bits_stored <= 8
    return not syntax or syntax in NATIVE or syntax in PLUGINS
