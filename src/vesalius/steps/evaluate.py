"""evaluate: measure a model and its hand-designed rival on patients that it has not seen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.core.cohort import TRAIN, Cohort
from vesalius.core.identity import seen_hash
from vesalius.core.progress import Progress, Silent
from vesalius.core.protocols import RESEARCH_ONLY, Model, Task
from vesalius.core.report import Metric, Picture, Report, Table
from vesalius.measures.catalogue import measure
from vesalius.measures.summary import MODEL, RIVAL, find_metric
from vesalius.store.sealed import spool_of
from vesalius.tasks.arms import Measured, measure_arms, pictures_of
from vesalius.tasks.held_out import HeldOut, held_out

if TYPE_CHECKING:
    from vesalius.tasks.shortcuts import Shortcuts


def evaluate(
    model: str | Path | Model,
    on: str | Path | Cohort,
    to: str | Path | None = None,
    *,
    seed: int = 0,
    rival: bool = True,
    prevalence: float | None = None,
    reading_seconds: float | None = None,
    open_report: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Measure a model on a cohort and write `report.html`, `report.json` and `cases.csv`.

    On the cohort that the model was fitted on, only the test part is measured; on another, every case. The
    rival that `fit` left in the cohort is measured on the same cases by the same code. One case is held in
    memory at a time. A case whose images or masks cannot be read is set aside for every arm; one that an arm
    gives no answer for counts as an empty answer of that arm, and both are listed.

    Args:
        model: a bundle's folder, the name of a shipped model, or any object of the `Model` protocol.
        on: the cohort or its folder.
        to: folder for the report; by default a new one under `reports/` in the cohort's folder.
        seed: of the intervals.
        rival: measure the hand-designed rival too, where one was fitted.
        prevalence: share of cases at the site that have what is looked for, for the predictive values there.
        reading_seconds: what reading one case takes there; a minute by default.
        open_report: open the page in the browser.
        progress: told how far the work is.

    Returns:
        The report as data.

    Raises:
        PatientOverlap: patients to be measured on were seen in training.
        UsageError: nothing can be measured: no masks, no class in common, or not a single answer.
        BundleError: the model is incomplete or altered.
    """
    from vesalius.privacy import audit
    from vesalius.reporting.write import write_report
    from vesalius.tasks import task_named

    progress = progress or Silent()
    cohort = _cohort(on)
    asked = _model(model)
    site = {"prevalence": prevalence, "seconds": reading_seconds}
    task = task_named(str(asked.card.get("task", "segmentation")), cohort, {**asked.card, "site": site})
    chosen = held_out(cohort, asked.card)
    opponent, remark = _rival(task, cohort, chosen) if rival else (None, "")
    arms: dict[str, Model] = {MODEL: asked} | ({RIVAL: opponent} if opponent else {})
    inputs = tuple(asked.card.get("inputs", ()))
    started = datetime.now().astimezone()
    folder = Path(to) if to is not None else cohort.folder / "reports" / f"{_name(asked)}-{started:%Y%m%d-%H%M%S}"
    chosen = _with_truth(task, chosen)
    audit.enter(cohort.folder, "evaluate", cases=len(chosen.cases))
    with spool_of(cohort.meta) as spool:
        measured = measure_arms(task, arms, chosen.cases, inputs, spool, progress)
        pictures = pictures_of(task, measured, inputs)
    report = _report(task, arms, cohort, chosen, measured, pictures, remark, seed, started)
    page = write_report(report, folder)
    progress.note(
        to=str(folder), report=str(page), cases=len(measured.cases), sentences=list(report.sentences),
        metrics=[metric.as_json() for metric in report.metrics], research_only=RESEARCH_ONLY,
    )  # fmt: skip
    progress.say(f"{report.sentences[0]} The report is {page}. {RESEARCH_ONLY}")
    if open_report:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return report


def _cohort(on: str | Path | Cohort) -> Cohort:
    if isinstance(on, Cohort):
        return on
    from vesalius.store.cohort import open_cohort

    return open_cohort(on)


def _model(model: str | Path | Model) -> Model:
    if not isinstance(model, (str, Path)):
        return model
    from vesalius.tasks.models import load_model

    return load_model(model)


def _name(model: Model) -> str:
    """The model's name, fit for a folder's."""
    name = str(model.card.get("name") or type(model).__name__)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "model"


def _with_truth(task: Task, chosen: HeldOut) -> HeldOut:
    """Only the cases whose truth answers the question; all where none does, so that the reasons are told."""
    known = tuple(case for case in chosen.cases if task.usable(case))
    without = len(chosen.cases) - len(known)
    if not known or not without:
        return chosen
    return replace(chosen, cases=known, sentence=f"{chosen.sentence} {_cases(without)} without truth left out.")


def _rival(task: Task, cohort: Cohort, chosen: HeldOut) -> tuple[Model | None, str]:
    """The rival fitted on this cohort, or a sentence on why there is none to compare with."""
    from vesalius.classical.storage import load_rival, rival_folder
    from vesalius.tasks import question_of

    folder = rival_folder(cohort, question_of(task, cohort))
    if not folder.exists():
        where = "" if chosen.own else " A rival is fitted with a model, on the cohort that the model learns from."
        return None, f"No hand-designed rival was fitted on this cohort.{where}"
    seen = {seen_hash(case.patient) for case in cohort.part(TRAIN)}
    if seen & {seen_hash(case.patient) for case in chosen.cases}:
        return None, "The rival of this cohort is left out: it was fitted on patients that are measured on here."
    found = load_rival(folder)
    classes = [(entry["value"], entry["name"]) for entry in task.card(cohort)["classes"]]
    if [(entry["value"], entry["name"]) for entry in found.card["classes"]] != classes:
        return None, "The rival of this cohort is left out: the classes have changed since it was fitted."
    return found, ""


