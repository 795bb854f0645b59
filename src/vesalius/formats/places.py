"""Tables of places in images: MIAS, COCO, Pascal VOC, YOLO, and CSV. Each image that one speaks of was looked over."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from vesalius.core.errors import UnusableInput, UsageError

_AGAIN = "Export the table again from the program that wrote it."
_LARGEST_XML = 2**24  # bytes


@dataclass(frozen=True)
class Spot:
    """One place in an image, in its own pixels: (0, 0) is the centre of the first one, x to the right, y down.

    Args:
        name: what is there.
        centre: x, y and, in a volume, z.
        size: width, height and depth of a box; None for a point.
        radius: of a point, where one is known.
        share: centre and size are shares of the image's extent (0 is its left or upper edge, 1 the other).
        from_below: y is counted from the lower edge upwards, as MIAS does.
        attributes: what else is said of it.
    """

    name: str
    centre: tuple[float, ...]
    size: tuple[float, ...] | None = None
    radius: float | None = None
    share: bool = False
    from_below: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LookedOver:
    """An image that somebody looked over: what was found there, if anything.

    Args:
        image: its name, with or without suffix.
        spots: the places.
        known: False where something is there but not where, so that the image is neither positive nor negative.
        covariates: what the table says of the whole image.
    """

    image: str
    spots: tuple[Spot, ...]
    known: bool = True
    covariates: Mapping[str, str] = field(default_factory=dict)


def read_places(path: Path, names: Mapping[int, str]) -> list[LookedOver]:
    """The places of a table, whatever its kind.

    Args:
        path: a COCO JSON file, a MIAS `Info.txt`, a CSV with the columns of `detections.csv`, or a folder of
            Pascal VOC XML or YOLO text files, one per image.
        names: what the class numbers of YOLO mean; else `classes.txt` or a `.names` file beside says it.

    Raises:
        UsageError: it is none of these, or damaged.
    """
    try:
        if path.is_dir():
            found = _voc(path) or _yolo(path, names)
        elif path.suffix.lower() == ".json":
            found = _coco(path)
        elif path.suffix.lower() == ".xml":
            found = [_voc_image(path)]
        elif is_mias(path):
            found = list(read_mias(path))
        else:
            found = _table(path)
    except (UnusableInput, OSError, UnicodeDecodeError, ValueError, LookupError, TypeError) as error:
        what = error.what if isinstance(error, UnusableInput) else "The places cannot be read."
        raise UsageError(what, remedy=_AGAIN, file=path) from error
    if not found:
        raise UsageError("There are no places here.", remedy="Give COCO, VOC, YOLO, MIAS or a CSV.", file=path)
    return found


_MIAS_ROW = re.compile(
    r"^(mdb\d{3}\w*)\s+([FGD])\s+(CALC|CIRC|SPIC|MISC|ARCH|ASYM|NORM)"
    r"(?:\s+([BM])(?:\s+(\d+)\s+(\d+)\s+(\d+))?)?(?:\s+\*NOTE.*)?\s*$"
)
_TISSUE = {"F": "fatty", "G": "fatty-glandular", "D": "dense-glandular"}
_SEVERITY = {"B": "benign", "M": "malignant"}


def is_mias(path: Path) -> bool:
    """Whether a file is the `Info.txt` of the mini-MIAS mammograms."""
    try:
        text = path.read_text(encoding="latin-1") if path.suffix.lower() == ".txt" else ""
    except OSError:
        return False
    return any(_MIAS_ROW.match(line) for line in text.splitlines())


def read_mias(path: Path) -> Iterator[LookedOver]:
    """The rows of `Info.txt`, by image: a finding `lesion` for each circle (Suckling et al. 1994).

    The table counts y from the lower edge. An abnormal row without a circle says that something is there but
    not where, so its image is neither negative nor positive.
    """
    rows: dict[str, list[re.Match[str]]] = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        match = _MIAS_ROW.match(line)
        if match:
            rows.setdefault(match[1], []).append(match)
    for image, found in rows.items():
        circles = [match for match in found if match[5]]
        spots = [
            Spot(
                "lesion", (float(match[5]), float(match[6])), radius=float(match[7]), from_below=True,
                attributes={"abnormality": match[3], "severity": _SEVERITY[match[4]]},
            )
            for match in circles
        ]  # fmt: skip
        known = all(match[5] or match[3] == "NORM" for match in found)
        yield LookedOver(image, tuple(spots) if known else (), known, {"tissue": _TISSUE[found[0][2]]})


def _coco(path: Path) -> list[LookedOver]:
    """`bbox` is x, y, width, height from the upper left corner of the first pixel (cocodataset.org, data format)."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise UnusableInput("The JSON is not of the COCO layout.", remedy=_AGAIN)
    names = {entry["id"]: str(entry["name"]) for entry in data.get("categories", ())}
    boxes: dict[Any, list[Spot]] = {entry["id"]: [] for entry in data["images"]}
    for entry in data.get("annotations", ()):
        x, y, width, height = (float(value) for value in entry["bbox"])
        centre = x + width / 2 - 0.5, y + height / 2 - 0.5
        boxes[entry["image_id"]].append(Spot(names[entry["category_id"]], centre, (width, height)))
    return [LookedOver(str(entry["file_name"]), tuple(boxes[entry["id"]])) for entry in data["images"]]


