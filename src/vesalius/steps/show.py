"""show: what is in a cohort, as figures, as a table, and as a contact sheet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.grid import Array, reorient
from vesalius.core.progress import Progress, Silent

_TILE = 128  # pixels of one picture of the contact sheet
_SHOWN = 24  # cases on the contact sheet


@dataclass(frozen=True)
class Overview:
    """What is in a cohort."""

    figures: dict[str, Any]
    sheet: Path | None
    sources: dict[str, str]

    def __str__(self) -> str:
        lines = []
        for name, value in self.figures.items():
            if isinstance(value, dict):
                value = ", ".join(f"{key} {count}" for key, count in value.items()) or "none"
            lines.append(f"{name.replace('_', ' '):>16}  {value}")
        if self.sheet:
            lines.append(f"{'contact sheet':>16}  {self.sheet}")
        lines += [f"{image}  {name}" for name, image in self.sources.items()]
        return "\n".join(lines)


def show(
    cohort: str | Path | Cohort,
    *,
    sources: str | Path | None = None,
    sheet: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Overview:
    """Count what is in a cohort and draw its contact sheet to `reports/contact_sheet.png`.

    Args:
        cohort: the cohort or its folder.
        sources: folder of the identified files; says which of them became which image, for who has both the
            files and the key.
        sheet: draw the contact sheet.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told how far the work is.

    Raises:
        StoreError: there is no cohort.
        UsageError: `sources` does not exist.
    """
    from vesalius.privacy import audit
    from vesalius.store.cohort import open_cohort

    progress = progress or Silent()
    folder = cohort.folder if isinstance(cohort, Cohort) else Path(cohort)
    study = open_cohort(folder)
    if sources is not None:
        audit.enter(folder, "show sources", cases=len(study))
    matched = _match_sources(folder, Path(sources)) if sources is not None else {}
    figures = _figures(study)
    path = None
    if sheet and len(study):
        path = folder / "reports" / "contact_sheet.png"
        _write_sheet(study, path, progress)
    progress.note(**figures, contact_sheet=str(path) if path else None, **({"sources": matched} if matched else {}))
    return Overview(figures, path, matched)


def _figures(cohort: Cohort) -> dict[str, Any]:
    from vesalius.store.cohort import quarantine

    images = [image for case in cohort for image in case.images]
    aside = quarantine(cohort.folder)
    spacings = Counter("x".join(f"{value:.2g}" for value in image.grid.spacing) for image in images)
    sizes = [image.grid.shape for image in images]
    split = cohort.split
    return {
        "name": cohort.name,
        "cases": len(cohort),
        "patients": len(cohort.patients),
        "images": len(images),
        "quarantined": len(aside),
        "modalities": dict(Counter(image.modality or "unknown" for image in images)),
        "roles": dict(Counter(image.role for image in images)),
        "spacings": dict(spacings.most_common(5)),
        "sizes": f"{tuple(np.min(sizes, axis=0).tolist())} to {tuple(np.max(sizes, axis=0).tolist())}" if sizes else "",
        "labelled": sum(case.label_image is not None for case in cohort),
        "classes": {str(entry.value): entry.name for entry in cohort.labels},
        "covariates": sorted({name for case in cohort for name in case.covariates}),
        "split": dict(Counter(split.parts.values())) if split else {},
        "quarantine": dict(Counter(entry["reason"] for entry in aside)),
    }


def _match_sources(folder: Path, files: Path) -> dict[str, str]:
    """Image by name of the file or series that it came from."""
    from vesalius.formats.find import find_scans
    from vesalius.privacy.pseudonyms import Pseudonyms, load_key
    from vesalius.store.cohort import sources

    if not files.exists():
        raise UsageError("This folder does not exist.", remedy="Check its spelling.", file=files)
    pseudonyms = Pseudonyms(load_key())
    known = sources(folder)
    matched = {}
    for scan in find_scans(files):
        images = known.get(pseudonyms.source(scan.name), [])
        if images:
            matched[scan.name] = images[0]
    return matched


def _write_sheet(cohort: Cohort, path: Path, progress: Progress) -> None:
    """The middle slice of the first cases, with the outline of their masks, side by side."""
    from PIL import Image as Picture

    from vesalius.store.files import write_beside

    chosen = [case for case in cohort if case.images][:_SHOWN]
    columns = min(6, max(1, len(chosen)))
    rows = -(-len(chosen) // columns)
    canvas = np.full((rows * _TILE, columns * _TILE, 3), 16, dtype=np.uint8)
    for number, case in enumerate(progress.track(chosen, "Drawing the contact sheet", len(chosen))):
        top, left = (number // columns) * _TILE, (number % columns) * _TILE
        canvas[top : top + _TILE, left : left + _TILE] = _tile(case)
    write_beside(path, lambda beside: Picture.fromarray(canvas).save(beside))


def _tile(case: Case) -> Array:
    """A case's middle slice (the one with most of its mask), (tile, tile, 3) uint8."""
    from PIL import Image as Picture
    from scipy.ndimage import binary_erosion

    label_image = case.label_image
    image = next((entry for entry in case.images if label_image and entry.id == label_image.id), case.images[0])
    grid, order, flips = image.grid.canonical()
    volume = reorient(image.read(), order, flips)
    mask = reorient(label_image.read(), order, flips) if label_image else np.zeros(volume.shape[1:], np.uint8)
    areas = (mask > 0).sum(axis=(0, 1))
    k = int(areas.argmax()) if areas.any() else volume.shape[3] // 2
    plane = np.moveaxis(volume[:, :, :, k], 0, -1).astype(np.float64).transpose(1, 0, 2)
    low, high = np.percentile(plane, (1, 99))
    grey = np.clip((plane - low) / max(high - low, 1e-9), 0, 1) * 255
    colour = np.repeat(grey, 3, axis=2)[:, :, :3] if grey.shape[2] == 1 else grey[:, :, :3]
    inside = mask[:, :, k].T > 0
    colour[inside & ~binary_erosion(inside)] = (255, 190, 60)
    height, width = plane.shape[0] * grid.spacing[1], plane.shape[1] * grid.spacing[0]
    scale = _TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Picture.fromarray(colour.astype(np.uint8)).resize(size, Picture.Resampling.BILINEAR))
    tile = np.full((_TILE, _TILE, 3), 16, dtype=np.uint8)
    top, left = (_TILE - size[1]) // 2, (_TILE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    return tile
