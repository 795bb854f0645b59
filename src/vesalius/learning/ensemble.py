"""Put an ensemble together whose networks were trained by several processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vesalius.core.case import Case
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.progress import Progress
from vesalius.core.protocols import Fitted
from vesalius.learning.fit import finished
from vesalius.learning.loop import load_checkpoint
from vesalius.learning.plan import Plan
from vesalius.learning.study import FitSettings, study_of


def export_ensemble(
    cohort: Cohort,
    train_cases: Sequence[Case],
    settings: FitSettings,
    works: Sequence[Path],
    progress: Progress,
) -> Fitted:
    """Put the networks together that processes trained apart (`FitSettings.only`), as far as they have come.

    A network that is in none of the folders is left out of the ensemble, and the card says so.

    Args:
        cohort, train_cases, settings: as they were for training; no time is spent on it.
        works: the work folders; each network is taken from the first that has it, the plan from the first.
        progress: told what happens.

    Raises:
        UsageError: there is no network in any of the folders.
    """
    study, found, parts = study_of(cohort, train_cases, settings, works[0], progress)
    kept_plan = works[0] / "plan.json"
    if not kept_plan.exists():
        raise UsageError("There is no plan in the work folder.", remedy="Train first.", file=works[0])
    plan = Plan.from_json(json.loads(kept_plan.read_text(encoding="utf-8")))
    torch.set_num_threads(plan.threads)
    averages, states, present = [], [], []
    for number in range(len(parts)):
        kept = [study_path for work in works if (study_path := replace(study, work=work).checkpoint(number)).exists()]
        if not kept:
            continue
        present.append(parts[number])
        average = study.network(plan, number)
        states.append(load_checkpoint(kept[0], study.network(plan, number), average))
        averages.append(average.eval())
    if not averages:
        raise UsageError("There is no trained network in the work folders.", remedy="Train first.")
    return finished(study, cohort, found, plan, present, averages, states)
