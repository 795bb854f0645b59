"""Measure what removing faces does to real heads: brain touched, face left, time.

    python bench/deface_heads.py MAPS [--step 1] [--seed 0] [--contrasts t1,t2,flair,random,ct,thick] [--heads 14]
        [--each FILE] [--page FILE]

MAPS holds FreeSurfer label maps of whole heads of 1 mm with the tissue outside the brain, such as those of SynthSeg
(see draw_heads.py); a scan of each contrast is drawn from each. The average head that finds the face is made anew
for each from all the others, so that no head is measured with its own outline. `--step 2` draws from every second
voxel. Brain is what the map calls brain tissue or ventricle; one voxel of it changed counts. The face is looked for
again in the result: the first tissue from the front, before and after. `thick` is T2 in axial slices of 5 mm. FILE of
`--each` holds the laid heads, as build_head.py writes them, else they are laid anew. `--page` draws the first 20 heads
before and after; it shows faces.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.ndimage

from build_head import as_model, average, brain_of, lay, read_each, read_small
from draw_heads import _RIGHT_OF, _T1, _T1_OUTSIDE, _smooth_field, read_maps
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.imaging.registration import Volume
from vesalius.privacy.face_views import surface_figures
from vesalius.privacy.faces import Defaced, NoHead, look_for_face
from vesalius.privacy.head_model import HeadModel
from vesalius.privacy.head_outline import tissue_of
from vesalius.reporting.face_page import FaceAlbum, write_face_page

_CSF = (4, 5, 14, 15, 24, 43, 44, 72)
_WHITE = (2, 7, 16, 28, 41, 46, 60, 85, 530)
# Fluid, white matter, all other brain; outside: vessels, eyes, soft tissue, mucosa, nose, scalp, cord, dura, bone,
# marrow, and air. Hounsfield units in CT, else as bright as a usual sequence makes them.
_TONES = {
    "t2": (200, 75, 110, 20, 190, 60, 150, 90, 130, 100, 40, 15, 110, 5),
    "flair": (20, 90, 120, 30, 40, 70, 120, 80, 140, 90, 40, 15, 110, 5),
    "ct": (8, 32, 38, 45, 15, 50, 40, 30, -60, 35, 50, 900, 350, -1000),
}
_THICK_MM = 5
_OUTSIDE = (502, 506, 507, 508, 509, 511, 512, 514, 515, 516)


def tones(contrast: str, rng: np.random.Generator, top: int) -> Array:
    """The mean of every label up to `top`."""
    table = np.zeros(max(top, 530) + 1, np.float32)
    for value in range(table.size):
        left = _RIGHT_OF.get(value, value)
        if contrast == "t1":
            table[value] = _T1_OUTSIDE[value][0] if value in _T1_OUTSIDE else _T1.get(left, 100)
        elif contrast == "random":
            table[value] = table[left] if left != value else rng.uniform(25, 200)
        else:
            fluid, white, grey, *outside, _ = _TONES[contrast]
            known = dict(zip(_OUTSIDE, outside, strict=True))
            table[value] = known.get(value, fluid if value in _CSF else white if value in _WHITE else grey)
    table[0] = _TONES[contrast][-1] if contrast in _TONES else 5.0
    return table


def draw(labels: Array, contrast: str, rng: np.random.Generator) -> Array:
    """A scan of whole numbers: means, noise, a coil's shading in MR."""
    image = tones(contrast, rng, int(labels.max()))[labels]
    image = scipy.ndimage.gaussian_filter(image, 0.5)
    image += rng.normal(size=image.shape).astype(np.float32) * 6.0
    if contrast != "ct":
        image = np.abs(image) * np.exp(0.12 * _smooth_field(rng, image.shape))
    return np.asarray(np.rint(image).astype(np.int16))


@dataclass(frozen=True)
class Outcome:
    """What became of one scan."""

    text: str
    touched: int = 0
    surface: float = 0.0
    relief: float = 0.0
    seconds: float = 0.0
    answered: bool = False


@dataclass(frozen=True)
class Sample:
    """A scan and its brain, both (i, j, k) on `grid`."""

    image: Array
    brain: Array
    grid: Grid
    modality: str


