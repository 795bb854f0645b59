"""What `predict` writes for each kind of answer: masks and volumes, classes, or places."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vesalius.core.cohort import Label
from vesalius.core.finding import Box, Code
from vesalius.core.grid import Array
from vesalius.core.protocols import Prediction

if TYPE_CHECKING:
    from vesalius.formats.scan import Scan
    from vesalius.tasks.models import BundledModel

Values = Mapping[str, str | float]


class Answers(Protocol):
    """Takes the answers of one kind of model, one input at a time."""

    columns: tuple[str, ...]  # of predictions.csv, beside `input` and `status`

    def take(self, name: str, scans: Sequence[Scan], prediction: Prediction) -> tuple[Values, Path | None]:
        """Write what belongs into a file of its own, and give the row's values and that file."""
        ...

    def finish(self) -> None:
        """Write what can only be written when every input is done."""
        ...


def answers_of(model: BundledModel, folder: Path) -> Answers:
    """What takes this model's answers."""
    kinds: dict[str, Callable[[BundledModel, Path], Answers]] = {
        "segmentation": Masks,
        "classification": Classes,
        "detection": Places,
        "clustering": Clusters,
    }
    return kinds[str(model.card.get("task", "segmentation"))](model, folder)


class Masks:
    """Masks on the scan's own grid: DICOM SEG for DICOM, NIfTI for everything else; volumes in the table."""

    def __init__(self, model: BundledModel, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.labels = _labels(model.card["classes"])
        self.columns = tuple(f"{label.name}_ml" for label in self.labels)
        self._used: set[str] = set()

    def take(self, name: str, scans: Sequence[Scan], prediction: Prediction) -> tuple[Values, Path | None]:
        """Write the mask; volumes in millilitres by class."""
        if prediction.label_map is None:
            return {}, None
        details = prediction.details
        labels = _labels(details["classes"]) if "classes" in details else self.labels
        output = self._write(name, scans[0], prediction.label_map, labels)
        return {f"{name}_ml": round(value, 4) for name, value in details["volumes_ml"].items()}, output

    def finish(self) -> None:
        """Nothing is left to write."""

    def _write(self, name: str, scan: Scan, label_map: Array, labels: Sequence[Label]) -> Path:
        from vesalius.formats.dicom_seg import write_seg
        from vesalius.formats.names import without_suffix
        from vesalius.formats.nifti import write_nifti
        from vesalius.store.files import write_beside

        suffix = ".seg.dcm" if scan.source == "dicom" else ".seg.nii.gz"
        file = without_suffix(name).replace("/", "__").replace("\\", "__") + suffix
        if file in self._used:
            file = name.replace("/", "__").replace("\\", "__") + suffix
        self._used.add(file)
        path = self.folder / file
        if scan.source == "dicom":
            said = {"model_name": str(self.model.card["name"]), "version": self.model.version}
            write_beside(path, lambda beside: write_seg(beside, label_map, labels, scan, **said))
        else:
            narrow = label_map.astype(np.uint8 if label_map.max(initial=0) < 256 else np.uint16)
            write_beside(path, lambda beside: write_nifti(beside, narrow, scan.grid))
        return path


class Classes:
    """A probability for each class, and what is predicted."""

    def __init__(self, model: BundledModel, folder: Path) -> None:
        self.columns = (*(f"p_{entry['name']}" for entry in model.card["classes"]), "predicted")

    def take(self, name: str, scans: Sequence[Scan], prediction: Prediction) -> tuple[Values, Path | None]:
        """The row's columns; several predicted labels are joined by ";"."""
        values: dict[str, str | float] = {
            f"p_{finding.name}": round(finding.score, 6) for finding in prediction.findings
        }
        predicted = prediction.details["predicted"]
        values["predicted"] = predicted if isinstance(predicted, str) else ";".join(predicted)
        return values, None

    def finish(self) -> None:
        """Nothing is left to write."""


class Clusters:
    """The group, its probability and that of every other, and how unusual the input is."""

    def __init__(self, model: BundledModel, folder: Path) -> None:
        names = [f"p_{entry['name']}" for entry in model.card["classes"]]
        self.columns = tuple(name.replace(" ", "_") for name in ("predicted", *names, "anomaly"))

    def take(self, name: str, scans: Sequence[Scan], prediction: Prediction) -> tuple[Values, Path | None]:
        """The row's columns; `anomaly` is the share of training cases that are less unusual."""
        scores = [round(finding.score, 6) for finding in prediction.findings]
        return dict(zip(self.columns, [str(prediction.details["predicted"]), *scores], strict=True)), None

    def finish(self) -> None:
        """Nothing is left to write."""


class Places:
    """Candidates in `detections.csv`, in pixels of the input: x to the right, y down, z along the slices."""

    columns: tuple[str, ...] = ("candidates", "highest_score")

    def __init__(self, model: BundledModel, folder: Path) -> None:
        self.path = folder / "detections.csv"
        self._deep = False
        self._rows: list[tuple[str, str, float, Box]] = []

    def take(self, name: str, scans: Sequence[Scan], prediction: Prediction) -> tuple[Values, Path | None]:
        """Keep the candidates of one input, the surest first."""
        self._deep = self._deep or any(scan.grid.shape[2] > 1 for scan in scans)
        by_image = {scan.name for scan in scans}
        placed = [found for found in prediction.findings if isinstance(found.place, Box)]
        placed.sort(key=lambda found: -found.score)
        for found in placed:
            assert isinstance(found.place, Box)
            source = found.place.image_id if found.place.image_id in by_image else name
            self._rows.append((source, found.name, found.score, found.place))
        highest = round(placed[0].score, 6) if placed else ""
        return {"candidates": len(placed), "highest_score": highest}, None

    def finish(self) -> None:
        """Write the table."""
        from vesalius.store.files import write_text

        depth = 3 if self._deep else 2
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        sizes = ("width", "height", "depth")[:depth]
        writer.writerow(["input", "class", "score", *"xyz"[:depth], *sizes])
        for source, name, score, box in self._rows:
            numbers = (*box.centre[:depth], *box.size[:depth])
            writer.writerow([source, name, round(score, 6), *(round(value, 3) for value in numbers)])
        write_text(self.path, text.getvalue())


def _labels(classes: Sequence[Mapping[str, Any]]) -> tuple[Label, ...]:
    return tuple(
        Label(entry["value"], entry["name"], Code(**entry["code"]) if entry.get("code") else None) for entry in classes
    )
