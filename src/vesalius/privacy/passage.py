"""Scans on their way through the door, several at a time, entered in the order in which they came.

Scans of one patient follow each other, because each tells the next what is known of the patient; so the outcome
does not depend on how many processes work. This process alone writes to the database.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from vesalius.core.errors import UnusableInput, WithdrawnPatient
from vesalius.core.progress import Progress
from vesalius.formats.dicom_pixels import DicomPixels
from vesalius.formats.dicom_values import damaged
from vesalius.formats.scan import Companion, Refused, Scan
from vesalius.privacy.door import Door, Order
from vesalius.privacy.identity import Identity
from vesalius.privacy.profile import PixelMode, Profile
from vesalius.privacy.pseudonyms import Pseudonyms
from vesalius.privacy.storing import Stored, Storer
from vesalius.privacy.text import REPLACED
from vesalius.running.crew import Crashed, Crew

# Files from which on more processes are worth their start; with text to read they start at once, before this process
# holds the networks, which must not be forked.
_MANY = {PixelMode.KEEP: 200, PixelMode.CLEAN: 0, PixelMode.STRICT: 0}
_MOST_DESCRIBED = 64  # series whose description is cleaned for the table
_AHEAD = 4  # scans that may wait, per process


@dataclass(frozen=True)
class Arrival:
    """A scan that is to come in.

    Args:
        scan: the identified scan.
        role: what the image is for the study.
        patient, visit: identified keys.
    """

    scan: Scan
    role: str
    patient: str
    visit: str


Outcome = bool | UnusableInput


@dataclass(frozen=True)
class Reception:
    """What is met on the way to the door: counted, set aside, taken in at once, or passed on.

    Args:
        door: the door.
        progress: told what was set aside.
        counts: how many were "ignored", "set aside", "objects", and "already" in.
        series: (role, modality, cleaned description) of the DICOM series.
        described: cleaned descriptions by owner and description.
    """

    door: Door
    progress: Progress
    counts: Counter[str]
    series: Counter[tuple[str, str, str]]
    described: dict[tuple[str, str], str] = field(default_factory=dict)

    def usable(self, found: Iterable[tuple[Scan | Refused, str, str, str]]) -> Iterator[Arrival]:
        """The scans that have a role and an owner, of what was found with role, patient and visit."""
        for scan, role, owner, visit in found:
            try:
                if isinstance(scan, Companion) and owner:
                    new = self.door.admit_object(scan, patient=owner, visit=visit)
                    self.counts["objects" if new else "already"] += 1
                    continue
                if isinstance(scan, Refused):
                    raise UnusableInput(scan.reason, remedy=scan.remedy)
                if scan.source == "dicom":
                    self.series[role, scan.modality, self._description(scan, owner)] += 1
                if role == "ignore":
                    self.counts["ignored"] += 1
                    continue
                if not owner:
                    raise UnusableInput(
                        "The pattern of --patient-from does not fit the name of this input.",
                        remedy="Widen the pattern, or name patients in a table.",
                    )
            except UnusableInput as error:
                self.set_aside(scan.name, error)
                continue
            yield Arrival(scan, role, owner, visit)

    def _description(self, scan: Scan, owner: str) -> str:
        key = (owner, str(scan.attributes.get("SeriesDescription", "")))
        if key not in self.described:
            if len(self.described) >= _MOST_DESCRIBED:
                return "and others"
            try:
                self.described[key] = self.door.description(scan, owner)
            except damaged(OSError):
                self.described[key] = REPLACED
        return self.described[key]

    def set_aside(self, name: str, error: UnusableInput) -> None:
        """Count and remember an input that cannot be used; nothing is remembered of a withdrawn patient's."""
        self.counts["set aside"] += 1
        if not isinstance(error, WithdrawnPatient):
            self.door.set_aside(name, error.what, error.remedy)
        self.progress.set_aside(name, error.what, error.remedy)


@dataclass(frozen=True)
class _Waiting:
    arrival: Arrival
    order: Order
    result: Callable[[], Stored]


def admit_all(door: Door, arrivals: Iterable[Arrival], workers: int) -> Iterator[tuple[Arrival, Outcome]]:
    """Bring scans in with so many processes.

    Yields:
        Each arrival in order, with whether it is new to the cohort, or why it cannot be used.
    """
    if door.profile.pixels is not PixelMode.KEEP and "onnxruntime" in sys.modules:
        workers = 1  # networks that this process holds do not live through a fork
    waiting: deque[_Waiting] = deque()
    here = Crew(_store, _keep_storer, (door.pseudonyms, door.profile), 1)
    crew, files = here, 0
    try:
        for arrival in arrivals:
            files += len(set(arrival.scan.files))
            if crew is here and workers > 1 and files > _MANY[door.profile.pixels]:
                crew = Crew(_store, _keep_storer, (door.pseudonyms, door.profile), workers)
            while waiting and (len(waiting) >= _AHEAD * workers or _must_wait(door, waiting, arrival)):
                yield _finished(door, waiting.popleft())
            started = _started(door, arrival, crew)
            if isinstance(started, _Waiting):
                waiting.append(started)
                continue
            while waiting:
                yield _finished(door, waiting.popleft())
            yield arrival, started
        while waiting:
            yield _finished(door, waiting.popleft())
    finally:
        crew.stop()
        for one in waiting:
            door.drop(one.order)


def _must_wait(door: Door, waiting: deque[_Waiting], arrival: Arrival) -> bool:
    """Whether a scan of the same patient, or the same one under another name, is still on its way."""
    if any(one.arrival.patient == arrival.patient for one in waiting):
        return True
    image_id = door.image_id(arrival.scan) if waiting else ""
    return any(one.order.image.id == image_id for one in waiting)


def _started(door: Door, arrival: Arrival, crew: Crew[Stored]) -> _Waiting | Outcome:
    scan = arrival.scan
    try:
        order = door.begin(scan, role=arrival.role, patient=arrival.patient, visit=arrival.visit)
    except UnusableInput as error:
        return error
    if order is None:
        return False
    if isinstance(scan.pixels, DicomPixels):  # what keeps an unpacked archive alive stays in this process
        scan = replace(scan, pixels=replace(scan.pixels, keep=None))
    return _Waiting(arrival, order, crew.start(scan, arrival.patient, order.path, order.identity))


def _finished(door: Door, one: _Waiting) -> tuple[Arrival, Outcome]:
    try:
        door.finish(one.order, one.result())
    except UnusableInput as error:
        return one.arrival, error
    except Crashed:
        return one.arrival, UnusableInput(
            "Its pixel data are damaged so badly that the decoder crashed.", remedy="Export it again from its source."
        )
    finally:
        door.drop(one.order)
    return one.arrival, True


_storer: list[Storer] = []  # of this process


def _keep_storer(pseudonyms: Pseudonyms, profile: Profile) -> None:
    _storer[:] = [Storer(pseudonyms, profile)]


def _store(scan: Scan, patient: str, path: Path, identity: Identity) -> Stored:
    return _storer[0].store(scan, patient, path, identity)
