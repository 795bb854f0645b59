"""Where the brain is, found from what is inside the head alone: the witness against which a face is removed.

In MR an average brain (ICBM 152) is laid onto the scan by its inner structure, whatever the contrast: what the
scan shows may be any quadratic function of the template's grey values. In CT the brain is the largest piece of soft
tissue that stays in one piece when 14 mm next to bone and air are taken away. Neither looks at the outline of the
head, by which `privacy.faces` finds the face.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np

from vesalius.core.grid import Array, FloatArray, Grid
from vesalius.imaging.brain_template import Template, load_template
from vesalius.imaging.registration import Candidate, Samples, Search, Volume, agreement, refine, rotation

LEAST_STRUCTURE = 0.16  # share of local structure that the template explains where there is a brain
_AROUND_MM = 20.0
_TURNS = tuple((pitch, size) for pitch in (-30.0, -15.0, 0.0, 15.0, 30.0) for size in (0.9,))
_STARTS = 3
_BONE_HU, _SOFT_HU = 160.0, (-20.0, 100.0)
_CLEAR_MM, _BACK_MM = 13.0, 16.0
_BRAIN_ML = (500.0, 2300.0)


@dataclass(frozen=True)
class Placed:
    """A soft mask with its place.

    Args:
        values: (i, j, k) float32, above 0.5 inside.
        affine: (4, 4), its index to patient mm, LPS.
    """

    values: Array
    affine: FloatArray

    def on(self, grid: Grid) -> Array:
        """(i, j, k) bool on another grid, interpolated linearly; False outside."""
        import scipy.ndimage

        change = np.linalg.inv(self.affine) @ grid.affine
        found = scipy.ndimage.affine_transform(
            self.values, change[:3, :3], change[:3, 3], output_shape=grid.shape, order=1, output=np.float32
        )
        return np.asarray(found > 0.5)

    def grown(self, margin_mm: float) -> Placed:
        """The same mask with a margin of about this width."""
        import scipy.ndimage

        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        distance = scipy.ndimage.distance_transform_edt(self.values <= 0.5, sampling=sizes)
        return Placed((distance <= margin_mm).astype(np.float32), self.affine)


@dataclass(frozen=True)
class Witness:
    """The brain as the inside of the head shows it.

    Args:
        brain: where it is.
        score: the share of structure explained in MR; 1 in CT.
        seen: share of the brain in the field of view; 1 in CT.
    """

    brain: Placed
    score: float
    seen: float


def find_brain(scan: Volume, modality: str) -> Witness | None:
    """The brain, or None where nothing looks like one.

    Args:
        scan: `Volume.of_scan` for MR, Hounsfield units on about 2 mm for CT.
        modality: "MR" or "CT".
    """
    if modality == "CT":
        return _inside_skull(scan)
    found = lay_brain(scan)
    template = _template()
    samples, blurred = _structure(scan, template)
    score, seen, _ = agreement(samples, blurred, found.pose)
    sizes = np.linalg.svd(found.pose[:3, :3], compute_uv=False)
    if score < LEAST_STRUCTURE or sizes.min() < 0.6 or sizes.max() > 1.35 or np.linalg.det(found.pose[:3, :3]) <= 0:
        return None
    brain = template.brain
    return Witness(Placed(brain.values, found.pose @ brain.grid.affine), score, seen)


def bone_ml(scan: Volume) -> float:
    """How much bone a CT shows, in ml."""
    return float((scan.values > _BONE_HU).sum()) * scan.grid.voxel_ml


def lay_brain(scan: Volume) -> Candidate:
    """The pose (template to patient mm, affine) that explains most of an MR scan's local structure."""
    template = _template()
    search = Search(scan, template.tone, template.near, least_overlap=0.5, either_sign=True)
    starts = search.over([rotation(pitch, 0.0, 0.0) * size for pitch, size in _TURNS])[:_STARTS]
    samples, blurred = _structure(scan, template)
    poses = (refine(samples, blurred, start.pose, "similarity", 15) for start in starts)
    best = max(poses, key=lambda found: found.score)
    return refine(samples, blurred, best.pose, "affine", 25)


def _structure(scan: Volume, template: Template) -> tuple[Samples, Volume]:
    tone = template.tone.levelled(4.0, _AROUND_MM)
    return Samples.of(tone, template.near, 6.0, shading=False), scan.levelled(4.0, _AROUND_MM)


@lru_cache(maxsize=1)
def _template() -> Template:
    with as_file(files("vesalius") / "shipped" / "hippocampus" / "finder" / "template.safetensors") as path:
        return load_template(path)


def _inside_skull(scan: Volume) -> Witness | None:
    """Soft tissue far from bone and air, its largest piece, and back to what is near and not bone."""
    import scipy.ndimage

    spacing = scan.grid.spacing
    soft = (scan.values > _SOFT_HU[0]) & (scan.values < _SOFT_HU[1])
    soft = scipy.ndimage.median_filter(soft.astype(np.uint8), size=3) > 0
    depth = scipy.ndimage.distance_transform_edt(np.pad(soft, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    pieces, count = scipy.ndimage.label(depth > _CLEAR_MM)
    if not count:
        return None
    core = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    near = scipy.ndimage.distance_transform_edt(~core, sampling=spacing) < _BACK_MM
    brain = near & soft
    if not _BRAIN_ML[0] < brain.sum() * scan.grid.voxel_ml < _BRAIN_ML[1]:
        return None
    return Witness(Placed(brain.astype(np.float32), scan.grid.affine), 1.0, 1.0)
