"""Pixel spacing of plane images, which each modality states elsewhere."""

from __future__ import annotations

from vesalius.formats.dicom_header import Header


def plane_spacing(header: Header) -> tuple[tuple[float, float], str, str]:
    """Spacing along i and j, its unit, and where it was found.

    Pixel Spacing is calibrated; Imager Pixel Spacing holds at the detector and is divided by the estimated
    magnification where that is stated (PS3.3 10.7, C.8.7.1); ultrasound states it for regions (C.8.5.5).
    Where nothing says, the unit is "pixel" and only the aspect ratio counts.
    """
    rows, columns = header.frames[0].spacing or (0.0, 0.0)
    if rows > 0 and columns > 0:
        return (columns, rows), "mm", "PixelSpacing"
    for key in ("Detector", "Region"):
        rows = float(header.attributes.get(f"{key}RowSpacing", 0.0))
        columns = float(header.attributes.get(f"{key}ColumnSpacing", 0.0))
        if rows > 0 and columns > 0:
            return (columns, rows), "mm", key
    aspect = float(header.attributes.get("PixelAspect", 1.0))
    return (1.0, aspect if aspect > 0 else 1.0), "pixel", "nothing"
