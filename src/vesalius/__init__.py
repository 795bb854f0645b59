"""Vesalius: from a folder of scans to a private, honest study on one's own machine.

The verbs, in order: `ingest`, `label`, `split`, `fit`, `evaluate`, `predict`, `show`. The nouns: `Cohort`,
`Case`, `Image`, `Grid`, `Finding`, `Metric`, `Report`. Everything is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vesalius.store.sealed import ask_for_key

if TYPE_CHECKING:
    from vesalius.core.case import Case
    from vesalius.core.cohort import Cohort, Label, Split
    from vesalius.core.errors import BundleError, GeometryError, UnusableInput, UsageError, VesaliusError
    from vesalius.core.finding import Finding
    from vesalius.core.grid import Grid
    from vesalius.core.image import Image
    from vesalius.core.protocols import Model, Prediction, Rival, Task
    from vesalius.core.report import Metric, Report
    from vesalius.steps.audit import audit
    from vesalius.steps.demo import demo
    from vesalius.steps.evaluate import evaluate
    from vesalius.steps.export import export
    from vesalius.steps.fit import fit
    from vesalius.steps.forget import forget
    from vesalius.steps.ingest import ingest
    from vesalius.steps.label import label
    from vesalius.steps.predict import predict
    from vesalius.steps.privacy_check import privacy_check
    from vesalius.steps.receive import receive
    from vesalius.steps.share import share
    from vesalius.steps.show import show
    from vesalius.steps.split import split
    from vesalius.steps.vault import vault
    from vesalius.store.bundle import open_bundle
    from vesalius.store.cohort import open_cohort
    from vesalius.tasks.models import load_model

__version__ = "0.1.0"

_HOMES = {
    "ingest": "steps.ingest", "label": "steps.label", "split": "steps.split", "fit": "steps.fit",
    "evaluate": "steps.evaluate", "predict": "steps.predict", "show": "steps.show", "demo": "steps.demo",
    "export": "steps.export", "audit": "steps.audit", "vault": "steps.vault", "share": "steps.share",
    "receive": "steps.receive",
    "forget": "steps.forget",
    "privacy_check": "steps.privacy_check",
    "open_cohort": "store.cohort", "open_bundle": "store.bundle", "load_model": "tasks.models",
    "Case": "core.case", "Cohort": "core.cohort", "Label": "core.cohort", "Split": "core.cohort",
    "Finding": "core.finding", "Grid": "core.grid", "Image": "core.image", "Metric": "core.report",
    "Report": "core.report", "Model": "core.protocols", "Prediction": "core.protocols",
    "Rival": "core.protocols", "Task": "core.protocols", "VesaliusError": "core.errors",
    "UsageError": "core.errors", "UnusableInput": "core.errors", "GeometryError": "core.errors",
    "BundleError": "core.errors",
}  # fmt: skip

__all__ = [
    "BundleError", "Case", "Cohort", "Finding", "GeometryError", "Grid", "Image", "Label", "Metric", "Model",
    "Prediction", "Report", "Rival", "Split", "Task", "UnusableInput", "UsageError",
    "VesaliusError", "audit", "demo", "evaluate", "export", "fit", "forget", "ingest", "label", "load_model",
    "open_bundle",
    "open_cohort", "predict", "privacy_check", "receive", "share", "show", "split", "vault",
]  # fmt: skip


def _pseudonym_key() -> bytes:
    from vesalius.privacy.pseudonyms import existing_key

    return existing_key()


ask_for_key(_pseudonym_key)  # the store, which reads encrypted cohorts, stands below the room that has the key


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vesalius' has no attribute {name!r}")
    return getattr(import_module(f"vesalius.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
