"""What each measure is called, in which unit, and which way is better: data for sentences and tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Better(Enum):
    """Which values of a measure are good."""

    HIGHER = "higher is better"
    LOWER = "lower is better"
    ZERO = "nearer to 0 is better"
    NEITHER = "a quantity, not a measure of quality"


@dataclass(frozen=True)
class Measure:
    """One measure as readers see it.

    Args:
        title: its name in running text.
        unit: "" for shares.
        better: which values are good.
        digits: decimals worth showing.
        meaning: one sentence for readers who do not know it.
    """

    title: str
    unit: str
    better: Better
    digits: int
    meaning: str

    @property
    def heading(self) -> str:
        """Title with unit, for axes and table heads."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


_ERROR = "Predicted minus true size: above 0 where too much is outlined, below 0 where too little is."
_SIZE = "Size of what was outlined."
_HD95 = "Distance between the two outlines that 95 % of their area stays below (the larger of both directions)."

MEASURES: dict[str, Measure] = {
    "dice": Measure(
        "Dice",
        "",
        Better.HIGHER,
        3,
        "Twice the shared volume over the sum of both volumes; 1 is full agreement.",
    ),
    "iou": Measure("IoU", "", Better.HIGHER, 3, "Shared volume over the volume of both together (Jaccard)."),
    "hd95_mm": Measure("HD95", "mm", Better.LOWER, 2, _HD95),
    "hd95_px": Measure("HD95", "pixels", Better.LOWER, 2, _HD95),
    "nsd": Measure(
        "Surface Dice",
        "",
        Better.HIGHER,
        3,
        "Share of both surfaces within the stated tolerance of the other (normalised surface Dice, NSD).",
    ),
    "volume_error_ml": Measure("Volume error", "ml", Better.ZERO, 3, _ERROR),
    "area_error_mm2": Measure("Area error", "mm²", Better.ZERO, 1, _ERROR),
    "size_error_px": Measure("Size error", "pixels", Better.ZERO, 0, _ERROR),
    "volume_ml": Measure("Volume", "ml", Better.NEITHER, 3, _SIZE),
    "area_mm2": Measure("Area", "mm²", Better.NEITHER, 1, _SIZE),
    "size_px": Measure("Size", "pixels", Better.NEITHER, 0, _SIZE),
}


def measure(name: str) -> Measure:
    """The entry of a measure; one that is not listed is shown under its own name."""
    return MEASURES.get(name, Measure(name, "", Better.NEITHER, 3, ""))
