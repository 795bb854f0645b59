"""Find every scan in files, folders and archives, as a stream.

Memory is bounded: names of one folder's entries at a time and one series' headers at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from vesalius.core.errors import UnusableInput, UsageError
from vesalius.formats import nifti
from vesalius.formats.scan import Refused, Scan


def find_scans(source: Path, *, name_filter: Callable[[str], bool] | None = None) -> Iterator[Scan | Refused]:
    """Everything under a file or folder that is, or should have been, an image.

    Raises:
        UsageError: the source does not exist.
    """
    if not source.exists():
        raise UsageError("It does not exist.", remedy="Check the path.", file=source)
    for path, name in _walk(source):
        if name_filter is None or name_filter(name):
            yield from _read(path, name)


def _walk(source: Path) -> Iterator[tuple[Path, str]]:
    if not source.is_dir():
        yield source, source.name
        return
    for folder, folders, files in os.walk(source):
        folders.sort()
        for file in sorted(files):
            path = Path(folder) / file
            yield path, path.relative_to(source).as_posix()


def _read(path: Path, name: str) -> Iterator[Scan | Refused]:
    try:
        if name.lower().endswith(nifti.SUFFIXES):
            yield from nifti.read_nifti(path, name)
    except UnusableInput as error:
        yield Refused.because(name, (path,), error)
