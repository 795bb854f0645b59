"""What is asked of each case, and the truth about it as numbers: the target of a classification or a detection."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vesalius.core.case import Case, Covariate
from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.finding import Box, Finding, Mask, Point

TargetKind = Literal["binary", "multiclass", "multilabel", "ordinal", "places"]

# Covariates that say how the cohort was made, not what is to be found.
RESERVED = frozenset({"part", "fold", "official_split"})
_YES = frozenset({"1", "yes", "true", "positive"})
_NO = frozenset({"0", "no", "false", "negative"})
_MOST_CLASSES = 30
_LEAST_RADIUS = 0.5  # of a point without a radius, in voxels


@dataclass(frozen=True)
class Target:
    """What is asked of a case.

    Args:
        name: as it was asked, such as "malignant" or "mass,calcification".
        kind: "binary" and "multiclass" (one class is right), "ordinal" (one, and their order counts),
            "multilabel" (each may be there or not), or "places" (where, and of which class).
        classes: their names, in the order of every answer.
    """

    name: str
    kind: TargetKind
    classes: tuple[str, ...]

    def value(self, case: Case) -> tuple[float, ...] | None:
        """1 for each class that the case has and 0 for the others, or None where that is not known."""
        parts = _parts(self.name)
        if self.kind == "multilabel":
            found = [_present(case, part) for part in parts]
            return None if None in found else tuple(float(bool(item)) for item in found)
        known = _class_of(case, parts[0])
        if known is None or known not in self.classes:
            return None
        return tuple(float(name == known) for name in self.classes)

    def number(self, case: Case) -> int | None:
        """Which class the case has, from 0, where one class is right; None where that is not known."""
        truth = self.value(case)
        return None if truth is None or self.kind == "multilabel" else int(np.argmax(truth))

    def places(self, case: Case) -> dict[str, list[tuple[int, Box]]]:
        """Where the target is, for each image of the case that was looked over.

        Points become boxes as wide as their circle or sphere, masks one box for each connected part.

        Returns:
            By image id, (class number from 0, box in the image's index space); an empty list where there is none.
        """
        found: dict[str, list[tuple[int, Box]]] = {image: [] for image in sorted(case.assessed)}
        flat = {image.id: image.grid.shape[2] == 1 for image in case.images}
        for finding in case.findings:
            number = next((n for n, name in enumerate(self.classes) if _means(finding, name)), None)
            if number is None or finding.place is None:
                continue
            for box in _boxes(finding, flat):
                if box.image_id in found:
                    found[box.image_id].append((number, box))
        return found


def find_target(cohort: Cohort, name: str | None, *, ordinal: bool = False, places: bool = False) -> Target:
    """The target of this name in a cohort.

    Args:
        cohort: where it is known from covariates or findings.
        name: a covariate, the name of a finding or one of its attributes' values; several with commas
            between. None takes the only one that there is.
        ordinal: the classes are numbers whose order counts.
        places: ask where, not only whether.

    Raises:
        UsageError: there is no such target (near names are told), it has too many classes, or none was named
            and there are several.
    """
    known = _finding_names(cohort) if places else _covariates(cohort) + _finding_names(cohort)
    if name is None:
        named = sorted({finding.name for case in cohort for finding in case.findings}) if places else known
        if len(named) != 1:
            raise UsageError(
                "Say what is asked with --target." if known else "The cohort knows no target.",
                remedy=_known(known) if known else "Add truth first: vesalius label COHORT --table FILE.csv.",
            )
        name = named[0]
    parts = _parts(name)
    if places:
        parts = [_spelled(part, known) for part in parts]
        return Target(",".join(parts), "places", tuple(parts))
    if len(parts) > 1:
        parts = [_spelled(part, known) for part in parts]
        for part in parts:
            if not _is_binary(cohort, part):
                raise UsageError(f"{part!r} is not yes or no.", remedy="Several targets at once must be 0 or 1 each.")
        return Target(",".join(parts), "multilabel", tuple(parts))
    part = _spelled(parts[0] if parts else "", known)
    classes = _classes(cohort, part)
    if ordinal:
        if not all(_is_number(name) for name in classes):
            raise UsageError(f"The classes of {part!r} have no order.", remedy="Give them as numbers.")
        return Target(part, "ordinal", classes)
    return Target(part, "binary" if len(classes) == 2 else "multiclass", classes)


def class_name(value: Covariate) -> str:
    """What the class with this value is called: words as they are, whole numbers without a point."""
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _parts(name: str) -> list[str]:
    return [part.strip() for part in name.split(",") if part.strip()]


def _covariates(cohort: Cohort) -> list[str]:
    names = {name for case in cohort for name in case.covariates}
    return sorted(names - RESERVED)


def _finding_names(cohort: Cohort) -> list[str]:
    """Names of findings and values of their attributes, names first."""
    findings = [finding for case in cohort for finding in case.findings]
    names = {finding.name for finding in findings}
    values = {value for finding in findings for value in finding.attributes.values()}
    return sorted(names) + sorted(values - names)


def _spelled(name: str, known: Sequence[str]) -> str:
    """The known name that was meant, whatever its case.

    Raises:
        UsageError: there is none.
    """
    if name in known:
        return name
    for other in known:
        if other.casefold() == name.casefold():
            return other
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    raise UsageError(f"The cohort knows no target {name!r}.", remedy=f"{meant}{_known(known)}".strip())


def _known(known: Sequence[str]) -> str:
    shown = ", ".join(dict.fromkeys(known[:20]))
    return f"It knows: {shown}." if shown else "Add truth first: vesalius label COHORT --table FILE.csv."


def _means(finding: Finding, name: str) -> bool:
    return finding.name == name or name in finding.attributes.values()


def _present(case: Case, name: str) -> bool | None:
    """Whether a yes-or-no target holds for a case; None where it is not known."""
    if name in case.covariates:
        value = case.covariates[name]
        return _truth(value)
    if any(_means(finding, name) and not isinstance(finding.place, Mask) for finding in case.findings):
        return True
    masked = [finding.place for finding in case.findings if _means(finding, name) and isinstance(finding.place, Mask)]
    if masked:
        return any(bool((place.image.read() == place.value).any()) for place in masked)
    return False if case.assessed else None


def _truth(value: Covariate) -> bool | None:
    word = value.casefold() if isinstance(value, str) else class_name(value)
    if word in _YES:
        return True
    return False if word in _NO else None


def _is_binary(cohort: Cohort, name: str) -> bool:
    values = [case.covariates[name] for case in cohort if name in case.covariates]
    return all(_truth(value) is not None for value in values)


def _class_of(case: Case, name: str) -> str | None:
    if name in case.covariates:
        return class_name(case.covariates[name])
    present = _present(case, name)
    return None if present is None else str(int(present))


def _classes(cohort: Cohort, name: str) -> tuple[str, ...]:
    """The classes of a target, numbers in their order, words in alphabetic order.

    Raises:
        UsageError: there are too many for classes.
    """
    found = {_class_of(case, name) for case in cohort} - {None}
    names = [item for item in found if item is not None]
    if len(names) > _MOST_CLASSES:
        raise UsageError(
            f"{name!r} has {len(names)} different values, more than the {_MOST_CLASSES} that classes may have.",
            remedy="Cut it into classes in the table.",
        )
    if all(_is_number(item) for item in names):
        return tuple(sorted(names, key=float))
    return tuple(sorted(names))


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _boxes(finding: Finding, flat: dict[str, bool]) -> list[Box]:
    place = finding.place
    if isinstance(place, Box):
        return [place]
    if isinstance(place, Point):
        width = 2.0 * max(place.radius or 0.0, _LEAST_RADIUS)
        return [Box(place.image_id, place.centre, (width, width, 1.0 if flat.get(place.image_id) else width))]
    return boxes_of_mask(place) if isinstance(place, Mask) else []


def boxes_of_mask(mask: Mask) -> list[Box]:
    """One box for each connected part of a mask (touching by a face, edge or corner), in index space."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask.image.read() == mask.value, np.ones((3, 3, 3), bool))
    found = []
    for slices in ndimage.find_objects(parts):
        low, high = (np.array([getattr(s, end) for s in slices], float) for end in ("start", "stop"))
        i, j, k = (float(value) for value in (low + high - 1) / 2)
        width, height, depth = (float(value) for value in high - low)
        found.append(Box(mask.image.id, (i, j, k), (width, height, depth)))
    return found


def most_marks(lesions: Iterable[Sequence[tuple[int, Box]]]) -> int:
    """Marks per image and class that are worth keeping, so that a curve can be drawn and no lesion goes without.

    Args:
        lesions: (class, box) of each image to learn from.

    Returns:
        Ten, or twice the lesions of one class in the image that has most.
    """
    counts = (Counter(number for number, _ in boxes) for boxes in lesions)
    return max(10, 2 * max((count for each in counts for count in each.values()), default=0))
