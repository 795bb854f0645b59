"""The nnU-Net raw layout: imagesTr/<case>_<channel>, labelsTr/<case>, dataset.json, splits_final.json.

Source: documentation/dataset_format.md of MIC-DKFZ/nnUNet (version 2).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vesalius.core.cohort import TEST, TRAIN, Cohort
from vesalius.core.errors import UnusableInput
from vesalius.core.progress import Progress
from vesalius.formats.layout import Entry, Layout, read_json, write_volume


def read(folder: Path) -> Layout | None:
    """The layout of a folder with a nnU-Net `dataset.json`, or None.

    Raises:
        UnusableInput: `dataset.json` is there but does not say what nnU-Net needs.
    """
    if not (folder / "dataset.json").is_file() or not (folder / "imagesTr").is_dir():
        return None
    description = read_json(folder / "dataset.json")
    ending = description.get("file_ending", ".nii.gz")
    channels = description.get("channel_names", description.get("modality"))
    labels = description.get("labels")
    if not isinstance(channels, dict) or not isinstance(labels, dict):
        raise UnusableInput(
            "dataset.json names no channels or labels.", remedy="Complete it as nnU-Net describes.", file=folder
        )
    classes, ignore = _classes(labels)
    entries = []
    for part, images, masks in ((TRAIN, "imagesTr", "labelsTr"), (TEST, "imagesTs", "labelsTs")):
        for image in sorted((folder / images).glob(f"*{ending}")):
            case, underscore, channel = image.name.removesuffix(ending).rpartition("_")
            whole = (folder / masks / image.name).is_file()  # the Decathlon's names end without a channel
            if whole or not underscore or len(channel) != 4 or not channel.isdigit():
                case, channel = image.name.removesuffix(ending), "0000"
            mask = folder / masks / (case + ending)
            first = int(channel) == 0 and mask.is_file()
            role = str(channels.get(str(int(channel)), "image"))
            name = case if int(channel) == 0 else f"{case}_{channel}"
            entries.append(Entry(image, name, role, case, case, mask if first else None, part))
    return Layout("nnU-Net", tuple(entries), classes, ignore)


def write(cohort: Cohort, folder: Path, progress: Progress) -> None:
    """Write the cohort so that nnU-Net reads it: test part to imagesTs and labelsTs, folds to splits_final.json."""
    roles = sorted({image.role for case in cohort for image in case.images})
    parts = cohort.split.parts if cohort.split else {}
    for case in progress.track(cohort.cases, "Exporting", len(cohort)):
        end = "Ts" if parts.get(case.patient) == TEST else "Tr"
        for image in case.images:
            path = folder / f"images{end}" / f"{case.id}_{roles.index(image.role):04d}.nii.gz"
            write_volume(path, image.read(), image.grid)
        if case.label_image is not None:
            path = folder / f"labels{end}" / f"{case.id}.nii.gz"
            write_volume(path, case.label_image.read(), case.label_image.grid)
    labels: dict[str, int] = {"background": 0, **{entry.name: entry.value for entry in cohort.labels}}
    if cohort.ignore is not None:
        labels["ignore"] = cohort.ignore
    description = {
        "channel_names": {str(number): role for number, role in enumerate(roles)},
        "labels": labels,
        "numTraining": sum(parts.get(case.patient) != TEST for case in cohort),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    if cohort.split is not None:
        (folder / "splits_final.json").write_text(json.dumps(_splits(cohort), indent=2), encoding="utf-8")


def _classes(labels: dict[str, Any]) -> tuple[dict[int, str], int | None]:
    """Names by value; nnU-Net writes name to value, the Decathlon value to name."""
    by_value: dict[int, str] = {}
    for left, right in labels.items():
        value, name = (int(left), str(right)) if str(left).isdigit() else (right, str(left))
        if isinstance(value, int):
            by_value[value] = name
    ignore = next((value for value, name in by_value.items() if name == "ignore"), None)
    return {value: name for value, name in by_value.items() if value and value != ignore}, ignore


def _splits(cohort: Cohort) -> list[dict[str, list[str]]]:
    assert cohort.split is not None
    folds = cohort.split.folds
    training = [case for case in cohort if case.patient in folds]
    return [
        {
            "train": [case.id for case in training if folds[case.patient] != fold],
            "val": [case.id for case in training if folds[case.patient] == fold],
        }
        for fold in sorted(set(folds.values()))
    ]
