"""split: which patients are learned from and which are measured on, drawn once and stored."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.core.cohort import TEST, TRAIN, Cohort
from vesalius.core.errors import PatientOverlap, UsageError
from vesalius.core.progress import Progress, Silent

if TYPE_CHECKING:
    from vesalius.privacy.door import Door

_TRAIN_WORDS = frozenset({"train", "training", "tr"})
_TEST_WORDS = frozenset({"test", "testing", "ts", "val", "validation", "holdout"})


def split(
    cohort: str | Path | Cohort,
    *,
    column: str | None = None,
    from_file: str | Path | None = None,
    fold: int = 0,
    test_share: float = 0.2,
    folds: int = 5,
    seed: int = 0,
    redraw: bool = False,
    progress: Progress | None = None,
) -> Cohort:
    """Draw the split by patient, or fix it from a covariate column or a file.

    Patients with near-duplicate images are drawn as one group. A split that was given is kept as it is;
    duplicates across its parts are counted, so that the report can show the scores without them.

    Args:
        cohort: the cohort or its folder.
        column: covariate with the words train and test.
        from_file: nnU-Net's `splits_final.json`, or a JSON object with the lists "train" and "test", both of
            source names.
        fold: which entry of `splits_final.json` is measured on; its "val" list becomes the test part.
        test_share: share of patients to measure on.
        folds: folds of the training part for cross-validation.
        seed: of the drawing.
        redraw: allow a split that is there to be replaced.

    Raises:
        UsageError: there is a split already, or the column or file does not fit the cohort.
        PatientOverlap: the given split puts one patient into both parts.
    """
    from vesalius.formats.medmnist import OFFICIAL_SPLIT
    from vesalius.privacy import audit
    from vesalius.privacy.door import Door
    from vesalius.privacy.pseudonyms import Pseudonyms, load_key
    from vesalius.store.cohort import image_hashes, open_cohort

    progress = progress or Silent()
    folder = cohort.folder if isinstance(cohort, Cohort) else Path(cohort)
    study = open_cohort(folder)
    if study.split is not None and not redraw:
        if column is None and from_file is None:
            progress.note(**_figures(study))
            return study
        raise UsageError("This cohort has a split already.", remedy="Add --redraw to replace it.", file=folder)
    if column is None and from_file is None and all(OFFICIAL_SPLIT in case.covariates for case in study):
        column = OFFICIAL_SPLIT  # a data set with a split of its own keeps it
    if len(study.patients) < 2:
        raise UsageError("A split needs at least two patients.", remedy="Ingest more patients.", file=folder)
    door = Door(folder, Pseudonyms(load_key()))
    door.complete_hashes()
    hashes = image_hashes(folder)
    pairs = near_duplicate_cases(hashes)
    if column is not None:
        given: Mapping[str, str] | None = _from_column(study, column)
        how = "Given by a column of the cohort's table."
    elif from_file is not None:
        given = _from_file(study, Path(from_file), fold, door)
        how = "Given by a file."
    else:
        given = None
        how = f"Drawn by patient with seed {seed}: {test_share:.0%} to measure on, {folds} folds to learn from."
    groups = _groups(study, pairs)
    rng = random.Random(seed)
    parts = dict(given) if given is not None else _draw(study, groups, test_share, rng)
    in_folds = _draw_folds(study, groups, parts, folds, rng)
    door.admit_split(
        parts, in_folds, given=given is not None, how=how,
        duplicates=[pair for pair in pairs if _crosses(pair, study, parts)] if given is not None else pairs,
    )  # fmt: skip
    drawn = open_cohort(folder)
    audit.enter(folder, "split", cases=len(drawn))
    progress.note(**_figures(drawn))
    progress.say(
        f"{sum(part == TRAIN for part in parts.values())} patients to learn from, "
        f"{sum(part == TEST for part in parts.values())} to measure on. {how}"
        + (f" {len(pairs)} pairs of images look alike." if pairs else "")
    )
    return drawn


def near_duplicate_cases(hashes: Mapping[str, tuple[str, str, bytes]]) -> list[tuple[str, str]]:
    """Pairs of cases, of whatever patients, that have images which look alike."""
    from vesalius.imaging.duplicates import near_duplicates

    pairs = near_duplicates({image: entry[2] for image, entry in hashes.items() if entry[2]})
    cases = {tuple(sorted((hashes[first][0], hashes[second][0]))) for first, second in pairs}
    return sorted((first, second) for first, second in cases if first != second)


def _groups(cohort: Cohort, pairs: list[tuple[str, str]]) -> list[list[str]]:
    """Patients joined by near-duplicate images, each group sorted, the groups in a stable order."""
    patient_of = {case.id: case.patient for case in cohort}
    leader = {patient: patient for patient in cohort.patients}

    def find(patient: str) -> str:
        while leader[patient] != patient:
            leader[patient] = leader[leader[patient]]
            patient = leader[patient]
        return patient

    for first, second in pairs:
        leader[find(patient_of[second])] = find(patient_of[first])
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in cohort.patients:
        groups[find(patient)].append(patient)
    return sorted(groups.values())


def _strata(cohort: Cohort, groups: list[list[str]]) -> list[list[list[str]]]:
    """Groups that are alike: which classes their masks hold, and in which third of foreground size they lie."""
    from vesalius.store.cohort import label_voxels

    voxels = label_voxels(cohort.folder)
    values_of: dict[str, set[int]] = defaultdict(set)
    size_of: dict[str, int] = defaultdict(int)
    for case in cohort:
        counts = {value: count for value, count in voxels.get(case.id, {}).items() if value > 0 and count}
        values_of[case.patient] |= set(counts)
        size_of[case.patient] += sum(counts.values())
    sizes = sorted(sum(size_of[patient] for patient in group) for group in groups)
    thirds = (sizes[len(sizes) // 3], sizes[2 * len(sizes) // 3])
    strata: dict[tuple[object, ...], list[list[str]]] = defaultdict(list)
    for group in groups:
        values = frozenset().union(*(values_of[patient] for patient in group))
        size = sum(size_of[patient] for patient in group)
        strata[(tuple(sorted(values)), (size > thirds[0]) + (size > thirds[1]))].append(group)
    return [strata[key] for key in sorted(strata)]


def _draw(cohort: Cohort, groups: list[list[str]], share: float, rng: random.Random) -> dict[str, str]:
    """Systematic sampling along the strata, so that each gives its share of groups to the test part."""
    parts: dict[str, str] = {}
    passed = rng.random()
    for stratum in _strata(cohort, groups):
        for group in rng.sample(stratum, len(stratum)):
            to_test = int(passed + share) > int(passed)
            passed += share
            parts.update(dict.fromkeys(group, TEST if to_test else TRAIN))
    for missing in {TRAIN, TEST} - set(parts.values()):
        smallest: list[str] = min(groups, key=len)
        parts.update(dict.fromkeys(smallest, missing))
    return parts


def _draw_folds(
    cohort: Cohort, groups: list[list[str]], parts: Mapping[str, str], folds: int, rng: random.Random
) -> dict[str, int]:
    """Deal the training patients of each stratum to the folds in turn."""
    found: dict[str, int] = {}
    turn = 0
    for stratum in _strata(cohort, groups):
        for group in rng.sample(stratum, len(stratum)):
            training = [patient for patient in group if parts.get(patient) == TRAIN]
            if training:
                found.update(dict.fromkeys(training, turn % folds))
                turn += 1
    return found


def _crosses(pair: tuple[str, str], cohort: Cohort, parts: Mapping[str, str]) -> bool:
    patient_of = {case.id: case.patient for case in cohort}
    return parts.get(patient_of[pair[0]]) != parts.get(patient_of[pair[1]])


def _from_column(cohort: Cohort, column: str) -> dict[str, str]:
    words: dict[str, set[str]] = defaultdict(set)
    for case in cohort:
        if column in case.covariates:
            words[case.patient].add(str(case.covariates[column]).strip().lower())
    if not words:
        raise UsageError(f"No case has a covariate {column!r}.", remedy="Bring it in with `vesalius label --table`.")
    parts: dict[str, str] = {}
    for patient, found in words.items():
        sides = {TRAIN if word in _TRAIN_WORDS else TEST if word in _TEST_WORDS else "" for word in found}
        if "" in sides:
            raise UsageError(f"The column {column!r} holds words other than train and test.")
        _enter(parts, patient, sides)
    return parts


def _from_file(cohort: Cohort, path: Path, fold: int, door: Door) -> dict[str, str]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        entry = data[fold] if isinstance(data, list) else data
        train, test = list(entry["train"]), list(entry["test"] if "test" in entry else entry["val"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            "The split file is not understood.",
            remedy="Give nnU-Net's splits_final.json, or an object with the lists train and test.",
            file=path,
        ) from error
    patient_of = {case.id: case.patient for case in cohort}
    sides: dict[str, set[str]] = defaultdict(set)
    unknown = 0
    for part, names in ((TRAIN, train), (TEST, test)):
        for name in names:
            located = door.images_named(str(name))
            unknown += not located
            for _, case, _ in located:
                sides[patient_of[case]].add(part)
    if unknown:
        raise UsageError(
            f"{unknown} names of the split file are not in the cohort.",
            remedy="Ingest them first.",
            file=path,
        )
    parts: dict[str, str] = {}
    for patient, found in sides.items():
        _enter(parts, patient, found)
    return parts


def _enter(parts: dict[str, str], patient: str, sides: set[str]) -> None:
    if len(sides) > 1:
        raise PatientOverlap(
            "The given split puts images of one patient into both parts.",
            remedy="Correct it so that each patient stands in one part.",
        )
    parts[patient] = sides.pop()


def _figures(cohort: Cohort) -> dict[str, object]:
    assert cohort.split is not None
    return {
        "cohort": str(cohort.folder),
        "train_patients": sum(part == TRAIN for part in cohort.split.parts.values()),
        "test_patients": sum(part == TEST for part in cohort.split.parts.values()),
        "given": cohort.split.given,
        "near_duplicates": len(cohort.split.duplicates),
        "how": cohort.split.how,
    }