def _voc(folder: Path) -> list[LookedOver]:
    return [_voc_image(path) for path in sorted(folder.rglob("*.xml"))]


def _voc_image(path: Path) -> LookedOver:
    """Corners are pixels counted from 1, both inside the box (Pascal VOC 2012 development kit)."""
    text = path.read_bytes()
    if len(text) > _LARGEST_XML or b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise UnusableInput("The XML declares entities or is far too large.", remedy=_AGAIN)
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - entities and sizes were refused above
    except ElementTree.ParseError as error:
        raise UnusableInput("The XML is damaged.", remedy=_AGAIN) from error
    spots = []
    for entry in root.iter("object"):
        corners = [float(entry.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
        left, upper, right, lower = corners
        size = right - left + 1, lower - upper + 1
        spots.append(Spot(entry.findtext("name", "object"), ((left + right) / 2 - 1, (upper + lower) / 2 - 1), size))
    return LookedOver(root.findtext("filename") or path.stem, tuple(spots))


def _yolo(folder: Path, names: Mapping[int, str]) -> list[LookedOver]:
    """Each line: class number, centre and size as shares of the image (github.com/AlexeyAB/darknet)."""
    told = dict(names) or _yolo_names(folder)
    found = []
    for path in sorted(folder.rglob("*.txt")):
        if path.name in ("classes.txt", "train.txt", "val.txt", "test.txt") or path.name.lower().startswith("readme"):
            continue
        spots = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                number, *numbers = line.split()
                x, y, width, height = (float(value) for value in numbers[:4])
                name = told.get(int(number), f"class {number}")
                spots.append(Spot(name, (x, y), (width, height), share=True))
        found.append(LookedOver(path.relative_to(folder).with_suffix("").as_posix(), tuple(spots)))
    return found


def _yolo_names(folder: Path) -> dict[int, str]:
    near = [
        folder / "classes.txt",
        folder.parent / "classes.txt",
        *folder.glob("*.names"),
        *folder.parent.glob("*.names"),
    ]
    for path in near:
        if path.is_file():
            return dict(enumerate(path.read_text(encoding="utf-8").split("\n")))
    return {}


def _table(path: Path) -> list[LookedOver]:
    """A CSV with the columns of `detections.csv`; `radius` instead of sizes makes points; no x: a negative."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    reader = csv.DictReader(lines, delimiter=max(",;\t", key="".join(lines[:1]).count))
    columns = reader.fieldnames or []
    key = next((name for name in ("input", "file", "image", "id") if name in columns), None)
    if key is None or not {"x", "y"} <= set(columns):
        raise UnusableInput("The table lacks the columns input, x and y.", remedy=_AGAIN)
    spots: dict[str, list[Spot]] = {}
    for row in reader:
        found = spots.setdefault((row[key] or "").strip(), [])
        if row["x"]:
            found.append(_spot(row))
    return [LookedOver(name, tuple(found)) for name, found in spots.items()]


def _spot(row: Mapping[str, str]) -> Spot:
    centre, size = _numbers(row, ("x", "y", "z")), _numbers(row, ("width", "height", "depth"))
    name = row.get("class") or "lesion"
    if size:
        return Spot(name, centre, size)
    return Spot(name, centre, radius=float(row["radius"]) if row.get("radius") else None)


def _numbers(row: Mapping[str, str], columns: Sequence[str]) -> tuple[float, ...]:
    return tuple(float(row[column]) for column in columns if row.get(column))
