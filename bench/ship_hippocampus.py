"""Put the shipped hippocampus model together: networks, finder, figures, card.

    python bench/train_hippocampus.py DATA WORK --folds 3 --only 0 --part a    # and so on, see there
    python bench/build_finder.py WORK/finder_asset
    python bench/ship_hippocampus.py DATA WORK --folds 3 --part a,b

Each network is measured at the bedside, through ONNX Runtime, on the cases that it never saw; these are the
figures of the card. The bundle goes to src/vesalius/shipped/hippocampus.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from train_hippocampus import AUGMENTATION, LABELS, ROLE, Printed, hippocampi
from vesalius import __version__
from vesalius.core.protocols import RESEARCH_ONLY
from vesalius.formats.roles import load_rules
from vesalius.inference.segmenter import Segmenter
from vesalius.learning.ensemble import export_ensemble
from vesalius.learning.study import FitSettings, groups_of
from vesalius.measures.summary import MODEL, summarise
from vesalius.store.bundle import open_bundle, write_bundle
from vesalius.tasks import task_named
from vesalius.tasks.arms import measure_arms

SHIPPED = Path(__file__).parents[1] / "src" / "vesalius" / "shipped" / "hippocampus"
LICENCE = "CC BY-SA 4.0, for the weights too"
ATTRIBUTION = (
    "Medical Segmentation Decathlon, Task04 Hippocampus (medicaldecathlon.com). Simpson et al., "
    "arXiv:1902.09063 (2019); Antonelli et al., Nature Communications 13:4128 (2022). The finder's template: "
    "ICBM 152 nonlinear symmetric 2009a, see finder/NOTICE.txt."
)
USE = (
    "Outlines anterior and posterior hippocampus in T1-weighted MRI of adults: in a crop around one hippocampus "
    "of either side, or in a whole head with or without skull. Learned from crops of 1 mm of healthy adults and "
    "of adults with a non-affective psychotic disorder, of one centre; nothing is known about children, "
    "atrophy, tumours or other contrasts."
)


def card_of(fitted: dict[str, Any], cases: int, finder: dict[str, Any]) -> dict[str, Any]:
    """The whole card but its figures."""
    return {
        **fitted, "name": "hippocampus", "task": "segmentation", "research_only": RESEARCH_ONLY, "use": USE,
        "vesalius": __version__, "ignore": None, "inputs": [ROLE], "roles": load_rules().as_json(),
        "classes": [{"value": label.value, "name": label.name, "code": None} for label in LABELS],
        "cohort": {"digest": "", "cases": cases, "patients": cases, "split": "Cross-validation by image."},
        "seed": 0, "patients_seen": [], "metrics": [], "finder": finder,
        "data": {"licence": LICENCE, "attribution": ATTRIBUTION},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--part", default="a,b,c", help="work folders, in the order of their networks")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    cohort = hippocampi(asked.source, asked.work)
    train = [cohort.cases[n] for n in np.random.default_rng(1234).permutation(len(cohort))]
    settings = FitSettings(
        minutes=1.0, seed=asked.seed, folds=asked.folds, resume=True, inputs=(ROLE,), augmentation=AUGMENTATION
    )
    works = [asked.work / part for part in asked.part.split(",")]
    asset = asked.work / "finder_asset"
    finder = json.loads((asset / "finder.json").read_text(encoding="utf-8"))
    assets = {
        path.relative_to(asset).as_posix(): path.read_bytes()
        for path in sorted((asset / "finder").iterdir())
    }  # fmt: skip
    task = task_named("segmentation", cohort)
    groups = groups_of([case.patient for case in cohort], asked.folds, asked.seed)
    scores = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, work in enumerate(works):
            fitted = export_ensemble(cohort, train, settings, [work], Printed())
            bundle = write_bundle(Path(scratch) / str(number), fitted.files, card_of(fitted.card, len(train), {}))
            unseen = [case for case in cohort if case.patient in groups[number]]
            spool = Path(scratch) / f"answers{number}"
            spool.mkdir()
            model = Segmenter(open_bundle(bundle))
            scores += measure_arms(task, {MODEL: model}, unseen, (ROLE,), spool, Printed()).scores
    metrics = summarise(scores, seed=0)
    fitted = export_ensemble(cohort, train, settings, works, Printed())
    card = card_of(fitted.card, len(train), finder)
    card["metrics"] = [metric.as_json() for metric in metrics]
    card["sentences"] = [
        *card["sentences"],
        f"The figures are of single networks, each on the cases that it never saw ({len({s.case for s in scores})} "
        f"of {len(train)}); the bundle answers with all {len(works)} together.",
    ]
    write_bundle(SHIPPED, {**fitted.files, **assets}, card)
    for metric in metrics:
        print(f"{metric.name}, {metric.class_name}: {metric}")
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    print(f"{SHIPPED}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
