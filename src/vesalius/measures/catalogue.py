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
        by_case: True where every case has a value and the figure is their mean, False where only a whole
            sample has one.
    """

    title: str
    unit: str
    better: Better
    digits: int
    meaning: str
    by_case: bool = True

    @property
    def heading(self) -> str:
        """Title with unit, for axes and table heads."""
        title = self.title[:1].upper() + self.title[1:]
        return f"{title} ({self.unit})" if self.unit else title

    @property
    def phrase(self) -> str:
        """What a figure over cases is called within a sentence: "mean Dice", "AUROC"."""
        return f"mean {self.title}" if self.by_case else self.title


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


def _ranked(name: str, title: str, meaning: str, better: Better = Better.HIGHER) -> dict[str, Measure]:
    """A measure of a whole sample."""
    return {name: Measure(title, "", better, 3, meaning, by_case=False)}


MEASURES |= (
    _ranked("auroc", "AUROC", "Chance that a case with the class scores higher than one without; 0.5 is guessing.")
    | _ranked("auprc", "AUPRC", "Average precision over all thresholds; guessing gives the share of the class.")
    | _ranked(
        "sensitivity_at_specificity_90",
        "sensitivity at 90 % specificity",
        "Best sensitivity of a threshold, chosen on these cases, that leaves 90 % of the others unmarked.",
    )
    | _ranked(
        "specificity_at_sensitivity_90",
        "specificity at 90 % sensitivity",
        "Best specificity of a threshold, chosen on these cases, that finds 90 % of the class.",
    )
    | _ranked("sensitivity", "sensitivity", "Share of the class that is named so at the model's own threshold.")
    | _ranked("specificity", "specificity", "Share of the others that are not named so at the model's own threshold.")
    | _ranked("accuracy", "accuracy", "Share of cases whose predicted class is the true one.")
    | _ranked("balanced_accuracy", "balanced accuracy", "Accuracy as if all classes were equally frequent.")
    | _ranked("kappa", "Cohen's kappa", "Agreement of predicted and true class beyond chance; 0 is chance, 1 is full.")
    | _ranked("kappa_quadratic", "quadratic kappa", "As kappa, and being off by two grades costs four times one grade.")
    | _ranked("brier", "Brier score", "Mean squared error of the probability; 0 is best.", Better.LOWER)
    | _ranked(
        "ece",
        "calibration error",
        "Mean distance between probability and observed share in ten bins (ECE); above 0 by chance alone.",
        Better.LOWER,
    )
    | _ranked(
        "own_sensitivity",
        "sensitivity at the model's own threshold",
        "Share of lesions found at the score that left 2 false positives per image when the model was fitted.",
    )
    | _ranked(
        "own_false_positives",
        "false positives per image at the model's own threshold",
        "False alarms per image at the score that left 2 when the model was fitted.",
        Better.LOWER,
    )
    | _ranked(
        "cpm",
        "CPM",
        "Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image.",
    )
    | _ranked("ap_centre", "AP, centre hit", "Average precision where a candidate's centre must lie in the lesion.")
    | _ranked("ap_10", "AP at IoU 0.1", "Average precision where boxes must overlap by a tenth of their union.")
    | _ranked("ap_50", "AP at IoU 0.5", "Average precision where boxes must overlap by half of their union.")
)
for _rate, _words in (("1_8", "1/8"), ("1_4", "1/4"), ("1_2", "1/2"), ("1", "1"), ("2", "2"), ("4", "4"), ("8", "8")):
    MEASURES |= _ranked(
        f"sensitivity_at_{_rate}_fp",
        f"sensitivity at {_words} false positive{'' if _words == '1' else 's'} per image",
        "Share of lesions found at the lowest threshold with no more false alarms than that.",
    )

# Values of single cases, from which the figures above are computed.
MEASURES |= {
    "agreement": Measure(
        "Agreement", "", Better.NEITHER, 3, "One minus the distance between probability and truth; 1 is best."
    ),
    "probability": Measure("Probability", "", Better.NEITHER, 3, "What the arm says of the class."),
    "predicted": Measure("Predicted", "", Better.NEITHER, 0, "1 where the arm names the class."),
    "truth": Measure("Truth", "", Better.NEITHER, 0, "1 where the case has the class."),
    "margin": Measure(
        "Margin",
        "",
        Better.NEITHER,
        3,
        "Score of the least sure lesion, 0 where missed, minus the surest false alarm's.",
    ),
    "lesions": Measure("Lesions", "", Better.NEITHER, 0, "Lesions of the class in the case."),
    "images": Measure("Images", "", Better.NEITHER, 0, "Images of the case that were looked over."),
    "candidates": Measure("Candidates", "", Better.NEITHER, 0, "Places that the arm marked, at whatever score."),
    "found": Measure("Found", "", Better.NEITHER, 0, "Lesions that any of the marks hits."),
    "highest": Measure("Highest score", "", Better.NEITHER, 3, "Score of the surest mark; 0 without any."),
}


def measure(name: str) -> Measure:
    """The entry of a measure; one that is not listed is shown under its own name."""
    return MEASURES.get(name, Measure(name, "", Better.NEITHER, 3, ""))
