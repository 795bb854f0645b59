"""predict: answers of a model for new scans, on the scans' own grid, in the format that they came in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.core.cohort import Label
from vesalius.core.errors import UnusableInput, UsageError, VesaliusError
from vesalius.core.finding import Code
from vesalius.core.grid import Array
from vesalius.core.image import Image, Kind
from vesalius.core.progress import Progress, Silent
from vesalius.core.protocols import RESEARCH_ONLY

if TYPE_CHECKING:
    from vesalius.formats.roles import Rules
    from vesalius.formats.scan import Scan
    from vesalius.inference.segmenter import Segmenter


@dataclass(frozen=True)
class Predicted:
    """What became of one input. It is as identified as the input is.

    Args:
        input: path below its argument, with suffix.
        status: "ok", or one sentence on why there is no answer.
        volumes: millilitres by class.
        output: the written mask, or None.
        peak_memory_mb: upper bound of the memory that this input needed.
    """

    input: str
    status: str
    volumes: Mapping[str, float] = field(default_factory=dict)
    output: Path | None = None
    peak_memory_mb: float = 0.0


def predict(
    model: str | Path | Segmenter,
    inputs: str | Path | Sequence[str | Path],
    *,
    to: str | Path,
    force: bool = False,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Predicted]:
    """Run a model on scans and write masks and `predictions.csv`.

    Inputs stream one by one through one loaded model. Outputs are as identified as their inputs and stay in
    `to`. A run that was interrupted leaves no half-written file, and no `predictions.csv`.

    Args:
        model: a bundle's folder, the name of a shipped model, or a loaded model.
        inputs: files, folders and DICOM series.
        to: folder for the outputs; one that exists is not overwritten without `force`.
        threads: CPU threads; all by default.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told how far the work is.

    Returns:
        A row per input, in order.

    Raises:
        UsageError: an input does not exist, or `to` does.
        BundleError: the model is incomplete or altered.
    """
    from vesalius.formats.find import find_scans
    from vesalius.inference.segmenter import Segmenter
    from vesalius.store.bundle import open_bundle

    progress = progress or Silent()
    folder = Path(to)
    if folder.exists() and any(folder.iterdir()) and not force:
        raise UsageError("This folder exists already.", remedy="Add --force to write into it.", file=folder)
    paths = [Path(path) for path in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    for path in paths:
        if not path.exists():
            raise UsageError("This input does not exist.", remedy="Check its spelling.", file=path)
    segmenter = model if isinstance(model, Segmenter) else Segmenter(open_bundle(model), threads)
    labels = _labels(segmenter.card)
    rows: list[Predicted] = []
    used: set[str] = set()
    readable = False
    found = (scan for path in paths for scan in find_scans(path))
    for study in progress.track(_by_study(found, segmenter.card), "Predicting"):
        row = _predict_one(segmenter, study, labels, folder, used)
        rows.append(row)
        readable = readable or bool(study.scans)
        if row.status != "ok":
            progress.set_aside(row.input, row.status, "")
    if not rows:
        raise UsageError("No image was found in the inputs.", remedy="Name scans or folders of scans.", file=paths[0])
    _write_table(rows, labels, folder)
    if not readable:
        raise UsageError("None of the inputs is a usable image.", remedy=rows[0].status, file=paths[0])
    answered = sum(row.status == "ok" for row in rows)
    progress.note(
        to=str(folder), predicted=answered, research_only=RESEARCH_ONLY,
        rows=[{"input": row.input, "status": row.status} | _columns(row) for row in rows],
    )  # fmt: skip
    progress.say(f"{answered} of {len(rows)} inputs answered in {folder}. {RESEARCH_ONLY}")
    return rows


@dataclass(frozen=True)
class _Study:
    """The scans that the model needs together, in the order of its inputs; or why there are none."""

    name: str
    scans: tuple[Scan, ...]
    problem: str = ""


def _by_study(found: Iterable[Any], card: Mapping[str, Any]) -> Iterator[_Study]:
    """Group what was found into what the model answers together.

    A model with one input answers each scan by itself. With several inputs, the card's role rules pick the
    scans of each study that the model needs.
    """
    from vesalius.formats.roles import Rules
    from vesalius.formats.scan import Refused

    wanted = list(card["inputs"])
    rules = Rules.from_json(card["roles"]) if card.get("roles") else None
    studies: dict[tuple[str, str], dict[str, Scan]] = {}
    for scan in found:
        if isinstance(scan, Refused):
            yield _Study(scan.name, (), f"{scan.reason} {scan.remedy}".strip())
        elif len(wanted) == 1:
            if not _is_ignored(scan, rules, wanted[0]):
                yield _Study(scan.name, (scan,))
        elif rules is not None:
            key = (scan.patient, scan.study or scan.name.rpartition("/")[0])
            studies.setdefault(key, {}).setdefault(rules.role(scan), scan)
    for roles in studies.values():
        missing = [role for role in wanted if role not in roles]
        if missing:
            name = next(iter(roles.values())).name
            yield _Study(name, (), f"The study lacks {', '.join(missing)}.")
        else:
            yield _Study(roles[wanted[0]].name, tuple(roles[role] for role in wanted))


def _is_ignored(scan: Scan, rules: Rules | None, wanted: str) -> bool:
    """Whether the rules pass over a DICOM series of a study: files are named by the user and always meant."""
    if rules is None or scan.source != "dicom":
        return False
    role = rules.role(scan)
    return role == "ignore" or (role != wanted and wanted != "image" and role != "image")


def _predict_one(
    segmenter: Segmenter, study: _Study, labels: Sequence[Label], folder: Path, used: set[str]
) -> Predicted:
    if study.problem:
        return Predicted(study.name, study.problem)
    try:
        images = [_as_image(scan) for scan in study.scans]
        prediction = segmenter.predict(images)
        if prediction.label_map is None:
            return Predicted(study.name, prediction.status)
        shown = _labels_of(prediction.details, labels)
        output = _write_mask(study, prediction.label_map, shown, folder, segmenter, used)
    except UnusableInput as error:
        return Predicted(study.name, f"{error.what} {error.remedy}".strip())
    except VesaliusError:
        raise
    except (ValueError, MemoryError, OSError) as error:
        return Predicted(study.name, f"The input could not be worked on ({type(error).__name__}).")
    details = prediction.details
    return Predicted(study.name, prediction.status, details["volumes_ml"], output, details["peak_memory_mb"])


def _as_image(scan: Scan) -> Image:
    return Image(
        id=scan.name, grid=scan.grid, role="image", kind=Kind.INTENSITY, modality=scan.modality,
        channels=scan.channels, pixels=scan.pixels,
    )  # fmt: skip


def _labels(card: Mapping[str, Any]) -> tuple[Label, ...]:
    return tuple(
        Label(entry["value"], entry["name"], Code(**entry["code"]) if entry.get("code") else None)
        for entry in card["classes"]
    )


def _labels_of(details: Mapping[str, Any], labels: Sequence[Label]) -> tuple[Label, ...]:
    """The classes of this answer: the card's, or those that the finder of a whole head made of them."""
    if "classes" not in details:
        return tuple(labels)
    return _labels({"classes": details["classes"]})