def sample(labels: Array, grid: Grid, contrast: str, rng: np.random.Generator) -> Sample:
    """Draw a scan; `thick` means slices of 5 mm, where any voxel with brain in it counts as brain."""
    image = draw(labels, "t2" if contrast == "thick" else contrast, rng)
    brain = brain_of(labels)
    if contrast == "thick":
        step = max(round(_THICK_MM / grid.spacing[2]), 1)
        count = image.shape[2] // step
        slabs = (*image.shape[:2], count, step)
        image = np.rint(image[..., : count * step].reshape(slabs).mean(axis=3)).astype(np.int16)
        brain = brain[..., : count * step].reshape(slabs).any(axis=3)
        affine = np.array(grid.affine)
        affine[:3, 3] = grid.to_patient([0, 0, (step - 1) / 2])
        affine[:3, 2] *= step
        grid = Grid(image.shape, affine)
    return Sample(image, brain, grid, "CT" if contrast == "ct" else "MR")


def measure(scan: Sample, name: str, model: HeadModel, album: FaceAlbum) -> Outcome:
    """Remove the face of a scan, and look for it again."""
    began = time.process_time()
    try:
        found = look_for_face(scan.image, scan.grid, scan.modality, model)
    except UnusableInput as error:
        return Outcome(f"refused: {error.what}", seconds=time.process_time() - began)
    seconds = time.process_time() - began
    if isinstance(found, NoHead) or found.unchanged:
        return Outcome(found.reason if isinstance(found, NoHead) else found.unchanged, seconds=seconds)
    album.take(name, scan.image, scan.grid, found)
    touched = int(((found.array != scan.image) & scan.brain).sum())
    surface, relief = _seen_again(scan.image, found, scan.grid, scan.modality)
    figures = " ".join(f"{name} {value:.2f}" for name, value in found.figures.items())
    return Outcome(figures, touched, surface, relief, seconds, True)


def _seen_again(image: Array, found: Defaced, grid: Grid, modality: str) -> tuple[float, float]:
    """Share of the facial surface that is gone and likeness of the relief, from the two images alone."""
    outlines = []
    for array in (image, found.array):
        clipped = np.clip(array, -1000, 150) if modality == "CT" else array
        scan = Volume.of_scan(clipped, grid)
        outlines.append(Volume(tissue_of(scan).astype(np.float32), scan.grid))
    difference = (outlines[0].values > 0.5) & ~(outlines[1].values > 0.5)
    return surface_figures(outlines[0], difference, outlines[0].grid, found.pose)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contrasts", default="t1,t2,flair,random,ct,thick")
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--each", type=Path)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    paths = sorted(given.maps.glob("*.nii.gz"))
    laid = read_each(given.each) if given.each is not None else [lay(*read_small(path)) for path in paths]
    outcomes: dict[str, list[Outcome]] = {}
    album = FaceAlbum()
    for number, (name, labels, grid) in enumerate(islice(read_maps(given.maps), given.heads)):
        if given.step > 1:
            affine = np.array(grid.affine)
            affine[:3, :3] *= given.step
            labels = np.ascontiguousarray(labels[:: given.step, :: given.step, :: given.step])
            grid = Grid(labels.shape, affine)
        model = as_model(average([head for other, head in enumerate(laid) if other != number]))
        for contrast in given.contrasts.split(","):
            scan = sample(labels, grid, contrast, np.random.default_rng((given.seed, number)))
            outcome = measure(scan, f"{name} {contrast}", model, album)
            outcomes.setdefault(contrast, []).append(outcome)
            measured = f"touched {outcome.touched} surface {outcome.surface:.3f} relief {outcome.relief:.2f}"
            print(name, contrast, measured, f"{outcome.seconds:.1f} s", outcome.text, flush=True)
    _tell(outcomes)
    if given.page is not None:
        write_face_page(given.page, album, {}, 0)


def _tell(outcomes: dict[str, list[Outcome]]) -> None:
    for contrast, rows in outcomes.items():
        done = [row for row in rows if row.answered]
        if not done:
            print(f"{contrast}: 0 of {len(rows)} answered")
            continue
        surface, relief = [row.surface for row in done], [row.relief for row in done]
        seconds = [row.seconds for row in rows]
        print(
            f"{contrast}: {len(done)} of {len(rows)} answered, brain voxels touched {sum(row.touched for row in done)}"
        )
        print(f"  facial surface gone {np.mean(surface):.3f} (least {min(surface):.3f})")
        print(f"  relief {np.mean(relief):.2f} (most {max(relief):.2f})")
        print(f"  {np.median(seconds):.1f} s of one core (most {max(seconds):.1f})")


if __name__ == "__main__":
    main()