def _report(
    task: Task,
    arms: Mapping[str, Model],
    cohort: Cohort,
    chosen: HeldOut,
    measured: Measured,
    pictures: Sequence[Picture],
    remark: str,
    seed: int,
    started: datetime,
) -> Report:
    """Everything that was found, as data."""
    scores = measured.scores
    metrics = task.metrics(scores, seed=seed)
    card = arms[MODEL].card
    words = {MODEL: "the network" if "network" in card else "the model"}
    if RIVAL in arms:
        words[RIVAL] = f"the {arms[RIVAL].card.get('name', 'hand-designed rival')}"
    without, without_sentence, without_table = _without_duplicates(task, cohort, chosen, measured, metrics, seed)
    sentences = [*task.sentences(scores, metrics, words), chosen.sentence, remark, without_sentence]
    sentences += [*_losses(measured), *(arms[RIVAL].card.get("sentences", ()) if RIVAL in arms else ())]
    shortcuts = _shortcuts(card)
    sentences += shortcuts.sentences if shortcuts else ()
    tables = [*task.tables(scores), *without_table, *_listed(measured)]
    tables += [shortcuts.table] if shortcuts and shortcuts.table else []
    patients = {case.patient for case in measured.cases}
    return Report(
        title=f"{card.get('name') or type(arms[MODEL]).__name__} on {cohort.name}",
        task=task.name,
        sentences=tuple(sentence[0].upper() + sentence[1:] for sentence in sentences if sentence),
        metrics=metrics,
        scores=tuple(scores),
        tables=tuple(tables),
        plots=tuple(task.plots(measured.cases, scores)),
        pictures=tuple(pictures),
        card=_readable(card),
        arms=words,
        facts={
            "Cohort": cohort.name,
            "Cases": str(len(measured.cases)),
            "Patients": str(len(patients)),
            **({"Without near-duplicates": f"{without} cases"} if without_table else {}),
            "Measured": f"{started:%d %B %Y, %H:%M}",
            "Seed": str(seed),
        },
    )


def _shortcuts(card: Mapping[str, Any]) -> Shortcuts | None:
    """What was found before the model was fitted, where its task looks for shortcuts."""
    from vesalius.tasks.shortcuts import Shortcuts

    return Shortcuts.from_json(card["shortcuts"]) if card.get("shortcuts") else None


def _without_duplicates(
    task: Task, cohort: Cohort, chosen: HeldOut, measured: Measured, metrics: Sequence[Metric], seed: int
) -> tuple[int, str, list[Table]]:
    """Where a given split has near-duplicates across its parts: the figures without them, beside all."""
    split = cohort.split
    if (
        split is None
        or not split.given
        or not split.duplicates
        or {c.id for c in chosen.cases} == {case.id for case in cohort}
    ):
        return 0, "", []
    twins = {case for pair in split.duplicates for case in pair}
    kept = [score for score in measured.scores if score.case not in twins]
    rest = len({score.case for score in kept})
    pairs = "1 pair" if len(split.duplicates) == 1 else f"{len(split.duplicates)} pairs"
    sentence = (
        f"The split was given and has {pairs} of near-duplicate cases across its parts; "
        f"{len(measured.cases) - rest} of the measured cases belong to one."
    )
    if not kept:
        return 0, f"{sentence} Without them nothing is left to measure.", []
    rows = []
    for fewer in task.metrics(kept, seed=seed):
        every = find_metric(metrics, fewer.arm, fewer.name, fewer.class_name)
        if every is not None and fewer.class_name == "all":
            rows.append((measure(fewer.name).heading, fewer.arm, str(every), str(fewer)))
    table = Table("Without near-duplicates", ("Measure", "Arm", "All cases", "Without them"), tuple(rows))
    return rest, f"{sentence} The figures without them stand beside.", [table]


def _losses(measured: Measured) -> list[str]:
    """How many cases could not be read, and how many an arm had no answer for."""
    found = []
    if measured.aside:
        found.append(f"{_cases(len(measured.aside))} could not be read: left out; the reasons are listed below.")
    for arm in (MODEL, RIVAL):
        count = sum(1 for _, silent, _ in measured.unanswered if silent == arm)
        if count:
            found.append(f"The {arm} gave no answer for {_cases(count).lower()}; there it counts as an empty one.")
    return found


def _listed(measured: Measured) -> list[Table]:
    tables = []
    if measured.aside:
        tables.append(Table("Cases set aside", ("Case", "Reason"), tuple(measured.aside)))
    if measured.unanswered:
        tables.append(Table("No answer", ("Case", "Arm", "Reason"), tuple(measured.unanswered)))
    return tables


def _cases(count: int) -> str:
    return "One case" if count == 1 else f"{count} cases"


def _readable(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card without the long list of hashes, which only programs read."""
    found = {key: value for key, value in card.items() if key != "patients_seen"}
    if "patients_seen" in card:
        found["patients_seen"] = len(card["patients_seen"])
    return found
