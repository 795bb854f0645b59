"""Every error that Vesalius raises on purpose: what is wrong, in which file, and what to do about it.

No message may hold an identifier. `file` is kept apart from the message so that whoever writes to disk
can leave it out; only the terminal of the user who named the file shows it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path


class VesaliusError(Exception):
    """Base of all errors.

    Args:
        what: what is wrong, one sentence without the file's name or anything else that identifies.
        remedy: what the user can do about it, one sentence.
        file: the file or folder concerned, shown on the terminal only.
    """

    def __init__(self, what: str, *, remedy: str = "", file: str | Path | None = None) -> None:
        self.what = what
        self.remedy = remedy
        self.file = str(file) if file is not None else None
        place = f"{self.file}: " if self.file else ""
        super().__init__(f"{place}{what}" + (f" {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[object, ...]:
        """So that an error of another process arrives whole."""
        return partial(type(self), self.what, remedy=self.remedy, file=self.file), ()


class UsageError(VesaliusError):
    """The command or call asks for something that cannot be: wrong option, missing folder, no truth."""


class UnusableInput(VesaliusError):
    """One input cannot be used. It is set aside with its cause and remedy; the others go on."""


class WithdrawnPatient(UnusableInput):
    """The patient was taken out of the cohort and may not come in again unasked. Nothing is remembered of the input."""


class GeometryError(UnusableInput):
    """The input's position, orientation or spacing contradicts itself, so any volume would be a guess."""


class PatientOverlap(VesaliusError):
    """Patients would stand both in what is learned from and in what is measured on."""


class StoreError(VesaliusError):
    """A cohort folder is damaged, of a newer version, or in use by another process."""


class BundleError(VesaliusError):
    """A model bundle is incomplete, altered, or of a version that this program does not know."""


class MissingExtra(VesaliusError):
    """An optional part is not installed; the remedy names the extra to install."""
