"""Pictures as data that stands inside the page."""

from __future__ import annotations

import base64
import io

from PIL import Image as Raster

from vesalius.core.report import Picture


def png(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    Raster.fromarray(picture.pixels).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def data_uri(picture: Picture) -> str:
    """The picture as a `data:` address for an `<img>`."""
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode('ascii')}"
