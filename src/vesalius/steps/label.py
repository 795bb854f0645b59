"""label: what is known about the cases: masks on their images' grids, and columns of tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.grid import Array, Grid
from vesalius.core.progress import Progress, Silent
from vesalius.steps._attributes import join_attributes
from vesalius.steps._owners import read_keyed
from vesalius.steps._places import images_meant, join_folders, join_places

if TYPE_CHECKING:
    from vesalius.privacy.door import Door


def label(
    cohort: str | Path | Cohort,
    *,
    masks: str | Path | None = None,
    names: Mapping[int, str] | None = None,
    boxes: str | Path | None = None,
    folders: str | Path | None = None,
    attributes: Sequence[str] = (),
    table: str | Path | None = None,
    key: str | None = None,
    patient: str | None = None,
    ignore: int | None = None,
    replace: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Cohort:
    """Join truth to the cases by the pseudonyms of their sources' names or instances.

    A mask is checked against its image and never resampled without a word: another grid, values without a
    name, numbers that are not whole, and a second mask for one image set it aside with the remedy.

    Args:
        cohort: the cohort or its folder.
        masks: a folder or file of masks: NIfTI, NRRD, MHA or PNG called like their images (also with an
            ending such as `_mask` or `_seg`), DICOM SEG or RTSTRUCT that refer to their images.
        names: what the values mean; the values of SEG and RTSTRUCT are given by these names.
        boxes: points or boxes: COCO JSON, a folder of Pascal VOC or YOLO files, or a CSV like `detections.csv`.
        folders: the folder that was ingested, where each class has a folder of its own; their names become the
            covariate `class`.
        attributes: keywords of DICOM attributes, such as ViewPosition, whose values in the stored headers become
            covariates.
        table: CSV of covariates, or the `Info.txt` of the mini-MIAS mammograms; columns that could identify are
            left out and named.
        key: column of the table that names the files.
        patient: column of the table that names patients; it is never stored.
        ignore: value that loss and scores leave out.
        replace: let a mask take the place of one that is there.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told how far the work is.

    Raises:
        UsageError: nothing to label with, or nothing in it fits the cohort.
    """
    from vesalius.formats.places import is_mias
    from vesalius.privacy.door import Door
    from vesalius.privacy.pseudonyms import Pseudonyms, load_key
    from vesalius.store.cohort import open_cohort

    progress = progress or Silent()
    folder = cohort.folder if isinstance(cohort, Cohort) else Path(cohort)
    study = open_cohort(folder)
    if masks is None and table is None and boxes is None and folders is None and not attributes:
        remedy = "Give --masks, --boxes, --folders, --attributes or --table."
        raise UsageError("Nothing to label with.", remedy=remedy)
    door = Door(folder, Pseudonyms(load_key()))
    if boxes is not None:
        join_places(door, Path(boxes), names or {}, progress)
    if folders is not None:
        join_folders(door, Path(folders), progress)
    if attributes:
        join_attributes(door, study, attributes, progress)
    if table is not None and is_mias(Path(table)):
        join_places(door, Path(table), {}, progress)
    elif table is not None:
        _label_from_table(door, Path(table), key, patient, progress)
    if masks is not None:
        known = {entry.value: entry.name for entry in study.labels} | dict(names or {})
        if not Path(masks).exists():
            raise UsageError("These masks do not exist.", remedy="Check the spelling.", file=masks)
        join_masks(door, study, list(_mask_files(Path(masks), door)), known, ignore, replace, progress)
    door.record("label", len(study.cases), {"masks": int(masks is not None), "tables": int(table is not None)})
    return open_cohort(folder)


@dataclass(frozen=True)
class FoundMask:
    """A label map as it was found, and the images that it belongs to."""

    name: str
    array: Array
    grid: Grid
    images: list[tuple[str, str, Grid]]
    names: Mapping[int, str] | None = None


def join_masks(
    door: Door,
    study: Cohort,
    files: list[tuple[Path, str]],
    names: dict[int, str],
    ignore: int | None,
    replace: bool,
    progress: Progress,
) -> None:
    """Join mask files, each with the name that its image is looked up by, to the cohort.

    Raises:
        UsageError: none of them fits an image.
    """
    ignore = ignore if ignore is not None else study.ignore
    taken = {case.label_image.id for case in study if case.label_image is not None}
    labelled: set[str] = set()
    counts: Counter[str] = Counter()
    unnamed: set[int] = set()
    files = sorted(files, key=lambda entry: not door.images_named(entry[1], whole=True))  # before others of that name
    for path, name in progress.track(files, "Joining masks"):
        try:
            for mask in _read_masks(door, path, name, names):
                image, case, array = _checked(mask, labelled, names, ignore)
                if image in taken and not replace:
                    counts["already"] += 1
                    continue
                unnamed |= {int(value) for value in np.unique(array)} - set(names) - {0, ignore}
                door.admit_label(image, case, array, mask.grid)
                labelled.add(image)
                counts["labelled"] += 1
        except UnusableInput as error:
            counts["set aside"] += 1
            progress.set_aside(name, error.what, error.remedy)
    if not counts["labelled"] and not counts["already"]:
        raise UsageError("No mask fits an image of this cohort.", remedy="See the reasons above.")
    door.admit_classes(names | {value: f"class {value}" for value in sorted(unnamed)}, ignore)
    progress.note(cohort=str(study.folder), labelled=counts["labelled"], already=counts["already"])
    progress.say(
        f"{counts['labelled']} masks joined, {counts['already']} were there already, {counts['set aside']} set aside."
    )


def _mask_files(source: Path, door: Door) -> Iterator[tuple[Path, str]]:
    from vesalius.formats.names import bare_mask_name, without_suffix

    if source.is_file():
        yield source, source.name
        return
    files = sorted(source.rglob("*"))
    masked = {path.parent / bare for path in files if (bare := bare_mask_name(path))}
    for path in files:
        if path.parent / without_suffix(path.name) in masked and door.holds(path):
            continue  # the image itself, beside its mask
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if path.is_file() and not hidden and path.suffix.lower() not in (".txt", ".csv", ".json", ".md"):
            yield path, path.relative_to(source).as_posix()


def _read_masks(door: Door, path: Path, name: str, names: dict[int, str]) -> Iterator[FoundMask]:
    """The label maps of one file: one for a volume or PNG, one per referenced image for SEG and RTSTRUCT."""
    from vesalius.formats.labels import is_dicom, read_label

    if is_dicom(path):
        yield from _read_dicom_masks(door, path, name, names)
        return
    array, grid = read_label(path)
    yield FoundMask(name, array, grid, door.images_named(name))


def _read_dicom_masks(door: Door, path: Path, name: str, names: dict[int, str]) -> Iterator[FoundMask]:
    from vesalius.formats.segments import read_segments

    segments = read_segments(path)
    for image, case, grid in door.images_of_instances(segments.instances):
        values = _values_for(segments.names, names)
        yield FoundMask(name, segments.label_map(grid, values), grid, [(image, case, grid)], values)


def _values_for(segment_names: list[str], names: dict[int, str]) -> dict[int, str]:
    """The value of each segment: by its name where names were given, else the next free one."""
    by_name = {text.lower(): value for value, text in names.items()}
    found: dict[int, str] = {}
    for text in segment_names:
        value = by_name.get(text.lower())
        if value is None:
            value = max([0, *names]) + 1
            names[value] = text
            by_name[text.lower()] = value
        found[value] = text
    return found


def _checked(
    mask: FoundMask, labelled: set[str], names: Mapping[int, str], ignore: int | None
) -> tuple[str, str, Array]:
    """The one image that a mask belongs to, after every check.

    Raises:
        UnusableInput: none or several images, another grid, a second mask, or values without a name.
    """
    if not mask.images:
        raise UnusableInput(
            "No image of this cohort has the name of this mask.",
            remedy="Call masks like their images, or ingest the images first.",
        )
    fitting = [entry for entry in mask.images if entry[2].matches(mask.grid)]
    if not fitting:
        image = mask.images[0][2]
        raise UnusableInput(
            f"The mask's grid ({mask.grid.shape}, {_mm(mask.grid)}) is not its image's ({image.shape}, {_mm(image)}).",
            remedy="Export the mask on its image's grid; it is not resampled here, so that nothing shifts unseen.",
        )
    if len(fitting) > 1:
        raise UnusableInput(
            "Several images of the cohort have the name of this mask.",
            remedy="Call the mask like the whole path of its image below the ingested folder.",
        )
    image_id, case, _ = fitting[0]
    if image_id in labelled:
        raise UnusableInput("A second mask for the same image.", remedy="Keep one of the two.")
    unknown = sorted({int(value) for value in np.unique(mask.array)} - set(names) - {0, ignore})
    if names and unknown:
        raise UnusableInput(
            f"The mask has values without a name: {', '.join(map(str, unknown[:10]))}.",
            remedy="Add them to --names, or name one of them with --ignore.",
        )
    return image_id, case, mask.array


def _mm(grid: Grid) -> str:
    return " x ".join(f"{value:.3g}" for value in grid.spacing) + f" {grid.unit}"


def _label_from_table(door: Door, table: Path, key: str | None, patient: str | None, progress: Progress) -> None:
    from vesalius.privacy.tables import Table
    from vesalius.store.cohort import open_cohort

    rows = list(read_keyed(table, key))
    keys = [name for name, _ in rows]
    left_out = [column for column in (rows[0][1] if rows else {}) if [row[column] for _, row in rows] == keys]
    found = Table.of([row for _, row in rows], [*left_out, *([patient] if patient else [])])
    patients = {case.id: case.patient for case in open_cohort(door.folder)}
    values: dict[str, dict[str, float | str]] = defaultdict(dict)
    differing: dict[str, set[str]] = defaultdict(set)
    named = images_meant(door, keys)
    for name, row in rows:
        cases = {case for _, case, _ in named[name]}
        if not cases:
            what = "No image of this cohort has this name, or other rows could mean it as well."
            progress.set_aside(name, what, "Ingest it first, or check the key and how paths are written.")
        if len({patients[case] for case in cases}) > 1:
            remedy = "Name the files by their paths below the ingested folder."
            progress.set_aside(name, "Images of several patients have this name.", remedy)
            continue
        for case in cases:
            entries = found.covariates(row, door.pseudonyms, patients[case])
            for column, value in entries.items():
                if values[case].get(column, value) != value:
                    differing[column].add(case)
            values[case].update(entries)
    if not values:
        raise UsageError("No row of the table fits the cohort.", remedy="Check --key.", file=table)
    for case, entries in values.items():
        door.admit_covariates(case, entries)
    for column, of_cases in differing.items():
        progress.say(f"The rows of {len(of_cases)} cases differ in {column!r}; the last row of each counts.")
    for column, reason in found.refused.items():
        progress.say(f"The column {column!r} was left out: {reason}.")
    kinds = {column: str(kind) for column, kind in found.kept.items()}
    for column in (column for column, kind in kinds.items() if kind in ("date", "text")):
        what = "dates, which were moved" if kinds[column] == "date" else "free text, which was cleaned"
        progress.say(f"The column {column!r} holds {what}.")
    progress.note(
        cohort=str(door.folder), cases=len(values), columns=list(kinds), kinds=kinds,
        columns_left_out=dict(found.refused),
    )  # fmt: skip
    progress.say(f"{len(kinds)} columns for {len(values)} cases.")
