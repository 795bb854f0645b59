"""Measure what removing faces does to real heads: brain touched, face left, time.

    python bench/deface_heads.py MAPS [--step 1] [--seed 0] [--contrasts t1,t2,flair,random,ct] [--heads 14]

MAPS holds FreeSurfer label maps of whole heads of 1 mm with the tissue outside the brain, such as those of SynthSeg
(see draw_heads.py); a scan of each contrast is drawn from each. The average head that finds the face is made anew
for each from all the others, so that no head is measured with its own outline. `--step 2` draws from every second
voxel. Brain is what the map calls brain tissue or ventricle; one voxel of it changed counts. The face is looked for
again in the result: the first tissue from the front, before and after.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage

from build_head import Laid, as_model, average, brain_of, lay, read_small
from draw_heads import _RIGHT_OF, _T1, _T1_OUTSIDE, _smooth_field, read_maps
from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid
from vesalius.imaging.registration import Volume
from vesalius.privacy.face_views import surface_figures
from vesalius.privacy.faces import Defaced, NoHead, look_for_face
from vesalius.privacy.head_model import HeadModel
from vesalius.privacy.head_outline import tissue_of

_CSF = (4, 5, 14, 15, 24, 43, 44, 72)
_WHITE = (2, 7, 16, 28, 41, 46, 60, 85, 530)
# Fluid, white matter, all other brain; outside: vessels, eyes, soft tissue, mucosa, nose, scalp, cord, dura, bone,
# marrow, and air. Hounsfield units in CT, else as bright as a usual sequence makes them.
_TONES = {
    "t2": (200, 75, 110, 20, 190, 60, 150, 90, 130, 100, 40, 15, 110, 5),
    "flair": (20, 90, 120, 30, 40, 70, 120, 80, 140, 90, 40, 15, 110, 5),
    "ct": (8, 32, 38, 45, 15, 50, 40, 30, -60, 35, 50, 900, 350, -1000),
}
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


def measure(labels: Array, grid: Grid, contrast: str, model: HeadModel, rng: np.random.Generator) -> Outcome:
    """Draw a scan, remove its face, and look for it again."""
    image = draw(labels, contrast, rng)
    modality = "CT" if contrast == "ct" else "MR"
    began = time.process_time()
    try:
        found = look_for_face(image, grid, modality, model)
    except UnusableInput as error:
        return Outcome(f"refused: {error.what}", seconds=time.process_time() - began)
    seconds = time.process_time() - began
    if isinstance(found, NoHead) or found.unchanged:
        return Outcome(found.reason if isinstance(found, NoHead) else found.unchanged, seconds=seconds)
    touched = int(((found.array != image) & brain_of(labels)).sum())
    surface, relief = _seen_again(image, found, grid, modality)
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
    parser.add_argument("--contrasts", default="t1,t2,flair,random,ct")
    parser.add_argument("--heads", type=int, default=1000)
    given = parser.parse_args()
    laid: list[Laid] = [lay(*read_small(path)) for path in sorted(given.maps.glob("*.nii.gz"))]
    outcomes: dict[str, list[Outcome]] = {}
    for number, (name, labels, grid) in enumerate(read_maps(given.maps)):
        if number >= given.heads:
            break
        if given.step > 1:
            affine = np.array(grid.affine)
            affine[:3, :3] *= given.step
            labels = np.ascontiguousarray(labels[:: given.step, :: given.step, :: given.step])
            grid = Grid(labels.shape, affine)
        model = as_model(average([head for other, head in enumerate(laid) if other != number]))
        for contrast in given.contrasts.split(","):
            outcome = measure(labels, grid, contrast, model, np.random.default_rng((given.seed, number)))
            outcomes.setdefault(contrast, []).append(outcome)
            measured = f"touched {outcome.touched} surface {outcome.surface:.3f} relief {outcome.relief:.2f}"
            print(name, contrast, measured, f"{outcome.seconds:.1f} s", outcome.text, flush=True)
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
