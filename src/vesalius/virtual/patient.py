"""Invented people. Nobody of these names and numbers is meant; the headers look like a hospital's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

_GIVEN = {
    "F": (
        "Ada",
        "Bianca",
        "Carla",
        "Dora",
        "Elena",
        "Flora",
        "Greta",
        "Hanna",
        "Ida",
        "Jana",
        "Lena",
        "Mira",
    ),
    "M": ("Aldo", "Bruno", "Carlo", "Dario", "Emil", "Fabio", "Georg", "Hugo", "Ivo", "Jan", "Luca", "Milo"),
}
_FAMILY = (
    "Alder", "Birk", "Cedar", "Dattel", "Esche", "Fichte", "Ginster", "Holder", "Iris", "Juniper",
    "Kiefer", "Linde", "Malve", "Nelke", "Olive", "Pinie", "Quitte", "Rauke", "Salbei", "Tanne",
    "Ulme", "Veilchen", "Weide", "Zeder",
)  # fmt: skip
_STREETS = ("Garden Lane", "Mill Road", "Harbour Street", "Church Square")


@dataclass(frozen=True)
class Patient:
    """An invented identity, as a hospital's system would hold it.

    Args:
        name: DICOM person name, family^given.
        number: the hospital's patient ID.
        sex: "F" or "M".
        birth: date of birth.
        scanned: date of the visit.
        address, phone, physician: further invented identifiers.
    """

    name: str
    number: str
    sex: str
    birth: date
    scanned: date
    address: str
    phone: str
    physician: str

    @property
    def age(self) -> int:
        """Whole years at the visit."""
        before_birthday = (self.scanned.month, self.scanned.day) < (self.birth.month, self.birth.day)
        return self.scanned.year - self.birth.year - before_birthday


def invent_patient(rng: np.random.Generator, index: int, age: float) -> Patient:
    """A patient of about this age (years); `index` keeps names and numbers from repeating."""
    sex = str(rng.choice(["F", "M"]))
    scanned = date(2021, 1, 4) + timedelta(days=int(rng.integers(0, 1400)))
    birth = scanned - timedelta(days=int(age * 365.25))
    given = _GIVEN[sex][int(rng.integers(len(_GIVEN[sex])))]
    family = _FAMILY[index % len(_FAMILY)]
    return Patient(
        name=f"{family}^{given}",
        number=f"HX{rng.integers(10_000, 99_999)}{index:02d}",
        sex=sex,
        birth=birth,
        scanned=scanned,
        address=f"{rng.integers(1, 99)} {rng.choice(_STREETS)}, Padua",
        phone=f"+39 049 555 {rng.integers(1000, 9999)}",
        physician=f"{_FAMILY[int(rng.integers(len(_FAMILY)))]}^{_GIVEN['F'][int(rng.integers(12))]}^^Dr.",
    )
