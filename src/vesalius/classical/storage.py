"""The fitted rival on disk, inside the cohort's folder: atlases are patients' images and never leave it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from vesalius.classical.classification import FeatureModel
from vesalius.classical.detection_model import FilterModel
from vesalius.classical.kept import FittedRival, Kept
from vesalius.classical.multi_atlas import MultiAtlasModel
from vesalius.classical.tissue import TissueModel
from vesalius.classical.voxelwise import VoxelModel
from vesalius.core.cohort import Cohort
from vesalius.core.errors import StoreError, UsageError
from vesalius.core.protocols import Model
from vesalius.store.sealed import Seal, seal_of

_FORMAT = 1
_KINDS: Mapping[str, Callable[[Kept], FittedRival]] = {
    MultiAtlasModel.kind: MultiAtlasModel.from_kept,
    TissueModel.kind: TissueModel.from_kept,
    VoxelModel.kind: VoxelModel.from_kept,
    FeatureModel.kind: FeatureModel.from_kept,
    FilterModel.kind: FilterModel.from_kept,
}


def rival_folder(cohort: Cohort, question: str = "segmentation") -> Path:
    """Where the cohort's fitted rival has its place: one for each question.

    Args:
        cohort: that it was fitted on.
        question: the task, with its target where it has one ("classification-malignant").
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", question).strip(".-")
    # Two questions that differ only in what a folder's name may not hold must not share one.
    mark = "" if plain == question else f"-{hashlib.sha256(question.encode()).hexdigest()[:8]}"
    return cohort.folder / "models" / f"rival-{plain}{mark}"


def save_rival(model: Model, folder: Path) -> None:
    """Write a fitted rival beside, then put it in the place of an older one.

    A kill in between leaves the older rival, the new one, or none; never half of one.

    Args:
        model: with a method `keep`, as the rivals of this package have.
        folder: from `rival_folder`.

    Raises:
        UsageError: the model is of another kind and cannot be kept.
    """
    keep: Callable[[], Kept] | None = getattr(model, "keep", None)
    if keep is None:
        raise UsageError(
            "This rival cannot be kept in the cohort.", remedy="Give its model a method `keep` (see kept.Kept)."
        )
    kept = keep()
    described = {"format": _FORMAT, "kind": kept.kind, "files": sorted(kept.files), "values": kept.values}
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        new, old = beside / "new", beside / "old"
        new.mkdir()
        contents = {f"{name}.npz": data for name, data in kept.files.items()}
        contents["rival.json"] = json.dumps(described, indent=2, allow_nan=False).encode()
        seal = _seal_of(folder)
        for name, data in contents.items():
            if seal is None:
                (new / name).write_bytes(data)
            else:
                seal.write(folder / name, data, at=new / name)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load_rival(folder: Path) -> FittedRival:
    """The rival that `save_rival` wrote; it answers exactly alike. Nothing in the folder is executed.

    Args:
        folder: from `rival_folder`.

    Raises:
        StoreError: there is none, or it is damaged or of another version.
    """
    remedy = "Fit again, so that the rival is made anew."
    try:
        seal = _seal_of(folder)
        read = Path.read_bytes if seal is None else seal.read
        described = json.loads(read(folder / "rival.json"))
        if described["format"] != _FORMAT or described["kind"] not in _KINDS:
            raise StoreError("The rival was kept by another version.", remedy=remedy, file=folder)
        files = {name: read(folder / f"{Path(name).name}.npz") for name in described["files"]}
        return _KINDS[described["kind"]](Kept(described["kind"], described["values"], files))
    except FileNotFoundError as error:
        raise StoreError("No whole rival is kept in this cohort.", remedy=remedy, file=folder) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError("The rival cannot be read.", remedy=remedy, file=folder) from error


def _seal_of(folder: Path) -> Seal | None:
    """The seal of the cohort that a rival's folder lies in, where the cohort is encrypted: atlases are images too."""
    return seal_of(folder.parent.parent)
