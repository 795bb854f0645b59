"""The model bundle: the seam between the training side and the bedside.

A folder of plain data: `model.onnx` (the graph), `weights.safetensors` (its weights), `card.json`,
`check.safetensors` (an input with its output), further assets if any, and `manifest.json` with the SHA-256
of every one of them. Opening a bundle hashes every file and runs nothing that lies in it.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vesalius.core.errors import BundleError, UsageError
from vesalius.store.files import flush_folder

CARD_FORMAT = 1
MANIFEST = "manifest.json"
CARD = "card.json"
MODEL = "model.onnx"

_LARGEST_JSON = 16 << 20
_FETCH = "Fit the model again or fetch a fresh copy."
_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "task": str,
    "research_only": (str, bool),
    "classes": list,
    "inputs": list,
    "preparation": dict,
    "network": dict,
}


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Args:
        folder: where it lies.
        card: the content of `card.json`.
        files: SHA-256 (hexadecimal) of each file by its "/"-separated name, the manifest not among them.
    """

    folder: Path
    card: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 over names and hashes: the same for the same content, wherever it lies."""
        return bundle_digest(self.files)

    def path(self, name: str) -> Path:
        """Where one of the bundle's files lies.

        Raises:
            BundleError: the manifest does not list it.
        """
        if name not in self.files:
            raise BundleError(f"The bundle has no file {name}.", remedy=_FETCH, file=self.folder)
        return self.folder / name


def bundle_digest(files: Mapping[str, str]) -> str:
    """SHA-256 over the sorted lines "<hash>  <name>" of a bundle's files."""
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def write_bundle(folder: Path, files: Mapping[str, bytes], card: Mapping[str, Any]) -> Path:
    """Write a bundle so that a kill at any moment leaves the old one or the new one, never a mixture.

    Args:
        folder: where it shall lie. A bundle that is there already is replaced; any other folder with
            something in it is left alone.
        files: content of every file but the card and the manifest, by "/"-separated name.
        card: the card; its format number is added.

    Returns:
        The folder.

    Raises:
        BundleError: the card lacks a key that the bedside needs, or a file name leaves the folder.
        UsageError: `folder` exists and is not a bundle.
    """
    folder = Path(folder)
    card = {"format": CARD_FORMAT, **card}
    check_card(card, folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "There is something else where the model shall go.", remedy="Name another folder.", file=folder
        )
    contents = {**files, CARD: (json.dumps(card, indent=2, allow_nan=False) + "\n").encode("utf-8")}
    for name in contents:
        _check_name(name, folder)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
    manifest = {"format": CARD_FORMAT, "files": hashes}
    contents[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode("utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new = beside / "new"
        for name, data in contents.items():
            _write(new / name, data)
        if folder.exists():
            folder.rename(beside / "old")
        new.rename(folder)
        flush_folder(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def open_bundle(folder_or_name: str | Path) -> Bundle:
    """Open a bundle and verify every file in it.

    Args:
        folder_or_name: a bundle's folder, or the name of a bundle that comes with Vesalius. A folder that
            holds a bundle is taken before a shipped one of the same name.

    Raises:
        BundleError: it is not a bundle, a file is missing, altered, not listed or a link, or the card is of
            a format that this version does not know or lacks a key. The message names the file.
    """
    folder = _find(folder_or_name)
    files = _read_manifest(folder)
    present = _list_files(folder)
    for name in sorted(files.keys() - present):
        raise BundleError(f"The bundle's file {name} is missing.", remedy=_FETCH, file=folder)
    for name in sorted(present - files.keys()):
        raise BundleError(f"The file {name} does not belong to the bundle.", remedy="Move it elsewhere.", file=folder)
    for name, expected in files.items():
        with (folder / name).open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected:
            raise BundleError(f"The bundle's file {name} was altered.", remedy=_FETCH, file=folder)
    card = _read_json(folder / CARD, CARD, folder)
    check_card(card, folder)
    return Bundle(folder, card, files)


def shipped_bundles() -> tuple[str, ...]:
    """Names of the bundles that come with Vesalius, sorted."""
    root = _shipped_root()
    if not root.is_dir():
        return ()
    return tuple(sorted(item.name for item in root.iterdir() if (item / MANIFEST).is_file()))


def check_card(card: Mapping[str, Any], folder: Path) -> None:
    """Refuse a card that the bedside could not work with.

    Raises:
        BundleError: unknown format, or a key that is missing or of the wrong type; the message names it.
    """
    version = card.get("format")
    if not isinstance(version, int) or isinstance(version, bool):
        raise BundleError("The card does not state its format.", remedy=_FETCH, file=folder)
    if version != CARD_FORMAT:
        raise BundleError(
            f"The card has format {version}; this version of Vesalius reads {CARD_FORMAT}.",
            remedy="Install a version of Vesalius that matches the model.",
            file=folder,
        )
    for key, kind in _REQUIRED.items():
        if not isinstance(card.get(key), kind):
            raise BundleError(f'The card\'s "{key}" is missing or unreadable.', remedy=_FETCH, file=folder)
    values = [item.get("value") if isinstance(item, dict) else None for item in card["classes"]]
    least = 0 if card["task"] == "classification" else 1  # 0 is the background of masks
    numbers = all(isinstance(value, int) and least <= value <= 65535 for value in values)
    if not numbers or len(set(values)) != len(values):
        raise BundleError("The card's classes need values of their own.", remedy=_FETCH, file=folder)


def _find(folder_or_name: str | Path) -> Path:
    folder = Path(folder_or_name)
    if (folder / MANIFEST).is_file():
        return folder
    name = str(folder_or_name)
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        shipped = _shipped_root() / name
        if (shipped / MANIFEST).is_file():
            return shipped
    known = ", ".join(shipped_bundles()) or "none"
    raise BundleError(
        f"There is no model here: a bundle's folder holds a {MANIFEST}.",
        remedy=f"Name the folder that fit wrote, or a model that comes with Vesalius ({known}).",
        file=folder,
    )


def _shipped_root() -> Path:
    return Path(str(importlib.resources.files("vesalius"))) / "shipped"


def _read_manifest(folder: Path) -> dict[str, str]:
    """Hash of every file by name, all names staying inside the folder."""
    manifest = _read_json(folder / MANIFEST, MANIFEST, folder)
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise BundleError(f"The bundle's {MANIFEST} lists no files.", remedy=_FETCH, file=folder)
    for name in files:
        _check_name(name, folder)
    if CARD not in files:
        raise BundleError(f"The bundle's {MANIFEST} does not list {CARD}.", remedy=_FETCH, file=folder)
    return files


def _read_json(path: Path, name: str, folder: Path) -> dict[str, Any]:
    if path.is_symlink():
        raise BundleError(f"The bundle's {name} is a link.", remedy=_FETCH, file=folder)
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise BundleError(f"The bundle's {name} is far too large.", remedy=_FETCH, file=folder)
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"The bundle's {name} cannot be read.", remedy=_FETCH, file=folder) from error
    if not isinstance(data, dict):
        raise BundleError(f"The bundle's {name} is not a JSON object.", remedy=_FETCH, file=folder)
    return data


def _check_name(name: str, folder: Path) -> None:
    """Refuse a file name that is not a plain relative path below the folder."""
    path = PurePosixPath(name)
    plain = (
        name == str(path)
        and not path.is_absolute()
        and not {"..", "."} & set(path.parts)
        and re.fullmatch(r"[A-Za-z0-9_./-]+", name) is not None
        and name != MANIFEST
    )
    if not plain:
        raise BundleError(f"The bundle names a file outside itself: {name!r}.", remedy=_FETCH, file=folder)


def _list_files(folder: Path) -> set[str]:
    """Names of all files below the folder but the manifest; links and special files are refused."""
    names = set()
    for place, folders, files in os.walk(folder, followlinks=False):
        for item in (*folders, *files):
            path = Path(place) / item
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise BundleError(f"The bundle's {name} is a link or no file.", remedy=_FETCH, file=folder)
            if path.is_file() and name != MANIFEST:
                names.add(name)
    return names


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
