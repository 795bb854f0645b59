"""Draw the picture of the README: an invented patient's brain and its tissues.

python docs/images/draw.py demo/model    # tissues as found by the model that `make demo` fitted
python docs/images/draw.py               # tissues as the virtual patient was made
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image as Picture

from vesalius import Image, load_model
from vesalius.core.grid import Array, reorient
from vesalius.core.image import Kind
from vesalius.virtual.anatomy import TISSUES, average_brain
from vesalius.virtual.cohort import VirtualScan, virtual_scan

COLOURS = {1: "#4cc9f0", 2: "#ffd166", 3: "#ff70a6"}
PATIENT = 26  # the new patient of the demo


class Held:
    """Pixels that are in memory already."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def read(self) -> Array:
        """The array."""
        return self._array


def tissue_map(scan: VirtualScan, model: str | None) -> Array:
    """(i, j, k) what the model finds, or what the patient was made of."""
    if model is None:
        return scan.truth
    image = Image("new", scan.scanner.grid, "T1", Kind.INTENSITY, "MR", 1, Held(scan.signal[None]))
    found = load_model(model).predict([image]).label_map
    assert found is not None
    return found


def main() -> None:
    """Draw three planes, each without and with its tissues."""
    scan = virtual_scan(average_brain(), 0, PATIENT)
    tissue = tissue_map(scan, sys.argv[1] if len(sys.argv) > 1 else None)
    grid, order, flips = scan.scanner.grid.canonical()
    signal, tissue = reorient(scan.signal, order, flips), reorient(tissue, order, flips)
    figure = Figure(figsize=(8.4, 5.4), facecolor="black", layout="constrained")
    axes = figure.subplots(2, 3)
    for column, axis in enumerate((2, 1, 0)):
        across, down = (other for other in range(3) if other != axis)
        index = int(scan.scanner.grid.canonical()[0].shape[axis] * 0.47)
        base, plane = (np.take(array, index, axis).T for array in (signal, tissue))
        sizes = (base.shape[1] * grid.spacing[across], base.shape[0] * grid.spacing[down])
        extent = (0.0, sizes[0], sizes[1], 0.0) if axis == 2 else (0.0, sizes[0], 0.0, sizes[1])
        for row in range(2):
            place = axes[row, column]
            shown = {"origin": "upper" if axis == 2 else "lower", "extent": extent}
            place.imshow(base, cmap="gray", vmax=np.percentile(signal, 99.3), interpolation="bilinear", **shown)
            place.axis("off")
            for value, colour in COLOURS.items() if row else ():
                inside = np.ma.masked_where(plane != value, plane)
                place.imshow(inside, cmap=ListedColormap([colour]), alpha=0.42, interpolation="nearest", **shown)
    for number, (value, name) in enumerate(TISSUES.items()):
        figure.text(0.28 + 0.17 * number, 0.01, name, color=COLOURS[value], fontsize=10)
    figure.get_layout_engine().set(rect=(0.0, 0.045, 1.0, 0.955))
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=92)
    Picture.open(drawn).convert("RGB").quantize(96).save(Path(__file__).with_name("demo.png"), optimize=True)


if __name__ == "__main__":
    main()
