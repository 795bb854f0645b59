"""Fit groups to cases without labels, within a budget."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.classical.cases import chosen_images
from vesalius.classical.clusters.associations import associations
from vesalius.classical.clusters.model import FILE, as_file, unusualness
from vesalius.classical.clusters.space import Groups, Space
from vesalius.classical.clusters.structure import SIGNIFICANT, Structure, Tried, find_structure
from vesalius.classical.table import case_features
from vesalius.core.case import Case
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.grid import FloatArray
from vesalius.core.progress import Progress
from vesalius.core.protocols import Fitted
from vesalius.core.report import Plot, Series

LEAST_CASES = 20
_FOLDS = 5


def fit_clusters(
    cases: Sequence[Case], inputs: Sequence[str], *, seconds: float, seed: int, progress: Progress
) -> Fitted:
    """Describe every case, look for groups, and learn what is usual.

    Args:
        cases: what is learned from; no labels are looked at.
        inputs: roles of the images; every image of a case where none are named.
        seconds: budget for the search, beside the reading of the images.
        seed: every random choice follows from it.
        progress: told how far the work is.

    Returns:
        The bundle's file, the card's keys `classes`, `features`, `structure`, `associations`, `preparation`,
        `network`, `versions` and `sentences`, and the stability of every candidate as the curve.

    Raises:
        UsageError: too few cases can be described.
    """
    described: list[tuple[Case, Mapping[str, float]]] = []
    for case in progress.track(cases, "Describing", len(cases)):
        try:
            described.append((case, case_features(chosen_images(case, inputs))))
        except UnusableInput as error:
            progress.set_aside(case.id, error.what, error.remedy)
    if len({case.patient for case, _ in described}) < LEAST_CASES:
        raise UsageError(
            f"Groups need {LEAST_CASES} patients; {len({case.patient for case, _ in described})} can be described.",
            remedy="Ingest more.",
        )
    known = [case for case, _ in described]
    found = [features for _, features in described]
    patients = [case.patient for case in known]
    space = Space.of(found)
    points, _ = space.place(found)
    structure = find_structure(points, patients, seconds=seconds, seed=seed)
    groups = Groups.of(points, structure.labels)
    usual = _left_out(found, patients, structure, seed)
    tests = associations(known, structure.labels) if structure.groups > 1 else []
    card = {
        "classes": [{"value": n + 1, "name": f"group {n + 1}", "code": None} for n in range(structure.groups)],
        "features": list(space.names),
        "structure": _as_json(structure),
        "associations": [vars(test) for test in tests],
        "preparation": {},
        "network": {},
        "plan": {"seconds": seconds, "clouds": structure.clouds},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "sentences": sentences(structure, len(space.directions)),
    }
    return Fitted({FILE: as_file(space, groups, usual)}, card, _curve(structure))


def _left_out(
    found: Sequence[Mapping[str, float]], patients: Sequence[str], structure: Structure, seed: int
) -> FloatArray:
    """How unusual each training case is to a fit without its patient's part of the data."""
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[int(place)]: n % _FOLDS for n, place in enumerate(order)}
    folds = np.array([fold_of[patient] for patient in patients])
    distances = np.zeros(len(found))
    for fold in range(_FOLDS):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(outside):
            continue
        kept = [found[int(n)] for n in inside]
        space = Space.of(kept)
        labels = structure.labels[inside]
        present = np.unique(labels[labels >= 0])
        groups = Groups.of(space.place(kept)[0], np.where(labels >= 0, np.searchsorted(present, labels), -1))
        distances[outside] = unusualness(space, groups, [found[int(n)] for n in outside])[1]
    return distances


def sentences(structure: Structure, directions: int) -> list[str]:
    """What was found, in plain words."""
    tried = len(structure.tried)
    if structure.chosen is None:
        found = (
            "No groups: none of the ways of grouping is stabler and further apart than in clouds that have none"
            f" (p = {structure.probability:.2g}, {tried} ways, {structure.clouds} clouds). All cases form one group."
        )
        return [found] if tried else ["No groups were looked for: too few patients, or all are described alike."]
    best = next(each for each in structure.tried if each.candidate == structure.chosen)
    sizes = [int((structure.labels == group).sum()) for group in range(structure.groups)]
    left = int((structure.labels < 0).sum())
    rest = f"; {left} cases belonged to none while learning" if left else ""
    return [
        f"{structure.groups} groups of {_listed(sizes)} training cases{rest}, found by {structure.chosen.name}"
        f" along {directions} main directions of the hand-designed features.",
        f"They come back when patients are drawn anew (adjusted Rand index {best.stability:.2f}) and lie apart"
        f" (silhouette {best.separation:.2f}); clouds without groups reach less (p = {structure.probability:.2g} over"
        f" {tried} ways, significant below {SIGNIFICANT:g}).",
        "A group is a statistical statement about images. Whether it means anything is for clinical data to say.",
    ]


def _listed(sizes: Sequence[int]) -> str:
    words = [str(size) for size in sizes]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _as_json(structure: Structure) -> dict[str, Any]:
    return {
        "groups": structure.groups,
        "chosen": structure.chosen.name if structure.chosen else None,
        "probability": structure.probability,
        "clouds": structure.clouds,
        "tried": [_row(each) for each in structure.tried],
    }


def _row(tried: Tried) -> dict[str, Any]:
    return {
        "name": tried.candidate.name, "groups": tried.groups, "stability": round(tried.stability, 4),
        "separation": round(tried.separation, 4), "chance": round(tried.chance, 4), "excess": round(tried.excess, 3),
    }  # fmt: skip


def _curve(structure: Structure) -> Plot:
    """Stability times separation, and chance, of the ways that are told how many groups to make."""
    counted = [each for each in structure.tried if each.candidate.method != "hdbscan"]
    series = []
    for method, word in (("kmeans", "k-means"), ("mixture", "Gaussian mixture")):
        own = [each for each in counted if each.candidate.method == method]
        sizes = tuple(float(each.candidate.size) for each in own)
        if own:
            series.append(Series(word, sizes, tuple(each.stability * each.separation for each in own), line=True))
            series.append(Series(f"{word}, by chance", sizes, tuple(each.chance for each in own), line=True))
    return Plot("Stability of groups", "Number of groups", "Stability times separation", tuple(series))
