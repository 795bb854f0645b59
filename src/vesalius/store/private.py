"""Folders for plain copies of what is encrypted: readable by their owner only, in memory where there is room."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 (a file system in memory: what lies there never reaches a disk but by swapping)
_PREFIX = "vesalius-private-"
_ROOM = 3  # the free memory must be this many times what is needed


@contextmanager
def private_folder(room: int = 0) -> Iterator[Path]:
    """A new folder of mode 0700 that is gone after the block, also when it fails.

    Args:
        room: bytes that will be written, so that memory is not filled; the folder is then on the disk.
    """
    folder = make_private(room)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_private(room: int = 0) -> Path:
    """`private_folder` for who removes it alone, with `drop_private`. What killed processes left is removed first."""
    base = _MEMORY if _has_room(room) else Path(tempfile.gettempdir())
    _sweep(base)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))


def is_private(path: Path) -> bool:
    """Whether a path lies in such a folder."""
    return path.parent.name.startswith(_PREFIX)


def drop_private(path: Path) -> None:
    """Remove the private folder that a path lies in."""
    if is_private(path):
        shutil.rmtree(path.parent, ignore_errors=True)


def _has_room(room: int) -> bool:
    if os.name != "posix" or not _MEMORY.is_dir() or not os.access(_MEMORY, os.W_OK):
        return False
    return shutil.disk_usage(_MEMORY).free > _ROOM * room + (64 << 20)


def _sweep(base: Path) -> None:
    """Remove the private folders of this user whose process is no more."""
    for left in base.glob(f"{_PREFIX}*"):
        process = left.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdigit() and not _lives(int(process)) and _is_mine(left):
            shutil.rmtree(left, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is somebody else's
    return True


def _is_mine(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return not path.is_symlink() and (os.name != "posix" or status.st_uid == os.getuid())
