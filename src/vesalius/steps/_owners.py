"""Whose an input is: by its header, a table, a pattern, or its own name."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vesalius.core.errors import UsageError

KEY_COLUMNS = ("input", "file", "image", "id")

_Owner = tuple[str, str]  # patient and visit


@dataclass(frozen=True)
class Owners:
    """Which patient and visit an input belongs to.

    Args:
        rows: patient and visit by a file's name as the table writes it, and by the name without its suffix.
        tails: the same by the last parts of a path of the table, for whole names below the source.
        pattern: whose first group, or the group called `patient`, is the patient; None without one.
        unnamed: filled with the names of files without a header that nothing says the patient of.
    """

    rows: dict[str, _Owner]
    tails: dict[str, _Owner]
    pattern: re.Pattern[str] | None
    unnamed: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        table: str | Path | None,
        key: str | None,
        patient: str | None,
        case: str | None,
        patient_from: str | None,
    ) -> Owners:
        """Parse the options once.

        Raises:
            UsageError: a column is missing, the pattern is not valid, options contradict each other, or the table
                gives one file to two patients.
        """
        if (patient or case) and table is None:
            raise UsageError("--patient and --case name columns of a table.", remedy="Add --table FILE.csv.")
        pattern = None
        if patient_from is not None:
            try:
                pattern = re.compile(patient_from)
            except re.error as error:
                raise UsageError(f"--patient-from is not a regular expression: {error}.") from error
            if pattern.groups < 1:
                raise UsageError("--patient-from has no group.", remedy="Put brackets around the patient's part.")
        rows: dict[str, _Owner] = {}
        if table is not None:
            for name, row in read_keyed(Path(table), key):
                for column in (patient, case):
                    if column is not None and column not in row:
                        raise UsageError(f"The table has no column {column!r}.", file=table)
                owner = (row[patient] if patient else "", row[case] if case else "")
                if rows.setdefault(name, owner)[0] != owner[0]:
                    raise UsageError(
                        "The table gives files of one name to several patients.",
                        remedy="Name the files by their paths below the source, or name that column with --key.",
                        file=table,
                    )
                rows[name] = owner
        return cls(*_by_shorter_names(rows), pattern)

    def named(self, name: str) -> _Owner | None:
        """What the table says of an input: (patient, visit), empty where it does not say; None without a row."""
        from vesalius.formats.names import volume_of, without_suffix

        name = volume_of(name)[0]
        plain = without_suffix(name)
        last = [PurePosixPath(name).name, PurePosixPath(plain).name]
        known = [self.rows.get(name), self.rows.get(plain), self.tails.get(plain), *map(self.rows.get, last)]
        return next((owner for owner in known if owner is not None), None)

    def of_scan(self, name: str, patient: str, study: str) -> _Owner:
        """(patient, visit) of an input, both identified; no patient where the pattern does not fit its name."""
        from vesalius.formats.names import volume_of, without_suffix

        row = self.named(name)
        name = volume_of(name)[0]
        plain = without_suffix(name)
        if row is not None:
            return row[0] or patient or row[1] or plain, row[1] or study or plain
        if self.pattern is not None and not patient:
            match = self.pattern.search(name)
            if match is None:
                return "", ""
            patient = match.groupdict().get("patient") or match.group(1)
        if not patient:
            self.unnamed.add(name)
        return patient or plain, study or plain


def _by_shorter_names(rows: dict[str, _Owner]) -> tuple[dict[str, _Owner], dict[str, _Owner]]:
    """The rows by name, also without suffix, and by the last parts of paths; what two owners share is left out."""
    from vesalius.formats.names import without_suffix

    plain: dict[str, set[_Owner]] = defaultdict(set)
    tails: dict[str, set[_Owner]] = defaultdict(set)
    for name, owner in rows.items():
        short = without_suffix(name.replace("\\", "/"))
        plain[short].add(owner)
        parts = PurePosixPath(short).parts
        for first in range(1, len(parts)):
            tails["/".join(parts[first:])].add(owner)
    single = {name: owners.pop() for name, owners in plain.items() if len(owners) == 1}
    return single | rows, {name: owners.pop() for name, owners in tails.items() if len(owners) == 1}


def read_keyed(table: Path, key: str | None) -> Iterable[tuple[str, dict[str, str]]]:
    """Rows of a CSV with the name of the file they speak of.

    Raises:
        UsageError: the table cannot be read or has no such column.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("The table cannot be read as UTF-8 text.", file=table) from error
    try:
        dialect: type[csv.Dialect] = csv.Sniffer().sniff(text[:4096], delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel
    reader = csv.DictReader(text.splitlines(), dialect=dialect)
    columns = list(reader.fieldnames or [])
    chosen = key or next((column for column in KEY_COLUMNS if column in columns), None)
    if chosen is None or chosen not in columns:
        raise UsageError(
            f"The table has no column {key!r}." if key else "The table has no column that names the files.",
            remedy=f"Name it with --key; the columns are {', '.join(columns)}.",
            file=table,
        )
    for row in reader:
        yield (
            row[chosen].strip(),
            {name: (value or "").strip() for name, value in row.items() if name is not None},
        )
