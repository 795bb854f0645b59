"""Planting known identifiers into real DICOM files, so that de-identification can be scored against a key.

The carriers are the test files that pydicom ships. Everything planted is drawn from one seed and written down
as checks; `privacy.scoring` judges the result by them and shares no code with the de-identifier.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

# The ten actions of the MIDI-B challenge (MICCAI 2024).
ACTIONS = (
    "tag retained", "text not null", "text retained", "text removed", "date shifted", "UID changed",
    "UID consistent", "patient ID consistent", "pixels retained", "pixels hidden",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One thing that must hold of a file after de-identification.

    Args:
        action: one of `ACTIONS`.
        number: Instance Number of the file, which is unique and stays.
        where: path of keywords or tags, such as `ReferencedImageSequence/ReferencedSOPInstanceUID`; "" for the
            file as a whole.
        value: the words, date, UID or patient that the action is about.
        note: what is tested, for who reads the failure.
        box: (top, left, bottom, right) of text in pixels.
    """

    action: str
    number: int
    where: str
    value: str
    note: str = ""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass
class Key:
    """The answers: every check, each file's original, and what may stand nowhere at all."""

    checks: list[Check] = field(default_factory=list)
    originals: dict[int, Path] = field(default_factory=dict)
    patients: dict[int, str] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)

    def add(self, action: str, number: int, where: str, value: str, note: str = "", box: Any = (0, 0, 0, 0)) -> None:
        """Note one check."""
        self.checks.append(Check(action, number, where, value, note, box))


@dataclass(frozen=True)
class Person:
    """An invented patient with what is known of them."""

    language: str
    charset: str
    family: str
    given: str
    identifier: str
    birth: date
    visit: date
    address: str
    town: str
    phone: str
    mail: str
    doctor: str
    hospital: str
    descriptor: str
    sentence: str
    name: str

    @property
    def plain(self) -> str:
        """Given and family name as they stand in running text."""
        return f"{self.given} {self.family}"


# Language, character set, family names, given names, street, town, hospital, a descriptor that must stay
# readable, and a sentence around a name, an identifier and a date.
_LANDS = (
    ("en", "ISO_IR 100", "Whitcombe Okafor Abernathy Parkinson", "Harriet Desmond Imogen", "14 Larkspur Lane",
     "Thornbury", "Mercy Vale Hospital", "brain with contrast", "Seen {date}: {name} ({id}) has Parkinson disease."),
    ("de", "ISO_IR 100", "Müllenbrück Schönhagen Wilson Großkreutz", "Jürgen Annelise Käthe", "Lindenstraße 27",
     "Freudenstadt", "Klinikum Oberrhein", "Kopf nativ", "Frau {name}, geb. {birth}, Morbus Wilson, Unters. {date}."),
    ("fr", "ISO_IR 100", "Lefèvre Bourgeaud Crohn", "Hélène François Amélie", "12 rue des Tilleuls", "Clermont",
     "Hôpital Saint-Roch", "crâne sans injection", "Vu le {date}, {name}, dossier {id}, maladie de Crohn."),
    ("es", "ISO_IR 100", "Ibáñez Etxeberria Quiroga", "Begoña Ramón Itziar", "calle Mayor 45", "Zaragoza",
     "Hospital San Telmo", "cerebro simple", "Paciente: {name}, visto el {date}, tel {phone}."),
    ("it", "ISO_IR 100", "Quaranta Bevilacqua Santangelo", "Niccolò Donatella Ilaria", "via Garibaldi 8", "Cremona",
     "Ospedale Maggiore", "encefalo basale", "Signora {name} del {date}, scrivere a {mail}."),
    ("nl", "ISO_IR 100", "Hoogendoorn Steenbakker", "Marijke Joost", "Keizersgracht 101", "Hoorn",
     "Ziekenhuis Amstelland", "schedel blanco", "Mevrouw {name}, {id}, gezien op {date}."),
    ("ru", "ISO_IR 144", "Кузнецова Воробьёв", "Людмила Геннадий", "ул. Садовая 7", "Тверь",
     "Hospital Tverskoy", "brain routine", "{name} {id} {date}"),
    ("ja", "ISO_IR 192", "山田 鈴木", "花子 一郎", "桜町 3-5", "Sendai", "Sendai Kita Hospital", "head routine",
     "{name} {id} {date}"),
    ("pl", "ISO_IR 192", "Wiśniewska Dąbrowski", "Małgorzata Zbigniew", "ulica Polna 31", "Toruń",
     "Szpital Miejski", "głowa bez kontrastu", "Pani {name}, badanie {date}, {mail}."),
)  # fmt: skip


def people(seed: int, count: int) -> Iterator[Person]:
    """So many different patients, in turn of every language."""
    draw = random.Random(seed)
    for number in range(count):
        language, charset, families, givens, street, town, hospital, descriptor, sentence = _LANDS[number % len(_LANDS)]
        family, given = draw.choice(families.split()), draw.choice(givens.split())
        identifier = draw.choice(("MRN{0}", "{0}", "P-{0}")).format(draw.randrange(10**6, 10**7))
        digits = draw.randrange(10**5, 10**6)
        birth = date(1928, 1, 1) + timedelta(days=draw.randrange(30000))
        visit = date(2015, 1, 1) + timedelta(days=draw.randrange(3000))
        place = f"{street}, {draw.randrange(10**4, 10**5)} {town}"
        mail, doctor = f"mail{digits}@clinic.example", draw.choice(("Vandermolen", "Castellanos", "Abernethy"))
        known = {
            "name": f"{given} {family}", "id": identifier, "birth": f"{birth:%d.%m.%Y}",
            "date": _written(visit, language), "mail": mail, "phone": f"+34 91 {digits}",
        }  # fmt: skip
        yield Person(
            language, charset, family, given, identifier, birth, visit, place, town, f"+34 91 {digits}", mail, doctor,
            hospital, descriptor, sentence.format(**known), _person_name(language, family, given),
        )  # fmt: skip


def _person_name(language: str, family: str, given: str) -> str:
    if language == "ja":
        return f"Yamamoto^Hanae={family}^{given}"
    return f"{family}^{given}"


def _written(day: date, language: str) -> str:
    forms = {"en": "%Y-%m-%d", "de": "%d.%m.%Y", "fr": "%d/%m/%Y", "es": "%d-%m-%Y", "ja": "%Y/%m/%d"}
    return day.strftime(forms.get(language, "%d.%m.%Y"))


def date_forms(sentence: str, day: date) -> str | None:
    """The form in which a day is written in a sentence, as a `strftime` pattern, or None."""
    forms = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y%m%d")
    return next((form for form in forms if day.strftime(form) in sentence), None)
