"""Writing so that a kill at any moment leaves the old file or the new one, never half of either."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write beside, flush to the disk, then rename. `mode` sets the permission bits, e.g. 0o600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(mode if mode is not None else 0o666 & ~_umask())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, data: Any) -> None:
    """`write_bytes` of readable JSON; not-a-number is refused because JSON has none."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside, keeping the whole suffix that libraries go by, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    try:
        write(folder / path.name)
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_once(made: Path, place: Path) -> None:
    """Give a finished file its name, unless another process gave that name to its own meanwhile, which then stays."""
    try:
        os.link(made, place)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        made.replace(place)
    finally:
        made.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Make renaming and removing durable, where the system lets folders be flushed (not on Windows)."""
    if os.name != "posix" or not folder.is_dir():
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
