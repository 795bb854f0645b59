"""demo: the whole chain on built-in data, from invented patients to a report and a DICOM SEG."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vesalius.core.errors import UsageError
from vesalius.core.grid import Grid
from vesalius.core.progress import Progress, Silent
from vesalius.core.protocols import RESEARCH_ONLY

Item = TypeVar("Item")

_MARK = "MADE_BY_VESALIUS_DEMO.txt"
_PARTS = ("virtual", "study", "model", "report", "out", "hippocampi")
_STORY = f"""Everything here was made by `vesalius demo`, which removes and makes it again when it is run again.
No patient exists: heads and names are invented.

virtual/     DICOM series as a hospital would send them, with masks beside
study/       the cohort: de-identified, with its split, masks and hand-designed rival
model/       the model bundle
report/      report.html, report.json, cases.csv
out/         a new scan's DICOM SEG and predictions.csv
hippocampi/  what `vesalius demo --shipped` made

{RESEARCH_ONLY}
"""
_HIPPOCAMPI = {"left": (27.0, 21.0, -13.0), "right": (-27.0, 21.0, -13.0)}  # centres, mm, LPS, MNI152
_CROP_MM = (44, 60, 46)


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Args:
        folder: where everything lies.
        report: the HTML report; with `shipped`, the picture of the outlined hippocampi.
        outputs: masks of the new scans.
        volumes: millilitres by output and class.
    """

    folder: Path
    report: Path
    outputs: tuple[Path, ...]
    volumes: dict[str, dict[str, float]]

    def __str__(self) -> str:
        lines = [f"{'look at':>8}  {self.report}"]
        lines += [f"{'mask':>8}  {path}" for path in self.outputs]
        for name, volumes in self.volumes.items():
            lines.append(f"{name}: " + ", ".join(f"{key} {value:.1f} ml" for key, value in volumes.items()))
        return "\n".join([*lines, RESEARCH_ONLY])


