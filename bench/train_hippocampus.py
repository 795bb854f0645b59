"""Train the networks of the shipped hippocampus model and export them, with out-of-fold figures.

    python bench/train_hippocampus.py DATA WORK --minutes 75 --folds 4
    python bench/train_hippocampus.py DATA WORK --export-only

The Medical Segmentation Decathlon's hippocampus set (CC BY-SA 4.0). Several processes may share the work:
`--only 0,1 --part a` trains these folds (`--part b --resume` takes over the plan of `WORK/a/plan.json` when
that is copied to `WORK/b`); `--export-only --part a,b` then turns all checkpoints, also of interrupted ones,
into `WORK/files/` (the bundle's model.onnx, weights.safetensors, check.safetensors) and
`WORK/card.json` (its part of the card, with the Dice of every case by the network that never saw it).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort, Label
from vesalius.core.finding import Finding, Mask
from vesalius.core.image import Image, Kind
from vesalius.core.progress import Item
from vesalius.formats.nifti import read_nifti
from vesalius.imaging.augmentation import AugmentationSettings

ROLE = "T1"
LABELS = (Label(1, "anterior"), Label(2, "posterior"))

# Stronger than a fit's own: the model also meets boxes cut out of whole heads of any scanner, some of them
# with the skull stripped away.
AUGMENTATION = AugmentationSettings(
    rotation=20.0, scaling=0.2, shift=8.0, elastic=1.5, mirror_axes=(0,), intensity=0.3, erase=0.1
)


class Printed:
    """Progress as lines with the time."""

    def say(self, sentence: str) -> None:
        print(time.strftime("%H:%M:%S"), sentence, flush=True)

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        self.say(f"{what} ({total})")
        yield from items


class FirstChannel:
    """A label file's pixels without the channel axis."""

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    def read(self) -> Any:
        return self.pixels.read()[0].round().astype("uint8")


def hippocampi(source: Path, folder: Path) -> Cohort:
    """The set as a cohort in memory; the prepared cases are written below `folder`."""
    cases = []
    for path in sorted((source / "images").glob("*.nii.gz")):
        (scan,), (mask,) = read_nifti(path), read_nifti(source / "labels" / path.name)
        name = path.name.split(".")[0]
        image = Image(name, scan.grid, ROLE, Kind.INTENSITY, "MR", 1, scan.pixels)
        truth = Image(f"{name}-label", mask.grid, ROLE, Kind.LABEL, "", 1, FirstChannel(mask.pixels))
        findings = tuple(Finding(label.name, place=Mask(truth, label.value)) for label in LABELS)
        cases.append(Case(name, name, (image,), findings))
    return Cohort("hippocampus", folder, tuple(cases), labels=LABELS, digest=f"msd-{len(cases)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=75.0)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--only", default="")
    parser.add_argument("--part", default="all")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--leave-out", type=int, default=0, help="cases kept away from training, to tune on")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--export-only", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    import numpy as np

    from vesalius.learning.ensemble import export_ensemble
    from vesalius.learning.fit import FitSettings, fit_segmentation

    cohort = hippocampi(asked.source, asked.work)
    order = np.random.default_rng(1234).permutation(len(cohort))
    train = [cohort.cases[n] for n in order[asked.leave_out :]]
    settings = FitSettings(
        minutes=asked.minutes, seed=asked.seed, folds=asked.folds, resume=asked.resume,
        inputs=(ROLE,), augmentation=AUGMENTATION, threads=asked.threads,
        only=tuple(int(n) for n in asked.only.split(",")) if asked.only else None,
    )  # fmt: skip
    works = [asked.work / part for part in asked.part.split(",")]
    if asked.export_only:
        fitted = export_ensemble(cohort, train, settings, works, Printed())
    else:
        fitted = fit_segmentation(cohort, train, settings, works[0], Printed())
    if not fitted.files:
        return
    files = asked.work / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name, content in fitted.files.items():
        (files / name).write_bytes(content)
    (asked.work / "card.json").write_text(json.dumps(fitted.card, indent=1), encoding="utf-8")
    for sentence in fitted.card["sentences"]:
        print(sentence, file=sys.stderr)


if __name__ == "__main__":
    main()
