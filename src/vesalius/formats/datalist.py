"""A MONAI datalist: one JSON with the lists `training` and `testing` of image and label paths.

Source: monai.data.load_decathlon_datalist (MONAI 1.6).
"""

from __future__ import annotations

import json
from pathlib import Path

from vesalius.core.cohort import TEST, TRAIN, Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.progress import Progress
from vesalius.formats.layout import Entry, Layout, read_json, write_volume
from vesalius.formats.names import without_suffix

FILE = "datalist.json"


def read(folder: Path) -> Layout | None:
    """The layout of a folder with a `datalist.json`, or None.

    Raises:
        UnusableInput: the datalist has no lists, or an entry leaves the folder.
    """
    if not (folder / FILE).is_file():
        return None
    description = read_json(folder / FILE)
    labels = description.get("labels", {})
    entries: list[Entry] = []
    for key, part in (("training", TRAIN), ("validation", TEST), ("testing", TEST)):
        for item in description.get(key, []):
            record = {"image": item} if isinstance(item, str) else item
            images = record["image"] if isinstance(record["image"], list) else [record["image"]]
            case = without_suffix(str(images[0]))
            mask = _inside(folder, record["label"]) if isinstance(record.get("label"), str) else None
            for number, image in enumerate(images):
                name = case if number == 0 else without_suffix(str(image))
                role = "image" if len(images) == 1 else f"channel {number}"
                entries.append(
                    Entry(_inside(folder, image), name, role, case, case, mask if not number else None, part)
                )
    if not entries:
        raise UnusableInput(f"{FILE} lists no images.", remedy="Give the lists training and testing.", file=folder)
    classes = {int(value): str(name) for value, name in labels.items() if int(value)}
    return Layout("MONAI datalist", tuple(entries), classes)


def write(cohort: Cohort, folder: Path, progress: Progress) -> None:
    """Write the cohort with a `datalist.json`; training entries carry their fold."""
    lists: dict[str, list[dict[str, object]]] = {"training": [], "testing": []}
    parts = cohort.split.parts if cohort.split else {}
    folds = cohort.split.folds if cohort.split else {}
    for case in progress.track(cohort.cases, "Exporting", len(cohort)):
        names = []
        for image in case.images:
            names.append(f"images/{case.id}_{image.id}.nii.gz")
            write_volume(folder / names[-1], image.read(), image.grid)
        record: dict[str, object] = {"image": names[0] if len(names) == 1 else names}
        if case.label_image is not None:
            record["label"] = f"labels/{case.id}.nii.gz"
            write_volume(folder / f"labels/{case.id}.nii.gz", case.label_image.read(), case.label_image.grid)
        if case.patient in folds:
            record["fold"] = folds[case.patient]
        lists["testing" if parts.get(case.patient) == TEST else "training"].append(record)
    labels = {"0": "background", **{str(entry.value): entry.name for entry in cohort.labels}}
    description = {"name": cohort.name, "labels": labels, **lists}
    (folder / FILE).write_text(json.dumps(description, indent=2), encoding="utf-8")


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UnusableInput(f"An entry of {FILE} leaves its folder.", remedy="Use paths below it.", file=folder)
    return path
