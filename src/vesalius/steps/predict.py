"""predict: answers of a model for new scans, on the scans' own grid, in the format that they came in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.core.errors import UnusableInput, UsageError, VesaliusError
from vesalius.core.image import Image, Kind
from vesalius.core.progress import Progress, Silent
from vesalius.core.protocols import RESEARCH_ONLY
from vesalius.steps._answers import Answers, Values, answers_of
from vesalius.steps._owners import Owners
from vesalius.tasks.inputs import ANY_ROLE

if TYPE_CHECKING:
    from vesalius.formats.scan import Scan
    from vesalius.tasks.models import BundledModel


@dataclass(frozen=True)
class Predicted:
    """What became of one input. It is as identified as the input is.

    Args:
        input: path below its argument, with suffix; of several that were answered together, the first.
        status: "ok", or one sentence on why there is no answer.
        values: what the table says beside: volumes in ml (`<class>_ml`), or `p_<class>` and `predicted`, or how
            many `candidates` there are and the `highest_score`; `left_out` names images of a case that could not
            be used, where the others were answered.
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
    table: str | Path | None = None,
    patient: str | None = None,
    case: str | None = None,
    key: str | None = None,
    force: bool = False,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Predicted]:
    """Run a model on scans and write `predictions.csv`, and beside it masks or `detections.csv`.

    Inputs stream one by one through one loaded model; those that are answered together wait until all were found.
    Outputs are as identified as their inputs and stay in `to`. A run that was interrupted leaves no half-written
    file, and no `predictions.csv`.

    Args:
        model: a bundle's folder, the name of a shipped model, or a loaded model.
        inputs: files, folders and DICOM series.
        to: folder for the outputs; one that exists is not overwritten without `force`.
        table: CSV that is matched with the files by its `key` column, as for `ingest`.
        patient: column of `table` that names the patient, where cases of different patients have one name.
        case: column of `table` that joins several files into one case, which is answered together.
        key: column that names the files; by default the first of input, file, image and id that the table has.
        threads: CPU threads; all by default.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told how far the work is.

    Returns:
        A row per input in order, then a row for each case or study of several.

    Raises:
        UsageError: an input does not exist, `to` does, or the table cannot be used.
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
    owners = _owners(table, key, patient, case, loaded.card)
    answers = answers_of(loaded, folder)
    rows: list[Predicted] = []
    readable = False
    found = _named_apart((path, scan) for path in paths for scan in find_scans(path))
    for study in progress.track(_by_study(found, loaded.card, owners), "Predicting"):
        row, aside = _predict_one(loaded, study, answers)
        rows.append(row)
        readable = readable or bool(study.members)
        for name, reason in ({row.input: row.status} if row.status != "ok" else aside).items():
            progress.set_aside(name, reason, "")
    if not rows:
        raise UsageError("No image was found in the inputs.", remedy="Name scans or folders of scans.", file=paths[0])
    if owners is not None:
        _say_unnamed(rows, owners, progress)
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
    """The scans that the model needs together with their roles, in the order of its inputs; or why there are none."""

    name: str
    members: tuple[tuple[Scan, str], ...]
    problem: str = ""


def _owners(
    table: str | Path | None, key: str | None, patient: str | None, case: str | None, card: Mapping[str, Any]
) -> Owners | None:
    """Which files belong together, where a table says so."""
    if table is None:
        if patient or case or key:
            raise UsageError("--patient, --case and --key name columns of a table.", remedy="Add --table FILE.csv.")
        return None
    if case is None:
        raise UsageError("--table is here to join files.", remedy="Name the column that does so with --case.")
    if len(card["inputs"]) == 1:
        raise UsageError("The model answers each image by itself.", remedy="Leave --table out.")
    return Owners.of(table, key, patient, case, None)


def _say_unnamed(rows: Sequence[Predicted], owners: Owners, progress: Progress) -> None:
    """Tell which inputs the table did not join.

    Raises:
        UsageError: it joined none.
    """
    alone = sum(owners.named(row.input) is None for row in rows)
    remedy = "Check --key, and how the table writes their paths."
    if alone and alone == len(rows):
        raise UsageError("The table names none of the inputs.", remedy=remedy)
    if alone:
        progress.say(f"{alone} inputs are not named in the table; each was answered by itself. {remedy}")


def _named_apart(found: Iterable[tuple[Path, Any]]) -> Iterator[Any]:
    """What was found, with its folder before the name where another argument holds a like-named input."""
    names: set[str] = set()
    for path, scan in found:
        folder = path if path.is_dir() else path.parent
        tried = (scan.name, f"{folder.name}/{scan.name}", f"{folder.as_posix()}/{scan.name}")
        name = next((name for name in tried if name not in names), tried[-1])
        names.add(name)
        yield scan if name == scan.name else replace(scan, name=name)


def _by_study(found: Iterable[Any], card: Mapping[str, Any], owners: Owners | None) -> Iterator[_Study]:
    """Group what was found into what the model answers together.

    A model with one input, or with none in particular, answers each scan by itself; one that learned from
    cases of several images each (`pooled`) answers for all scans of a DICOM study together. With several
    inputs, the card's role rules pick the scans of each study that the model needs. Where a table joins inputs
    (`owners`), its cases take the place of studies.
    """
    from vesalius.formats.roles import FALLBACK, Rules
    from vesalius.formats.scan import Refused

    wanted = list(card["inputs"])
    rules = Rules.from_json(card["roles"]) if card.get("roles") else None
    studies: dict[tuple[bool, str, str], dict[str, tuple[Scan, str]]] = {}
    pooled: dict[tuple[bool, str, str], list[tuple[Scan, str]]] = {}
    for scan in found:
        if isinstance(scan, Refused):
            yield _Study(scan.name, (), f"{scan.reason} {scan.remedy}".strip())
            continue
        role = rules.role(scan) if rules is not None else FALLBACK
        joined = owners is not None and owners.named(scan.name) is not None
        case = (scan.patient, scan.study)
        if owners is not None and joined:
            case = owners.of_scan(scan.name, scan.patient, scan.study)
        if len(wanted) > 1:
            key = (joined, case[0], case[1] or scan.name.rpartition("/")[0])
            studies.setdefault(key, {}).setdefault(role, (scan, role))
        elif _is_ignored(scan, role, wanted[0] if wanted else ANY_ROLE):
            continue
        elif not wanted and (joined or (card.get("pooled") and scan.source == "dicom" and scan.study)):
            pooled.setdefault((joined, *case), []).append((scan, role))
        else:
            yield _Study(scan.name, ((scan, role),))
    for members in pooled.values():
        yield _Study(members[0][0].name, tuple(members))
    for roles in studies.values():
        missing = [role for role in wanted if role not in roles]
        if missing:
            name = next(iter(roles.values()))[0].name
            yield _Study(name, (), f"The study lacks {', '.join(missing)}.")
        else:
            yield _Study(roles[wanted[0]][0].name, tuple(roles[role] for role in wanted))


def _is_ignored(scan: Scan, role: str, wanted: str) -> bool:
    """Whether the rules pass over a DICOM series of a study: files are named by the user and always meant."""
    from vesalius.formats.roles import IGNORE

    return scan.source == "dicom" and (role == IGNORE or (role != wanted and ANY_ROLE not in (wanted, role)))


def _predict_one(model: BundledModel, study: _Study, answers: Answers) -> tuple[Predicted, Mapping[str, str]]:
    """A study's row, and why some of its images were left out of it."""
    if study.problem:
        return Predicted(study.name, study.problem), {}
    try:
        prediction = model.predict([_as_image(scan, role) for scan, role in study.members])
        if prediction.status != "ok":
            return Predicted(study.name, prediction.status), {}
        values, output = answers.take(study.name, [scan for scan, _ in study.members], prediction)
    except UnusableInput as error:
        return Predicted(study.name, f"{error.what} {error.remedy}".strip()), {}
    except VesaliusError:
        raise
    except (ValueError, MemoryError, OSError) as error:
        return Predicted(study.name, f"The input could not be worked on ({type(error).__name__})."), {}
    aside = prediction.details.get("aside") or {}
    left_out: Values = {"left_out": ";".join(aside)} if aside else {}
    memory = float(prediction.details.get("peak_memory_mb", 0.0))
    return Predicted(study.name, prediction.status, {**values, **left_out}, output, memory), aside


def _as_image(scan: Scan, role: str) -> Image:
    return Image(
        id=scan.name, grid=scan.grid, role=role, kind=Kind.INTENSITY, modality=scan.modality,
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