def demo(
    to: str | Path = "demo",
    *,
    minutes: float = 2.0,
    patients: int = 24,
    shipped: bool = False,
    open_report: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Demo:
    """Run the whole chain on a virtual cohort, or the shipped model on the MNI152 brain.

    A virtual cohort is grown from the brain maps that nilearn ships and written as DICOM with invented
    patients in its headers. It passes through the same door as any other: ingest, label, fit, evaluate
    against the hand-designed rival, predict a new scan to DICOM SEG.

    Args:
        to: folder for everything; what an earlier demo left there is made anew.
        minutes: budget of fitting, the rival apart.
        patients: virtual patients to learn from and measure on.
        shipped: crop the two hippocampi of the MNI152 brain instead and outline them with the shipped model.
        open_report: open the report where there is a screen.
        seed: every random choice follows from it.
        progress: told how far the work is.

    Raises:
        UsageError: `to` holds something that no demo made.
        MissingExtra: nilearn or the training side is not installed.
    """
    progress = progress or Silent()
    folder = _fresh(Path(to))
    made = _outline_hippocampi(folder, progress) if shipped else _whole_chain(folder, minutes, patients, seed, progress)
    progress.note(folder=str(folder), report=str(made.report), volumes_ml=made.volumes)
    if open_report and _has_screen():
        import webbrowser

        webbrowser.open(made.report.resolve().as_uri())
    return made


def _whole_chain(folder: Path, minutes: float, patients: int, seed: int, progress: Progress) -> Demo:
    from vesalius.steps.evaluate import evaluate
    from vesalius.steps.fit import fit
    from vesalius.steps.ingest import ingest
    from vesalius.steps.label import label
    from vesalius.steps.predict import predict
    from vesalius.virtual.anatomy import TISSUES
    from vesalius.virtual.cohort import write_virtual_cohort

    progress.say(f"1 of 6  {patients} virtual patients, written as DICOM with invented names")
    virtual = write_virtual_cohort(folder / "virtual", patients=patients, seed=seed, progress=progress)
    progress.say("2 of 6  ingest: through the door, de-identified (one series is damaged on purpose)")
    # No scanner drew into these pixels, and reading them for text would take longer than fitting.
    study = ingest(virtual.scans, into=folder / "study", pixels="keep", seed=seed, progress=_Expected(progress))
    progress.say("3 of 6  label: masks of grey matter, white matter and CSF")
    study = label(study, masks=virtual.masks, names=TISSUES, seed=seed, progress=progress)
    progress.say(f"4 of 6  fit: {minutes:g} minutes, and the hand-designed rival")
    fit(study, "segmentation", minutes=minutes, to=folder / "model", seed=seed, progress=progress)
    progress.say("5 of 6  evaluate: on patients that the model has not seen")
    evaluate(folder / "model", on=folder / "study", to=folder / "report", seed=seed, progress=progress)
    progress.say("6 of 6  predict: a new scan, to DICOM SEG")
    rows = predict(folder / "model", virtual.new_scans, to=folder / "out", seed=seed, progress=progress)
    return Demo(folder, folder / "report" / "report.html", *_answers(rows))


def _outline_hippocampi(folder: Path, progress: Progress) -> Demo:
    """Crop both hippocampi of the template, run the shipped model on the crops, and draw what it found."""
    from vesalius.formats.nifti import read_nifti
    from vesalius.steps.predict import predict
    from vesalius.virtual.anatomy import template_t1

    place = folder / "hippocampi"
    crops = {side: place / "crops" / f"{side}.nii.gz" for side in _HIPPOCAMPI}
    signal, grid = template_t1()
    for side, path in crops.items():
        _write_crop(path, signal, grid, _HIPPOCAMPI[side])
    progress.say("The two hippocampi of the MNI152 brain, outlined by the shipped model")
    rows = predict("hippocampus", list(crops.values()), to=place / "out", progress=progress)
    panels = []
    for (side, crop), row in zip(crops.items(), rows, strict=True):
        if row.output is not None:
            scan, found = read_nifti(crop)[0], read_nifti(row.output)[0]
            panels.append((side, scan.pixels.read()[0], found.pixels.read()[0], scan.grid))
    picture = place / "hippocampi.png"
    _draw(panels, picture)
    return Demo(folder, picture, *_answers(rows))


def _answers(rows: Iterable[Any]) -> tuple[tuple[Path, ...], dict[str, dict[str, float]]]:
    """Output files, and volumes by input, of what `predict` returned."""
    kept = list(rows)
    outputs = tuple(row.output for row in kept if row.output is not None)
    return outputs, {
        row.input: {name.removesuffix("_ml"): float(value) for name, value in row.values.items()} for row in kept
    }


def _write_crop(path: Path, signal: np.ndarray[Any, Any], grid: Grid, centre: tuple[float, ...]) -> None:
    from vesalius.formats.nifti import write_nifti

    middle = np.rint(grid.to_index(centre)).astype(int)
    start = middle - np.asarray(_CROP_MM) // 2
    stop = start + np.asarray(_CROP_MM)
    path.parent.mkdir(parents=True, exist_ok=True)
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    write_nifti(path, signal[box], grid.cropped(start.tolist(), stop.tolist()))


def _draw(panels: list[tuple[str, Any, Any, Grid]], path: Path) -> None:
    """One row per side: the middle sagittal, coronal and axial slice of the outlined structure."""
    from matplotlib.figure import Figure

    from vesalius.core.grid import reorient

    figure = Figure(figsize=(9, 3.2 * max(len(panels), 1)), facecolor="black", layout="constrained")
    axes = figure.subplots(max(len(panels), 1), 3, squeeze=False)
    for row, (side, signal, found, grid) in zip(axes, panels, strict=False):
        canonical, order, flips = grid.canonical()
        signal, found = reorient(signal, order, flips), reorient(found, order, flips)
        for axis, name in enumerate(("sagittal", "coronal", "axial")):
            others = tuple(other for other in range(3) if other != axis)
            index = int((found > 0).sum(axis=others).argmax())
            base, outline = (np.take(array, index, axis).T for array in (signal, found))
            down, across = (canonical.spacing[other] for other in (others[1], others[0]))
            origin = "upper" if name == "axial" else "lower"
            row[axis].imshow(base, cmap="gray", origin=origin, aspect=down / across)
            for value, colour in ((1, "#ffb43c"), (2, "#4cc9f0")):
                if (outline == value).any():
                    row[axis].contour(outline == value, levels=[0.5], colors=colour, linewidths=1.4)
            row[axis].set_title(f"{side} hippocampus, {name}", color="white", fontsize=9)
    for place in axes.ravel():
        place.axis("off")
    figure.text(0.01, 0.005, f"orange anterior, blue posterior. {RESEARCH_ONLY}", color="white", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _fresh(folder: Path) -> Path:
    """The folder, empty of an earlier demo.

    Raises:
        UsageError: it holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise UsageError(
            "This folder holds something that no demo made.",
            remedy="Name another one with --to.",
            file=folder,
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).write_text(_STORY, encoding="utf-8")
    for part in _PARTS:
        if (folder / part).exists():
            shutil.rmtree(folder / part)
    return folder


def _has_screen() -> bool:
    """Whether a browser would show up in front of somebody."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return sys.stdin is not None and sys.stdin.isatty()


class _Expected:
    """Passes everything on, but tells of what was set aside without counting it: the demo damaged it itself."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def say(self, sentence: str) -> None:
        self._progress.say(sentence)

    def track(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        return self._progress.track(items, what, total)

    def set_aside(self, name: str, reason: str, remedy: str) -> None:
        self._progress.say(f"  set aside  {name}: {reason} {remedy}")

    def note(self, **figures: Any) -> None:
        self._progress.note(**figures)
