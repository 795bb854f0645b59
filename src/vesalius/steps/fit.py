"""fit: learn a model from the training part within a budget, and fit its hand-designed rival beside it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.core.case import Case
from vesalius.core.cohort import TEST, TRAIN, Cohort
from vesalius.core.errors import MissingExtra, UnusableInput, UsageError
from vesalius.core.identity import seen_hash
from vesalius.core.progress import Progress, Silent
from vesalius.core.protocols import RESEARCH_ONLY, Rival, Task

if TYPE_CHECKING:
    from vesalius.tasks.models import BundledModel

_NO_WEIGHTS = "none"
_MEASURING_SHARE = 0.03  # of the budget, kept for writing the bundle and measuring it on the test part
_MEASURING_SECONDS = 10.0


def fit(
    cohort: str | Path | Cohort,
    task: str = "segmentation",
    *,
    target: str | None = None,
    ordinal: bool = False,
    minutes: float = 15.0,
    to: str | Path | None = None,
    inputs: Sequence[str] | None = None,
    folds: int = 1,
    seed: int = 0,
    resume: bool = False,
    plan: str | Path | None = None,
    device: str | None = None,
    network: Callable[..., Any] | None = None,
    rival: bool = True,
    weights: str | Path | None = None,
    weights_licence: str = "",
    hide_marks: bool = False,
    licence: str = "",
    attribution: str = "",
    progress: Progress | None = None,
) -> BundledModel:
    """Fit a model to the training part of a cohort, measure it on the test part, and write its bundle.

    Args:
        cohort: the cohort or its folder. Its split is drawn first where there is none.
        task: the question: `segmentation`, `classification` or `detection`.
        target: what is asked of each case: a covariate, the name of a finding, or a value of one of a finding's
            attributes; several with commas between. The only one that there is if left out.
        ordinal: the classes of the target are numbers whose order counts.
        minutes: budget of the whole process from start to written bundle; the rival's time comes on top and
            is reported.
        to: folder of the bundle; by default `models/<task>` in the cohort's folder.
        inputs: roles of the images that the network takes, in order; by default the role that has the masks
            (segmentation), or every image of a case, pooled to one answer.
        folds: 1 fits one network; 2 or more fit that many, each without one fold, as an ensemble.
        seed: every random choice follows from it.
        resume: go on from the checkpoint of an interrupted run with the same `to`.
        plan: `card.json` whose plan is used again instead of measuring the machine.
        device: "cpu" or "cuda"; by default CUDA where there is one.
        network: a network of one's own, `network(channels, classes, dimensions) -> torch.nn.Module`.
        rival: fit the hand-designed rival too.
        weights: a local safetensors file of a pretrained backbone (torchvision's ResNet-18, 34 or 50) whose
            features a classification of planes may take; "none" leaves out the shipped ones too.
        weights_licence: of that file, for the card.
        hide_marks: in a classification of planes, hide what devices burned into them; see `imaging.marks`.
        licence, attribution: of the data, for the card.
        progress: told how far the work is.

    Returns:
        The model, as it will be loaded at the bedside.

    Raises:
        UsageError: the cohort cannot answer the question, with every problem that it has.
        MissingExtra: the training side is not installed.
    """
    from vesalius.privacy import audit
    from vesalius.steps.split import split
    from vesalius.store.sealed import spool_of
    from vesalius.tasks import task_named

    started = time.perf_counter()
    progress = progress or Silent()
    if task != "classification" and (hide_marks or (weights is not None and str(weights) != _NO_WEIGHTS)):
        raise UsageError("--weights FILE and --hide-marks are for classification.", remedy="Fit without them.")
    study = split(cohort, seed=seed, progress=progress)
    asked = task_named(task, study, {"target": target, "ordinal": ordinal})
    problems = asked.problems(study)
    if problems:
        raise UsageError(" ".join(problems), file=study.folder)
    roles = tuple(inputs) if inputs else asked.default_inputs(study)
    train = usable(asked, study.part(TRAIN), roles)
    test = usable(asked, study.part(TEST), roles)
    if not train:
        raise UsageError(f"No training case has truth and the inputs {', '.join(roles)}.", file=study.folder)
    folder = Path(to) if to is not None else study.folder / "models" / task
    work = folder.parent / f".{folder.name}.fitting"
    reserve = _MEASURING_SECONDS + _MEASURING_SHARE * 60 * minutes
    FitSettings = _training_side()
    from vesalius.reporting.plots import write_plot

    settings = FitSettings(
        minutes=(60 * minutes - reserve - (time.perf_counter() - started)) / 60,
        seed=seed, folds=folds, resume=resume, device=device, plan=_stored_plan(plan), inputs=roles,
        network=network, weights=None if weights is None or str(weights) == _NO_WEIGHTS else Path(weights),
        weights_licence=weights_licence, shipped_weights=str(weights) != _NO_WEIGHTS, hide_marks=hide_marks,
    )  # fmt: skip
    audit.enter(study.folder, "fit", cases=len(train))
    fitted = asked.learn(study, train, settings, work, progress)
    card = {
        **_card(study, task, folder.name, roles, train, seed),
        **asked.card(study),
        **fitted.card,
        "pooled": not roles and _several(train, fitted.card),
        "data": {"licence": licence, "attribution": attribution},
    }
    with spool_of(study.meta) as spool:
        model = _measured(folder, fitted.files, card, asked, test, spool, seed, progress)
    write_plot(fitted.curve, folder.parent / f"{folder.name}.curve.png")
    shutil.rmtree(work, ignore_errors=True)
    seconds = time.perf_counter() - started
    progress.note(
        model=str(folder), seconds=round(seconds, 1), budget_seconds=60 * minutes, plan=model.card["plan"],
        metrics=model.card["metrics"],
    )  # fmt: skip
    progress.say(f"Fitted in {seconds / 60:.1f} of {minutes:g} minutes: {folder}. {RESEARCH_ONLY}")
    opponent = asked.rival(study) if rival else None
    if opponent is not None:
        _fit_rival(opponent, asked, study, train, roles, progress)
    return model


def _several(train: Sequence[Case], card: Mapping[str, Any]) -> bool:
    """Whether the images of a study belong together: most cases have several, or they are compared with each other."""
    return 2 * sum(len(case.images) > 1 for case in train) > len(train) or card.get("other_views") is not None


def _training_side() -> Any:
    try:
        from vesalius.learning.study import FitSettings
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"The training side is not installed: there is no {error.name}.",
            remedy="Install it with `pip install 'vesalius[train]'`.",
        ) from error
    return FitSettings


def usable(task: Task, cases: Sequence[Case], roles: Sequence[str]) -> tuple[Case, ...]:
    """The cases that have truth and every input."""
    return tuple(case for case in cases if task.usable(case) and all(case.image(role) for role in roles))


def _stored_plan(plan: str | Path | None) -> Mapping[str, Any] | None:
    if plan is None:
        return None
    try:
        card = json.loads(Path(plan).read_text(encoding="utf-8"))
        return dict(card["plan"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError("There is no stored plan here.", remedy="Give the card.json of a model.", file=plan) from error


def _card(
    cohort: Cohort, task: str, name: str, roles: Sequence[str], train: Sequence[Case], seed: int
) -> dict[str, Any]:
    from vesalius import __version__
    from vesalius.formats.roles import load_rules

    assert cohort.split is not None
    rules = load_rules((cohort.folder / "roles.toml").read_text(encoding="utf-8"))
    patients = sorted({case.patient for case in train})
    return {
        "name": name,
        "task": task,
        "research_only": RESEARCH_ONLY,
        "vesalius": __version__,
        "inputs": list(roles),
        "roles": rules.as_json(),
        "seed": seed,
        "cohort": {
            "digest": cohort.digest,
            "cases": len(train),
            "patients": len(patients),
            "split": cohort.split.how,
        },
        "patients_seen": sorted(seen_hash(patient) for patient in patients),
        "metrics": [],
    }


def _measured(
    folder: Path,
    files: Mapping[str, bytes],
    card: dict[str, Any],
    task: Task,
    test: Sequence[Case],
    spool: Path,
    seed: int,
    progress: Progress,
) -> BundledModel:
    """Write the bundle, measure it on the test part as it will run at the bedside, and write the figures in."""
    from vesalius.measures.summary import MODEL
    from vesalius.store.bundle import write_bundle
    from vesalius.tasks.arms import measure_arms
    from vesalius.tasks.models import load_model

    write_bundle(folder, files, card)
    model = load_model(folder)
    measured = measure_arms(task, {MODEL: model}, test, card["inputs"], spool, progress)
    metrics = task.metrics(measured.scores, seed=seed)
    write_bundle(folder, files, {**card, "metrics": [metric.as_json() for metric in metrics]})
    for metric in metrics:
        if metric.name == task.primary:
            progress.say(f"{metric.name}, {metric.class_name}: {metric}")
    return load_model(folder)


def _fit_rival(
    rival: Rival, task: Task, cohort: Cohort, train: Sequence[Case], roles: Sequence[str], progress: Progress
) -> None:
    from vesalius.classical.storage import rival_folder, save_rival
    from vesalius.tasks import question_of

    started = time.perf_counter()
    progress.say("Fitting the hand-designed rival; this is not part of the budget.")
    try:
        fitted = rival.fit(train, cohort, roles)
    except UnusableInput as error:  # the model stands; there is only nothing to hold it against
        progress.note(rival=None)
        progress.say(f"No hand-designed rival could be fitted. {error.what}")
        return
    save_rival(fitted, rival_folder(cohort, question_of(task, cohort)))
    seconds = time.perf_counter() - started
    progress.note(rival=fitted.card["name"], rival_seconds=round(seconds, 1))
    progress.say(f"The rival is {fitted.card['name']}; it took {seconds / 60:.1f} minutes.")
