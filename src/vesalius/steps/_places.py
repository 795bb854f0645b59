"""Joining points, boxes and folder names to the images of a cohort, for `label`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.core.errors import UsageError
from vesalius.core.finding import Box, Finding, Point
from vesalius.core.grid import Grid
from vesalius.core.progress import Progress

if TYPE_CHECKING:
    from vesalius.formats.places import Spot
    from vesalius.privacy.door import Door


def join_places(door: Door, path: Path, names: Mapping[int, str], progress: Progress) -> None:
    """Join the places of a table; see `formats.places.read_places`.

    An image that the table names without a place is a negative from then on. Places that were there for an
    image are replaced.

    Raises:
        UsageError: the table cannot be read, or none of its images is in the cohort.
    """
    from vesalius.formats.places import read_places

    rows = read_places(path, names)
    counts: Counter[str] = Counter()
    named = images_meant(door, [row.image for row in rows])
    for row in progress.track(rows, "Joining places", len(rows)):
        located = named[row.image]
        if len(located) != 1:
            counts["elsewhere" if not located else "ambiguous"] += 1
            continue
        image, case, grid = located[0]
        if row.covariates:
            door.admit_covariates(case, dict(row.covariates))
        if not row.known:
            counts["unknown"] += 1
            continue
        if grid.shape[2] > 1 and any(len(spot.centre) < 3 for spot in row.spots):
            progress.set_aside(row.image, "A place in a volume has no z.", "Add the columns z and depth.")
            continue
        found = [_finding(image, grid, spot) for spot in row.spots]
        outside = [finding for finding in found if not _inside(finding, grid)]
        if outside:
            progress.set_aside(row.image, "A place lies outside of its image.", "Check its coordinates.")
            continue
        door.admit_places(image, found)
        counts["images"] += 1
        counts["places"] += len(found)
    if not counts["images"]:
        raise UsageError("No image of this cohort is named in the table.", remedy="Check its names.", file=path)
    progress.note(cohort=str(door.folder), **{f"places_{key}": value for key, value in counts.items()})
    progress.say(_summary(counts))


def join_folders(door: Door, source: Path, progress: Progress) -> None:
    """Take the name of the folder that an image lay in as its class: the covariate `class`.

    Only few names that repeat are taken, so that folders called after patients never come in.

    Raises:
        UsageError: the folders cannot be classes, or hold no image of the cohort.
    """
    from vesalius.privacy.tables import Kind, Table

    if not source.is_dir():
        raise UsageError("There is no such folder.", remedy="Name the folder that was ingested.", file=source)
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.parent != source)
    found = {path.relative_to(source).as_posix(): path.parent.name for path in files}
    table = Table.of([{"class": name} for name in found.values()], [])
    if table.kept.get("class") not in (Kind.WORD, Kind.NUMBER):
        raise UsageError(
            "The folders' names do not look like classes: too many, or used once only.",
            remedy="Give the classes in a table: --table FILE.csv.", file=source,
        )  # fmt: skip
    classes: dict[str, set[str]] = defaultdict(set)
    for name, located in images_meant(door, list(found)).items():
        for _, case, _ in located:
            classes[case].add(found[name])
    if not classes:
        raise UsageError("No file of these folders is in the cohort.", remedy="Ingest it first.", file=source)
    single = {case: next(iter(words)) for case, words in classes.items() if len(words) == 1}
    for case, word in single.items():
        door.admit_covariates(case, {"class": word})
    mixed = len(classes) - len(single)
    progress.note(cohort=str(door.folder), cases=len(single), classes=dict(Counter(single.values())))
    progress.say(
        f"{len(single)} cases have the class of their folder."
        + (f" {mixed} have images in several folders and were left out." if mixed else "")
    )


def images_meant(door: Door, names: Sequence[str]) -> dict[str, list[tuple[str, str, Grid]]]:
    """(image, case, grid) of the images that each name of a table or folder means.

    A path may begin above or below the ingested folder. But an image that one name means wholly is not meant by
    the last part of another, whose own file may have been set aside; nor one that several mean by their last parts.
    """
    found = {name: door.images_named(name, whole=True) for name in names}
    taken = {image for located in found.values() for image, _, _ in located}
    partly = {name: door.images_named(name) for name, located in found.items() if not located}
    claims = Counter(image for located in partly.values() for image, _, _ in located)
    for name, located in partly.items():
        found[name] = [entry for entry in located if entry[0] not in taken and claims[entry[0]] == 1]
    return found


def _finding(image: str, grid: Grid, spot: Spot) -> Finding:
    """A spot in the image's own index space; the first axis is x, the second y."""
    extent = grid.shape
    centre, size = list(spot.centre), list(spot.size or ())
    if spot.share:
        centre = [value * extent[axis] - 0.5 for axis, value in enumerate(centre)]
        size = [value * extent[axis] for axis, value in enumerate(size)]
    if spot.from_below:
        centre[1] = extent[1] - centre[1]
    i, j, k = (*centre, 0.0, 0.0)[:3]
    if spot.size is None:
        place: Point | Box = Point(image, (i, j, k), spot.radius)
    else:
        width, height, depth = (*size, 1.0)[:3]
        place = Box(image, (i, j, k), (width, height, depth))
    return Finding(spot.name, place=place, attributes=dict(spot.attributes))


def _inside(finding: Finding, grid: Grid) -> bool:
    assert isinstance(finding.place, (Point, Box))
    return all(-1.0 <= value <= size for value, size in zip(finding.place.centre, grid.shape, strict=True))


def _summary(counts: Mapping[str, int]) -> str:
    parts = [f"{counts['places']} places in {counts['images']} images"]
    ends: Iterable[tuple[str, str]] = (
        ("unknown", "images with something whose place is not known were left out"),
        ("elsewhere", "rows speak of images that this cohort does not hold"),
        ("ambiguous", "rows could mean several images"),
    )
    parts += [f"{counts[key]} {words}" for key, words in ends if counts[key]]
    return "; ".join(parts) + "."
