"""The owner's page with heads before and after their face was removed.

It shows faces. It is written onto the owner's own disk, readable by the owner only, and is part of no cohort, no
evaluation report and no shared file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from vesalius import __version__
from vesalius.core.grid import Array, Grid
from vesalius.core.report import Picture
from vesalius.reporting.pictures import data_uri
from vesalius.store.files import write_bytes

if TYPE_CHECKING:
    from vesalius.privacy.faces import Defaced

MOST = 20  # heads that are drawn; the table has all
_LARGER = 2  # pixels of the picture for each place of a map of depths


@dataclass(frozen=True)
class FaceView:
    """One head: its figures, and pictures of the surface and the middle slice, before and after.

    Args:
        name: id of the image in the cohort.
        figures: as `privacy.faces.Defaced` has them.
        pictures: empty for all but the first heads.
    """

    name: str
    figures: Mapping[str, float]
    pictures: tuple[Picture, ...]


@dataclass
class FaceAlbum:
    """Collects heads while they lose their face; keeps small pictures, never a volume."""

    views: list[FaceView] = field(default_factory=list)

    def take(self, name: str, array: Array, grid: Grid, found: Defaced) -> None:
        """Take one head.

        Args:
            name: id of the image.
            array: (i, j, k) before.
            grid: of the scan.
            found: its face, removed.
        """
        drawn = _pictures(array, grid, found) if len(self.views) < MOST else ()
        self.views.append(FaceView(name, dict(found.figures), drawn))


def write_face_page(path: Path, album: FaceAlbum, counts: Mapping[str, int], left_out: int) -> Path:
    """Write the page, readable by its owner only; its path.

    Args:
        path: of the page.
        album: the heads.
        counts: what was done, in words, with how many images.
        left_out: images that were not shared since their face could not be removed with certainty.
    """
    page = _template().render(
        views=[(view, [(picture.caption, data_uri(picture)) for picture in view.pictures]) for view in album.views],
        drawn=sum(bool(view.pictures) for view in album.views),
        counts=dict(counts),
        left_out=left_out,
        version=__version__,
    )
    write_bytes(path, page.encode("utf-8"), mode=0o600)
    return path


def _pictures(array: Array, grid: Grid, found: Defaced) -> tuple[Picture, ...]:
    """Surface and slice before and after; the outline of either is found in its own voxels alone."""
    from vesalius.privacy.face_views import sagittal

    slices = [sagittal(one, grid, found.pose) for one in (array, found.array)]
    low, high = np.percentile(slices[0], (2.0, 99.0))
    shown = [
        ("surface before", _surface(array, grid, found)),
        ("surface after", _surface(found.array, grid, found)),
        *(
            (f"middle slice {when}", _grey(one, low, high))
            for when, one in zip(("before", "after"), slices, strict=True)
        ),
    ]
    return tuple(Picture(caption, pixels) for caption, pixels in shown)


def _surface(array: Array, grid: Grid, found: Defaced) -> Array:
    from vesalius.imaging.registration import Volume
    from vesalius.privacy.face_views import depths, shaded
    from vesalius.privacy.faces import kind_of
    from vesalius.privacy.head_outline import tissue_of

    soft = np.clip(array, -1000, 150) if kind_of(array, "") == "CT" else array
    scan = Volume.of_scan(soft, grid)
    outline = Volume(tissue_of(scan).astype(np.float32), scan.grid)
    seen = shaded(depths(outline, None, grid, found.pose))[0].T
    return _coloured(np.kron(seen, np.ones((_LARGER, _LARGER), np.uint8)))


def _grey(values: Array, low: float, high: float) -> Array:
    """(y, z) values as a picture with the head upright, its face to the left."""
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0) * 255
    return _coloured(np.ascontiguousarray(scaled.T[::-1]).astype(np.uint8))


def _coloured(grey: Array) -> Array:
    return np.repeat(grey[..., None], 3, axis=2)


@cache
def _template() -> Template:
    loader = PackageLoader("vesalius.reporting", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("faces.html")
