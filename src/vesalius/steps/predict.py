"""predict: answers of a model for new scans, on the scans' own grid, in the format that they came in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.core.errors import UnusableInput, UsageError, VesaliusError
from vesalius.core.image import Image, Kind
from vesalius.core.progress import Progress, Silent
from vesalius.core.protocols import RESEARCH_ONLY
from vesalius.steps._answers import Answers, answers_of
from vesalius.tasks.inputs import ANY_ROLE

if TYPE_CHECKING:
    from vesalius.formats.roles import Rules
    from vesalius.formats.scan import Scan
    from vesalius.tasks.models import BundledModel


@dataclass(frozen=True)
class Predicted:
    """What became of one input. It is as identified as the input is.

    Args:
        input: path below its argument, with suffix.
        status: "ok", or one sentence on why there is no answer.
        values: what the table says beside: volumes in ml (`<class>_ml`), or `p_<class>` and `predicted`, or how
            many `candidates` there are and the `highest_score`.
        output: the written mask, or None.
        peak_memory_mb: upper bound of the memory that this input needed.
    """

    input: str
    status: str
    values: Mapping[str, str | float] = field(default_factory=dict)
    output: Path | None = None
    peak_memory_mb: float = 0.0


def predict(
    model: str | Path | BundledModel,
    inputs: str | Path | Sequence[str | Path],
    *,
    to: str | Path,
    force: bool = False,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Predicted]:
    """Run a model on scans and write `predictions.csv`, and beside it masks or `detections.csv`.

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
    from vesalius.tasks.models import load_model

    progress = progress or Silent()
    folder = Path(to)
    if folder.exists() and any(folder.iterdir()) and not force:
        raise UsageError("This folder exists already.", remedy="Add --force to write into it.", file=folder)
    paths = [Path(path) for path in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    for path in paths:
        if not path.exists():
            raise UsageError("This input does not exist.", remedy="Check its spelling.", file=path)
    loaded = load_model(model, threads) if isinstance(model, (str, Path)) else model
    answers = answers_of(loaded, folder)
    rows: list[Predicted] = []
    readable = False
    found = (scan for path in paths for scan in find_scans(path))
    for study in progress.track(_by_study(found, loaded.card), "Predicting"):
        row = _predict_one(loaded, study, answers)
        rows.append(row)
        readable = readable or bool(study.scans)
        if row.status != "ok":
            progress.set_aside(row.input, row.status, "")
    if not rows:
        raise UsageError("No image was found in the inputs.", remedy="Name scans or folders of scans.", file=paths[0])
    answers.finish()
    _write_table(rows, answers.columns, folder)
    if not readable:
        raise UsageError("None of the inputs is a usable image.", remedy=rows[0].status, file=paths[0])
    answered = sum(row.status == "ok" for row in rows)
    progress.note(
        to=str(folder), predicted=answered, research_only=RESEARCH_ONLY,
        rows=[{"input": row.input, "status": row.status} | dict(row.values) for row in rows],
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

    A model with one input, or with none in particular, answers each scan by itself; one that learned from
    cases of several images each (`pooled`) answers for all scans of a DICOM study together. With several
    inputs, the card's role rules pick the scans of each study that the model needs.
    """
    from vesalius.formats.roles import Rules
    from vesalius.formats.scan import Refused

    wanted = list(card["inputs"])
    rules = Rules.from_json(card["roles"]) if card.get("roles") else None
    studies: dict[tuple[str, str], dict[str, Scan]] = {}
    pooled: dict[tuple[str, str], list[Scan]] = {}
    for scan in found:
        if isinstance(scan, Refused):
            yield _Study(scan.name, (), f"{scan.reason} {scan.remedy}".strip())
        elif not wanted and card.get("pooled") and scan.source == "dicom":
            if rules is None or rules.role(scan) != "ignore":
                pooled.setdefault((scan.patient, scan.study), []).append(scan)
        elif len(wanted) < 2:
            if not _is_ignored(scan, rules, wanted[0] if wanted else ANY_ROLE):
                yield _Study(scan.name, (scan,))
        elif rules is not None:
            key = (scan.patient, scan.study or scan.name.rpartition("/")[0])
            studies.setdefault(key, {}).setdefault(rules.role(scan), scan)
    for scans in pooled.values():
        yield _Study(scans[0].name, tuple(scans))
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
    return role == "ignore" or (role != wanted and ANY_ROLE not in (wanted, role))


def _predict_one(model: BundledModel, study: _Study, answers: Answers) -> Predicted:
    if study.problem:
        return Predicted(study.name, study.problem)
    try:
        prediction = model.predict([_as_image(scan) for scan in study.scans])
        if prediction.status != "ok":
            return Predicted(study.name, prediction.status)
        values, output = answers.take(study.name, study.scans, prediction)
    except UnusableInput as error:
        return Predicted(study.name, f"{error.what} {error.remedy}".strip())
    except VesaliusError:
        raise
    except (ValueError, MemoryError, OSError) as error:
        return Predicted(study.name, f"The input could not be worked on ({type(error).__name__}).")
    memory = float(prediction.details.get("peak_memory_mb", 0.0))
    return Predicted(study.name, prediction.status, values, output, memory)


def _as_image(scan: Scan) -> Image:
    return Image(
        id=scan.name, grid=scan.grid, role="image", kind=Kind.INTENSITY, modality=scan.modality,
        channels=scan.channels, pixels=scan.pixels,
    )  # fmt: skip


def _write_table(rows: Sequence[Predicted], columns: Sequence[str], folder: Path) -> None:
    from vesalius.store.files import write_text

    every = list(dict.fromkeys(["input", "status", *columns, *(name for row in rows for name in row.values)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, every, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({"input": row.input, "status": row.status} | dict(row.values))
    write_text(folder / "predictions.csv", text.getvalue())