def _write_mask(
    study: _Study,
    label_map: Array,
    labels: Sequence[Label],
    folder: Path,
    segmenter: Segmenter,
    used: set[str],
) -> Path:
    from vesalius.formats.dicom_seg import write_seg
    from vesalius.formats.names import without_suffix
    from vesalius.formats.nifti import write_nifti
    from vesalius.store.files import write_beside

    scan = study.scans[0]
    suffix = ".seg.dcm" if scan.source == "dicom" else ".seg.nii.gz"
    name = without_suffix(study.name).replace("/", "__").replace("\\", "__") + suffix
    if name in used:
        name = study.name.replace("/", "__").replace("\\", "__") + suffix
    used.add(name)
    path = folder / name
    if scan.source == "dicom":
        card = segmenter.card
        write_beside(
            path,
            lambda beside: write_seg(
                beside, label_map, labels, scan, model_name=str(card["name"]), version=segmenter.version
            ),
        )
    else:
        narrow = label_map.astype(np.uint8 if label_map.max(initial=0) < 256 else np.uint16)
        write_beside(path, lambda beside: write_nifti(beside, narrow, scan.grid))
    return path


def _columns(row: Predicted) -> dict[str, float]:
    return {f"{name}_ml": round(value, 4) for name, value in row.volumes.items()}


def _write_table(rows: Sequence[Predicted], labels: Sequence[Label], folder: Path) -> None:
    from vesalius.store.files import write_text

    columns = ["input", "status", *(f"{entry.name}_ml" for entry in labels)]
    columns += [name for row in rows for name in _columns(row) if name not in columns]
    columns = list(dict.fromkeys(columns))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({"input": row.input, "status": row.status} | _columns(row))
    write_text(folder / "predictions.csv", text.getvalue())
