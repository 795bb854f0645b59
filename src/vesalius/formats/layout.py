"""Folders that other programs lay out for learning: nnU-Net raw, a MONAI datalist, BIDS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vesalius.core.errors import UnusableInput
from vesalius.core.grid import Array, Grid


@dataclass(frozen=True)
class Entry:
    """One image of a layout.

    Args:
        image: its file.
        name: what it is called in the cohort's matching: without suffix, "/"-separated.
        role: what it is for, "" to let the role rules say.
        patient, case: identified keys.
        label: the mask on its grid, or None.
        part: "train", "test" or "" where the layout does not say.
    """

    image: Path
    name: str
    role: str
    patient: str
    case: str
    label: Path | None = None
    part: str = ""


@dataclass(frozen=True)
class Layout:
    """What a laid-out folder holds."""

    kind: str
    entries: tuple[Entry, ...]
    classes: Mapping[int, str] = field(default_factory=dict)
    ignore: int | None = None


def read_layout(folder: Path) -> Layout | None:
    """The layout of a folder, or None where it is just a folder.

    Raises:
        UnusableInput: the folder announces a layout that its files do not keep to.
    """
    from vesalius.formats import bids, datalist, nnunet

    if not folder.is_dir():
        return None
    return nnunet.read(folder) or bids.read(folder) or datalist.read(folder)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UnusableInput: it is not one.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableInput(f"{path.name} is not readable JSON.", remedy="Repair it.", file=path) from error
    if not isinstance(data, dict):
        raise UnusableInput(f"{path.name} is not a JSON object.", remedy="Repair it.", file=path)
    return data


def write_volume(path: Path, array: Array, grid: Grid) -> None:
    """One volume (channels, i, j, k) or (i, j, k) as NIfTI, making its folder."""
    from vesalius.formats.nifti import write_nifti

    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, array[0] if array.ndim == 4 and array.shape[0] == 1 else array, grid)
