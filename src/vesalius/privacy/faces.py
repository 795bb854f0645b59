"""Removing the face and the ears from MR and CT of the head, and proving that no brain was touched.

The average head (`head_model`) is laid onto the outline of the head against air (`head_outline`), which looks alike
in every contrast, so that face and ears are known; the brains of all heads it was made from, and a margin, are never
among them. Independently of it the brain is found from the inside of the head alone (`brain_witness`). Voxels that
the witness calls brain stay as well, and where the two contradict each other the scan is refused. What is removed
becomes air down to the depth of the orbits, with the air in front, so that neither skin nor bone nor a shadow of the
face in the noise remains.

That faces in research MR lead back to people: Schwarz et al., N Engl J Med 381:1684, 2019. Removing them by a
template, and keeping brain out of it: Bischoff-Grethe et al., Hum Brain Mapp 28:892, 2007.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, FloatArray, Grid

if TYPE_CHECKING:
    from vesalius.imaging.registration import Candidate, Volume
    from vesalius.privacy.brain_witness import Placed, Witness
    from vesalius.privacy.head_model import HeadModel

_LEAST_MM = 70.0  # a thinner scan shows no face in relief
_NO_OUTLINE = 0.6  # below, and without a brain, nothing looks like a head
_LEAST_OUTLINE = 0.8  # share of an outline's variance that the average head explains
_WITNESS_MM = 3.0  # around what the witness calls brain
_MOST_BRAIN_ML = 3.0  # brain by the witness where the outline sees face: beyond it, one of them is wrong
_STRIPPED_MM, _STRIPPED_SHARE = 9.0, 0.04  # tissue further from the brain, of all tissue, in a stripped scan
_LEAST_TISSUE_ML = 2.0
_LEAST_BONE_ML = 50.0
_AIR_HU = -1000.0
_SIZES = (0.6, 1.3)
_REMEDY = "Remove the face with another tool, or keep it for local work (--faces keep)."


@dataclass(frozen=True)
class Defaced:
    """A head without its face.

    Args:
        array: (i, j, k), the type of what came in; voxels in `removed` hold the value of air.
        removed: (i, j, k) bool.
        figures: `removed_ml` (tissue), `surface_removed` (share of the facial surface, 0 to 1), `relief` (correlation
            of the facial relief before and after), `brain_ml` (checked by the witness), `brain_voxels_changed`
            (0, else there is no result), `outline` and `structure` (how well head and brain were found, 0 to 1),
            `yielded_ml` (face by the outline, brain by the witness, kept).
        pose: (4, 4), average head to patient mm.
        unchanged: why nothing had to be removed; "" where something was.
    """

    array: Array
    removed: Array
    figures: Mapping[str, float]
    pose: FloatArray
    unchanged: str = ""


@dataclass(frozen=True)
class NoHead:
    """There is no head in this scan, and why that is believed."""

    reason: str


def deface_image(array: Array, grid: Grid, modality: str) -> Defaced | None:
    """Remove the face from a scan; None where it shows no head (`look_for_face` says why).

    Raises:
        UnusableInput: there may be a face, but it cannot be removed without a doubt about the brain.
    """
    found = look_for_face(array, grid, modality)
    return found if isinstance(found, Defaced) else None


def look_for_face(array: Array, grid: Grid, modality: str, model: HeadModel | None = None) -> Defaced | NoHead:
    """Find head, brain and face, and remove the face.

    Args:
        array: (i, j, k) intensities, any numeric type; Hounsfield units in CT.
        grid: any orientation and spacing; the head stands as it says, to within 45 degrees.
        modality: DICOM modality; where it is empty, CT is known by its air.
        model: the average head, by default the one that is part of this program.

    Returns:
        The scan without its face; the scan as it is where it holds nothing but brain, or no face in its field of
        view; or why it shows no head.

    Raises:
        UnusableInput: there may be a face, but it cannot be removed without a doubt about the brain.
    """
    from vesalius.imaging.registration import Volume
    from vesalius.privacy.brain_witness import bone_ml, find_brain
    from vesalius.privacy.head_model import head_model
    from vesalius.privacy.head_outline import lay_head, tissue_of

    flat = shows_no_relief(grid, modality)
    if flat is not None:
        return flat
    kind = kind_of(array, modality)
    model = model or head_model()
    values = Volume.coarse(array, grid) if kind == "CT" else Volume.of_scan(array, grid)
    if kind == "CT" and bone_ml(values) < _LEAST_BONE_ML:
        return NoHead("There is hardly any bone, and no head is without.")
    scan = Volume.of_scan(np.clip(values.values, _AIR_HU, 150.0), values.grid) if kind == "CT" else values
    tissue = tissue_of(scan)
    if not tissue.any():
        return NoHead("The scan is empty.")
    witness = find_brain(values, kind)
    if witness is not None and kind == "MR" and _is_stripped(tissue, scan.grid, witness.brain):
        return _as_it_is(array, {"structure": witness.score}, np.eye(4), "The scan holds nothing but brain.")
    outline = Volume(tissue.astype(np.float32), scan.grid)
    head = lay_head(outline, model)
    fits = head.score >= _LEAST_OUTLINE and _plausible(head.pose)
    if witness is None and not (head.score >= _NO_OUTLINE and _plausible(head.pose)):
        return NoHead("Neither its outline nor its inside looks like a head.")
    if witness is None or not fits:
        raise UnusableInput(
            "The scan may show a face, but the " + ("brain" if fits else "outline of the head") + " was not found.",
            remedy=_REMEDY,
        )
    return _cut(array, grid, outline, head, witness, model, kind)


def shows_no_relief(grid: Grid, modality: str) -> NoHead | None:
    """Why a scan shows no face whatever its voxels are, or None where it may show one."""
    if modality not in ("MR", "CT", ""):
        return NoHead("Only MR and CT show a face in relief.")
    if not grid.placed or min(np.asarray(grid.shape) * np.asarray(grid.spacing)) < _LEAST_MM:
        return NoHead("The scan is too thin to show a face in relief.")
    return None


def kind_of(array: Array, modality: str) -> str:
    """ "MR", "CT", or "" for what shows no face; without a modality, CT is known by air of -1000."""
    if modality in ("MR", "CT"):
        return modality
    if modality:
        return ""
    sparse = array[::4, ::4, ::4]
    return "CT" if np.mean(sparse < -700) > 0.05 else "MR"


def _plausible(pose: FloatArray) -> bool:
    sizes = np.linalg.svd(pose[:3, :3], compute_uv=False)
    upright = np.diag(pose[:3, :3]) / np.linalg.norm(pose[:3, :3], axis=0)
    return bool(_SIZES[0] <= sizes.min() and sizes.max() <= _SIZES[1] and upright.min() > np.cos(np.radians(50.0)))


def _is_stripped(tissue: Array, grid: Grid, brain: Placed) -> bool:
    import scipy.ndimage

    outside = scipy.ndimage.distance_transform_edt(~brain.on(grid), sampling=grid.spacing) > _STRIPPED_MM
    return bool((tissue & outside).sum() < _STRIPPED_SHARE * tissue.sum())


def _as_it_is(array: Array, figures: Mapping[str, float], pose: FloatArray, why: str) -> Defaced:
    return Defaced(array, np.zeros(array.shape, bool), dict(figures), pose, why)


def _cut(
    array: Array, grid: Grid, outline: Volume, head: Candidate, witness: Witness, model: HeadModel, kind: str
) -> Defaced:
    """Remove the face of a head that was found, and check the outcome voxel by voxel."""
    from vesalius.privacy.brain_witness import Placed
    from vesalius.privacy.face_views import surface_figures

    part = _around_face(grid, head.pose, model)
    figures = {"outline": head.score, "structure": witness.score}
    if part is None:
        return _as_it_is(array, figures, head.pose, "The face lies outside the field of view.")
    small = grid.cropped([piece.start for piece in part], [piece.stop for piece in part])
    face = Placed(model.face.astype(np.float32), head.pose @ model.grid.affine).on(small)
    brain = witness.brain.on(small)
    yielded = float((face & brain).sum()) * grid.voxel_ml
    if yielded > _MOST_BRAIN_ML:
        raise UnusableInput(
            f"Outline and inside of the head contradict each other: {yielded:.0f} ml may be face or brain.",
            remedy=_REMEDY,
        )
    face &= ~witness.brain.grown(_WITNESS_MM).on(small)
    tissue = Placed(outline.values, outline.grid.affine).on(small)
    removed = np.zeros(array.shape, bool)
    removed[part] = face
    removed_ml = float((face & tissue).sum()) * grid.voxel_ml
    if removed_ml < _LEAST_TISSUE_ML:
        return _as_it_is(array, figures, head.pose, "The face lies outside the field of view.")
    result = array.copy()
    result[removed] = _air(array[part], face & ~tissue, kind)
    changed = int(((result[part] != array[part]) & brain).sum())
    if changed:
        raise UnusableInput("Removing the face would have changed the brain.", remedy=_REMEDY)
    surface, relief = surface_figures(outline, removed, grid, head.pose)
    figures |= {
        "removed_ml": removed_ml, "surface_removed": surface, "relief": relief, "yielded_ml": yielded,
        "brain_ml": float(witness.brain.on(grid).sum()) * grid.voxel_ml, "brain_voxels_changed": float(changed),
    }  # fmt: skip
    return Defaced(result, removed, figures, head.pose)


def _around_face(grid: Grid, pose: FloatArray, model: HeadModel) -> tuple[slice, ...] | None:
    """The part of the scan's voxels that may hold face, or None where none does."""
    inside = np.argwhere(model.face)
    low, high = inside.min(axis=0) - 1, inside.max(axis=0) + 1
    corners = np.array([[(low, high)[a][0], (low, high)[b][1], (low, high)[c][2]]
                        for a in (0, 1) for b in (0, 1) for c in (0, 1)])  # fmt: skip
    index = grid.to_index(model.grid.to_patient(corners) @ pose[:3, :3].T + pose[:3, 3])
    start = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
    stop = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, grid.shape)
    if (stop <= start).any():
        return None
    return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))


def _air(part: Array, air: Array, kind: str) -> Array:
    """The value of air in this scan, in its own type: the middle one of what is removed outside the head."""
    values = part[air] if air.any() else part
    if kind == "CT" or not air.any():
        return np.asarray(values.min())
    return np.asarray(np.percentile(values, 50, method="lower"))
