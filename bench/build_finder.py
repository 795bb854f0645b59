"""Build what the shipped model needs to find hippocampi in whole heads: a template and where to look in it.

    python bench/build_finder.py OUT [--maps FOLDER]

OUT receives `finder/template.safetensors` (ICBM 152 2009a symmetric T1, brain only, 2 mm, from the copy that
nilearn ships; nothing is downloaded), `finder/NOTICE.txt` and `finder.json`, the card's `finder`. With
--maps, a folder of whole-head FreeSurfer label maps, the hippocampi's places are measured: heads are drawn
from the maps, the template is laid onto each, and the medians of the places in the template are printed and
written, made symmetric. Without it, the places measured so on the 14 maps of SynthSeg are written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from draw_heads import LEFT_HIPPOCAMPUS, RIGHT_HIPPOCAMPUS, VARIANTS, draw_head, read_maps
from vesalius.core.grid import FloatArray, Grid, reorient
from vesalius.imaging.brain_template import load_template
from vesalius.imaging.registration import Volume
from vesalius.inference.finder import TEMPLATE, lay_template

_NOTICE = """\
finder/template.safetensors is made from the ICBM 152 nonlinear 2009a symmetric T1 average
(mni_icbm152_t1_tal_nlin_sym_09a), brain only, at 2 mm.

Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute,
McGill University. Permission to use, copy, modify, and distribute this software and its documentation for
any purpose and without fee is hereby granted, provided that the above copyright notice appear in all
copies. The authors and McGill University make no representations about the suitability of this software
for any purpose. It is provided "as is" without express or implied warranty. The authors are not responsible
for any data loss, equipment damage, property loss, or injury to subjects or patients resulting from the use
or misuse of this software package.

Fonov VS, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL, BDCG. Unbiased average age-appropriate
atlases for pediatric studies. NeuroImage 54:313-327, 2011.
Fonov VS, Evans AC, McKinstry RC, Almli CR, Collins DL. Unbiased nonlinear average age-appropriate brain
templates from birth to adulthood. NeuroImage 47:S102, 2009.
"""

# Template mm, LPS: medians over the 14 maps, made symmetric (see --maps).
_PLACE = (25.5, 21.3, -16.7)

FINDER = {
    "template": TEMPLATE,
    "crop_below_mm": 100.0,
    "box_mm": [48, 64, 48],
    "close_mm": [48, 64, 48],
    "inside_mm": [20.0, 36.0, 20.0],
    "pitch": 11.0,
    "shown_side": "left",
    "classes": 2,
    "sizes": [0.65, 1.3],
    "least": {"structure": 0.15, "contrast": 0.2, "local": 0.25},
    "volumes_ml": [0.8, 7.0],
    "ratio": 2.2,
    "shift_mm": 12.0,
}


def template_tensors() -> dict[str, FloatArray]:
    """Tensors of the stored template: uint8 intensities (0 outside the brain, else 1 to 255), affine (LPS)."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    image, mask = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    grid, order, flips = Grid(image.shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine).canonical()
    tone = reorient(np.asarray(image.dataobj), order, flips)
    brain = reorient(np.asarray(mask.dataobj) > 0, order, flips)
    inside = np.argwhere(brain)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    levels = np.clip(np.rint(tone[cut] / tone[brain].max() * 255), 1, 255)
    stored = np.where(brain[cut], levels, 0).astype(np.uint8)
    return {
        "template": np.ascontiguousarray(stored),
        "affine": np.array(grid.cropped(low.tolist(), high.tolist()).affine),
    }


def measured_place(template: Path, maps: Path) -> tuple[float, float, float]:
    """Median place of the hippocampi in the template (mm, LPS, of the left side), over drawn heads."""
    places = []
    for number, (name, labels, grid) in enumerate(read_maps(maps)):
        head = draw_head(labels, grid, number, VARIANTS["plain"])
        found = lay_template(Volume.of_scan(head.image, head.grid), load_template(template))
        back = np.linalg.inv(found.pose)
        for value, sign in ((LEFT_HIPPOCAMPUS, 1.0), (RIGHT_HIPPOCAMPUS, -1.0)):
            centre = head.grid.to_patient(np.argwhere(head.labels == value).mean(axis=0))
            places.append((back[:3, :3] @ centre + back[:3, 3]) * (sign, 1.0, 1.0))
            print(f"{name} {value} {np.round(places[-1], 1)} structure {found.score:.3f}", flush=True)
    x, y, z = np.median(places, axis=0).round(1)
    print(f"median {x} {y} {z}, deviation {np.std(places, axis=0).round(1)}")
    return float(x), float(y), float(z)


def build(out: Path, maps: Path | None = None) -> None:
    """Write the asset and the card's part into a folder."""
    from safetensors.numpy import save

    (out / "finder").mkdir(parents=True, exist_ok=True)
    (out / TEMPLATE).write_bytes(save(template_tensors()))
    (out / "finder/NOTICE.txt").write_text(_NOTICE, encoding="utf-8")
    x, y, z = measured_place(out / TEMPLATE, maps) if maps else _PLACE
    card = FINDER | {"left": [x, y, z], "right": [-x, y, z]}
    (out / "finder.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--maps", type=Path)
    given = parser.parse_args()
    build(given.out, given.maps)


if __name__ == "__main__":
    main()
