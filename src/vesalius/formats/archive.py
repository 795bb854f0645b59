"""Zip archives, unpacked safely into a private folder that lives as long as something read from it.

Member names are never trusted: absolute paths, drive letters, `..` and links are left out. Sizes are counted
while unpacking, so a lying directory of the archive gains nothing.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from vesalius.core.errors import UnusableInput

_MOST_MEMBERS = 2_000_000
_MOST_RATIO = 300  # unpacked to packed size of a large archive; scans pack 1:1 to 1:20, bombs 1000:1
_LARGE = 2**28  # bytes below which the ratio does not matter
_RESERVE = 2**30  # bytes of the disk that are left free
_BLOCK = 1 << 20


class PrivateFolder:
    """A folder that only this user may read (mode 0700), deleted with the last reference to this object."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="vesalius-"))
        self._delete = weakref.finalize(self, shutil.rmtree, str(self.path), True)

    def delete(self) -> None:
        """Delete the folder now."""
        self._delete()


def unpack(archive: Path) -> tuple[PrivateFolder, int]:
    """Unpack a zip archive; returns its folder and how many members were left out for an unsafe name.

    Raises:
        UnusableInput: damaged, encrypted, or unpacks to an absurd size or to more than the disk holds.
    """
    folder = PrivateFolder()
    try:
        with zipfile.ZipFile(archive) as packed:
            left_out = _unpack_members(packed, folder.path, archive.stat().st_size)
    except UnusableInput:
        folder.delete()
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError,
            RuntimeError) as error:  # fmt: skip
        folder.delete()
        encrypted = isinstance(error, RuntimeError) and "encrypted" in str(error)
        if encrypted:
            raise UnusableInput("The archive is encrypted.", remedy="Unpack it first.") from error
        raise UnusableInput(
            "The archive is damaged or cut off.", remedy="Copy or export it again from its source."
        ) from error
    return folder, left_out


def _unpack_members(packed: zipfile.ZipFile, folder: Path, packed_size: int) -> int:
    members = [member for member in packed.infolist() if not member.is_dir()]
    if len(members) > _MOST_MEMBERS:
        raise UnusableInput("The archive lists millions of files.", remedy="Split it.")
    limit = max(_LARGE, packed_size * _MOST_RATIO)
    room = shutil.disk_usage(folder).free - _RESERVE
    if sum(member.file_size for member in members) > min(limit, room):
        raise UnusableInput(
            "The archive unpacks to an absurd size, or to more than the disk for temporary files holds.",
            remedy="Unpack it by hand to where there is room, and give the folder.",
        )
    written, left_out = 0, 0
    for member in members:
        target = _target(folder, member)
        if target is None:
            left_out += 1
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with packed.open(member) as source, target.open("wb") as sink:
            while block := source.read(_BLOCK):
                written += len(block)
                if written > min(limit, room):
                    raise UnusableInput("The archive unpacks to an absurd size.", remedy="Unpack it by hand.")
                sink.write(block)
    return left_out


def _target(folder: Path, member: zipfile.ZipInfo) -> Path | None:
    """Where a member goes; None where its name or kind is unsafe."""
    if stat.S_ISLNK(member.external_attr >> 16):
        return None
    name = PurePosixPath(member.filename.replace("\\", "/"))
    unsafe = name.is_absolute() or ".." in name.parts or any(":" in part or "\0" in part for part in name.parts)
    if unsafe or not name.parts:
        return None
    target = folder.joinpath(*name.parts)
    return target if target.resolve().is_relative_to(folder.resolve()) else None
