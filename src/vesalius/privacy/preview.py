"""What the door would do, told per attribute before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from vesalius.formats.dicom_header import lenient
from vesalius.formats.dicom_pixels import open_whole
from vesalius.formats.dicom_values import damaged
from vesalius.formats.scan import Scan
from vesalius.privacy.headers import HeaderCleaner
from vesalius.privacy.profile import Profile
from vesalius.privacy.pseudonyms import Pseudonyms


@dataclass
class Preview:
    """How often what would happen to which attribute, and why; no values.

    Args:
        files: how many DICOM files were looked at.
        rows: (attribute with the sequences it lies in, what happens, why) to the number of files.
    """

    files: int = 0
    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def as_json(self) -> list[dict[str, str | int]]:
        """One object per row, by attribute."""
        return [
            {"attribute": name, "action": what, "why": why, "elements": count}
            for (name, what, why), count in sorted(self.rows.items())
        ]

    def __str__(self) -> str:
        widths = [max((len(row[column]) for row in self.rows), default=0) for column in (0, 1)]
        lines = [f"{name:<{widths[0]}}  {what:<{widths[1]}}  {count:>6}  {why}"
                 for (name, what, why), count in sorted(self.rows.items())]  # fmt: skip
        return "\n".join([*lines, f"{self.files} files were looked at; nothing was written."])


def preview(scans: Iterable[Scan], pseudonyms: Pseudonyms, profile: Profile) -> Preview:
    """Clean the header of each DICOM file in memory and tell what was done."""
    result = Preview()

    def tell(name: str, what: str, why: str) -> None:
        result.rows[name, what, why] += 1

    for scan in scans:
        if scan.source != "dicom":
            continue
        cleaner = HeaderCleaner(pseudonyms, pseudonyms.patient(scan.patient), scan.patient, profile, report=tell)
        for file in dict.fromkeys(scan.files):
            result.files += 1
            with lenient():
                try:
                    cleaner.clean(open_whole(Path(file)))
                except damaged():
                    tell("the file", "set aside", "its header is damaged")
    return result
