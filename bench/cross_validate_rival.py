"""Cross-validate the hand-designed rival of a question by patient: every figure is of cases that it has not seen.

    python bench/cross_validate_rival.py COHORT classification --target malignant [--folds 5] [--seed 0]
    python bench/cross_validate_rival.py COHORT detection --target lesion

COHORT is a folder made by `vesalius ingest` and `vesalius label`. Near-duplicates that the cohort's split knows of
are kept on one side of every fold. The answers of all folds are judged together, by the code that judges models.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from vesalius.core.cohort import Cohort
from vesalius.core.progress import Silent
from vesalius.core.report import Score
from vesalius.measures.summary import MODEL
from vesalius.store.cohort import open_cohort
from vesalius.tasks import task_named
from vesalius.tasks.arms import measure_arms


def patient_folds(cohort: Cohort, count: int, seed: int) -> dict[str, int]:
    """Fold of each patient, drawn at random; patients with near-duplicate images stay together."""
    joined = {patient: patient for patient in cohort.patients}

    def root(patient: str) -> str:
        while joined[patient] != patient:
            patient = joined[patient]
        return patient

    whose = {case.id: case.patient for case in cohort}
    for one, other in cohort.split.duplicates if cohort.split else ():
        joined[root(whose[one])] = root(whose[other])
    groups = sorted({root(patient) for patient in cohort.patients})
    drawn = np.random.default_rng(seed).permutation(len(groups))
    fold = {groups[int(number)]: place % count for place, number in enumerate(drawn)}
    return {patient: fold[root(patient)] for patient in cohort.patients}


def main() -> None:
    """Fit on all folds but one, measure on that one, for each; print the figures of all together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("task", choices=["classification", "detection", "segmentation"])
    parser.add_argument("--target")
    parser.add_argument("--ordinal", action="store_true")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    cohort = open_cohort(asked.cohort)
    task = task_named(asked.task, cohort, {"target": asked.target, "ordinal": asked.ordinal})
    roles = task.default_inputs(cohort)
    usable = [case for case in cohort if task.usable(case)]
    fold = patient_folds(cohort, asked.folds, asked.seed)
    scores: list[Score] = []
    fitting, answering = 0.0, 0.0
    for number in range(asked.folds):
        started = time.process_time()
        model = task.rival(cohort).fit([case for case in usable if fold[case.patient] != number], cohort, roles)
        fitted = time.process_time()
        held = [case for case in usable if fold[case.patient] == number]
        with tempfile.TemporaryDirectory() as spool:
            scores += measure_arms(task, {MODEL: model}, held, roles, Path(spool), Silent()).scores
        fitting, answering = fitting + fitted - started, answering + time.process_time() - fitted
        print(f"fold {number + 1}: {model.card['sentences'][0]}", flush=True)
    for metric in task.metrics(scores, seed=asked.seed):
        print(f"{metric.name}, {metric.class_name}: {metric}")
    print(
        f"CPU seconds: {fitting / asked.folds:.0f} to fit, {answering / len(usable):.2f} per case to answer and judge"
    )


if __name__ == "__main__":
    main()
