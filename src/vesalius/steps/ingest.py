"""ingest: a folder of scans becomes a de-identified cohort."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.core.cohort import Cohort
from vesalius.core.errors import UnusableInput, UsageError
from vesalius.core.progress import Progress, Silent
from vesalius.steps._owners import Owners

if TYPE_CHECKING:
    from vesalius.formats.layout import Layout
    from vesalius.formats.roles import Rules
    from vesalius.formats.scan import Refused, Scan
    from vesalius.privacy.door import Door
    from vesalius.privacy.preview import Preview
    from vesalius.privacy.profile import Profile

_MOST_SERIES = 60  # lines of the table of series


def ingest(
    sources: str | Path | Sequence[str | Path],
    *,
    into: str | Path,
    patient: str | None = None,
    case: str | None = None,
    table: str | Path | None = None,
    key: str | None = None,
    patient_from: str | None = None,
    roles: str | Path | None = None,
    profile: str | Path | None = None,
    pixels: str | None = None,
    secondary: bool = False,
    faces: str | None = None,
    encrypt: bool = False,
    readmit: Sequence[str] = (),
    workers: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Cohort:
    """Bring scans through the door into a cohort, which is made where there is none.

    What is in already is not added twice, so an interrupted run is finished by running it again. An input
    that cannot be a correct image is set aside with its cause and remedy, and the others go on.

    Args:
        sources: files, folders, zip archives or DICOMDIRs.
        into: the cohort's folder.
        patient: column of `table` that says which patient a file without a header belongs to.
        case: column of `table` that joins several files into one case; each file is its own case without.
        table: CSV that is matched with the files by its `key` column.
        key: column that names the files, with or without suffix; by default the first of input, file, image
            and id that the table has.
        patient_from: regular expression searched in a file's name; its first group, or the group called
            `patient`, is the patient.
        roles: TOML of role rules that replaces the cohort's own `roles.toml`.
        profile: TOML that tightens or relaxes de-identification, and replaces the cohort's own `privacy.toml`.
        pixels: "keep" leaves pixel data as they are, "clean" hides text that identifies, "strict" any text.
        secondary: let secondary captures, screenshots and dose sheets in, with their text hidden.
        faces: "remove" takes faces out of MR and CT of the head, "keep" leaves them.
        encrypt: make a cohort whose images, labels and cache are encrypted at rest; one that was made so stays so.
        readmit: identifiers or pseudonyms of patients who were withdrawn and may come in again.
        workers: processes that work side by side; 0: as many as the machine has cores. They change no outcome.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told how far the work is.

    Returns:
        The cohort.

    Raises:
        UsageError: a source does not exist, or none of them holds a usable image; or a cohort that is not
            encrypted shall be.
        StoreError: the cohort is encrypted with another key.
    """
    from vesalius.formats.layout import read_layout
    from vesalius.formats.roles import DEFAULT_RULES, load_rules
    from vesalius.privacy.door import Door
    from vesalius.privacy.passage import Reception, admit_all
    from vesalius.privacy.pseudonyms import Pseudonyms, load_key
    from vesalius.privacy.returning import let_in_again, protect
    from vesalius.privacy.vault import remember_where_kept
    from vesalius.running.crew import cores
    from vesalius.store.cohort import open_cohort
    from vesalius.store.database import create, held
    from vesalius.store.files import write_text

    progress = progress or Silent()
    folder = Path(into)
    paths = _existing([sources] if isinstance(sources, (str, Path)) else sources)
    owners = Owners.of(table, key, patient, case, patient_from)
    create(folder, folder.resolve().name)
    pseudonyms = Pseudonyms(load_key())
    protect(folder, pseudonyms.key, encrypt, progress)
    readmitted = let_in_again(folder, pseudonyms, readmit)
    rules_file = folder / "roles.toml"
    if roles is not None or not rules_file.exists():
        chosen = Path(roles).read_text(encoding="utf-8") if roles is not None else DEFAULT_RULES
        load_rules(chosen)
        write_text(rules_file, chosen)
    rules = load_rules(rules_file.read_text(encoding="utf-8"))
    door = Door(folder, pseudonyms, _profile(folder, profile, pixels, secondary, faces))

    counts: Counter[str] = Counter()
    roles_seen: Counter[str] = Counter()
    series: Counter[tuple[str, str, str]] = Counter()
    layouts = [layout for path in paths if (layout := read_layout(path)) is not None]
    found = chain.from_iterable(_arrivals(path, owners, rules) for path in paths)
    seen = Reception(door, progress, counts, series)
    with held(folder):
        tracked = progress.track(found, "Bringing scans in")
        for arrival, outcome in admit_all(door, seen.usable(tracked), workers or cores()):
            scan = arrival.scan
            if isinstance(outcome, UnusableInput):
                seen.set_aside(scan.name, outcome)
                continue
            if scan.answers:
                door.admit_covariates(door.pseudonyms.case(arrival.patient, arrival.visit), dict(scan.answers))
            counts["added" if outcome else "already"] += 1
            roles_seen[arrival.role] += 1
    if not counts["added"] and not counts["already"] and not counts["objects"]:
        raise UsageError(
            "No usable image was found.",
            remedy="See what was set aside above; nothing was added.",
            file=paths[0],
        )
    for layout in layouts:
        _join_layout(layout, door, folder, progress)
    remember_where_kept(door.admitted)
    study = open_cohort(folder)
    counts["readmitted"] = readmitted
    door.record("ingest", len(study.cases), dict(+counts))
    progress.note(
        cohort=str(folder), added=counts["added"], already=counts["already"], ignored=counts["ignored"],
        objects=counts["objects"],        roles=dict(sorted(roles_seen.items())),
    )  # fmt: skip
    for line in _series_table(series):
        progress.say(line)
    if owners.unnamed and patient is not None:
        progress.say(
            f"{len(owners.unnamed)} files are not named in the table; each counts as a patient of its own. "
            "Check --key, and how the table writes their paths."
        )
    progress.say(_summary(counts, roles_seen, folder))
    return study


def preview(
    sources: str | Path | Sequence[str | Path],
    *,
    into: str | Path,
    profile: str | Path | None = None,
    pixels: str | None = None,
    secondary: bool = False,
    progress: Progress | None = None,
) -> Preview:
    """What `ingest` would do to each attribute of the DICOM headers, and why; nothing is written.

    Raises:
        UsageError: a source does not exist, or the profile contradicts itself.
    """
    from vesalius.formats.find import find_scans
    from vesalius.formats.scan import Scan
    from vesalius.privacy.preview import preview as look
    from vesalius.privacy.pseudonyms import Pseudonyms

    progress = progress or Silent()
    paths = _existing([sources] if isinstance(sources, (str, Path)) else sources)
    chosen = _profile(Path(into), profile, pixels, secondary, keep=False)
    found = (scan for path in paths for scan in find_scans(path) if isinstance(scan, Scan))
    result = look(progress.track(found, "Looking"), Pseudonyms(bytes(32)), chosen)
    progress.note(files=result.files, attributes=result.as_json())
    return result


def _profile(
    folder: Path,
    given: str | Path | None,
    pixels: str | None,
    secondary: bool,
    faces: str | None = None,
    *,
    keep: bool = True,
) -> Profile:
    """The cohort's profile, or the one that is given and then becomes the cohort's, with this run's choices."""
    from vesalius.privacy.profile import FaceMode, PixelMode
    from vesalius.privacy.site import load_profile
    from vesalius.store.files import write_text

    kept = folder / "privacy.toml"
    if given is not None:
        try:
            text = Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError("The privacy profile cannot be read.", file=given) from error
    else:
        text = kept.read_text(encoding="utf-8") if kept.exists() else ""
    chosen = load_profile(text)
    if given is not None and keep:
        write_text(kept, text)
    if pixels is not None:
        if pixels not in set(PixelMode):
            raise UsageError("--pixels is keep, clean or strict.")
        chosen = replace(chosen, pixels=PixelMode(pixels))
    if faces is not None:
        if faces not in set(FaceMode):
            raise UsageError("--faces is keep or remove.")
        chosen = replace(chosen, faces=FaceMode(faces))
    chosen = replace(chosen, secondary=chosen.secondary or secondary)
    if chosen.secondary and chosen.pixels is PixelMode.KEEP:
        raise UsageError("Secondary captures are let in only with their text hidden.", remedy="Drop --pixels keep.")
    return chosen


def _arrivals(path: Path, owners: Owners, rules: Rules) -> Iterator[tuple[Scan | Refused, str, str, str]]:
    """What a source holds, with role, patient and visit: as its layout says, else by header, table and name."""
    from vesalius.formats.find import find_scans
    from vesalius.formats.layout import read_layout
    from vesalius.formats.names import is_mask_of_a_neighbour, volume_of
    from vesalius.formats.scan import Companion, Refused

    layout = read_layout(path)
    if layout is None:
        for scan in find_scans(path):
            if isinstance(scan, Companion):
                yield scan, "", *owners.of_scan(scan.name, scan.patient, scan.study)
            elif isinstance(scan, Refused):
                yield scan, "", "", ""
            elif scan.source != "dicom" and is_mask_of_a_neighbour(scan.files[0]):
                yield scan, "ignore", "", ""
            else:
                yield scan, rules.role(scan), *owners.of_scan(scan.name, scan.patient, scan.study)
        return
    for entry in layout.entries:
        for scan in find_scans(entry.image):
            volume = volume_of(scan.name)[1]
            named = replace(scan, name=f"{entry.name}#{volume}" if volume else entry.name)
            known = entry.role and not volume
            role = entry.role if known or isinstance(scan, Refused) else rules.role(scan)
            yield named, role, entry.patient, entry.case


def _join_layout(layout: Layout, door: Door, folder: Path, progress: Progress) -> None:
    """Masks, classes and the given part of a layout; `split --column part` takes the part as the split."""
    from vesalius.steps.label import join_masks
    from vesalius.store.cohort import open_cohort

    masks = [(entry.label, entry.name) for entry in layout.entries if entry.label is not None]
    if masks:
        join_masks(door, open_cohort(folder), masks, dict(layout.classes), layout.ignore, False, progress)
    for entry in layout.entries:
        if entry.part:
            for _, case, _ in door.images_named(entry.name):
                door.admit_covariates(case, {"part": entry.part})
    progress.say(f"The source is laid out for {layout.kind}: {len(masks)} masks came with it.")


def _existing(sources: Iterable[str | Path]) -> list[Path]:
    paths = [Path(source) for source in sources]
    if not paths:
        raise UsageError("No source was given.", remedy="Name files or folders of scans.")
    for path in paths:
        if not path.exists():
            raise UsageError("This source does not exist.", remedy="Check its spelling.", file=path)
    return paths


def _series_table(series: Counter[tuple[str, str, str]]) -> list[str]:
    """What each kind of DICOM series became, by its cleaned description."""
    if not series:
        return []
    lines = [f"{'role':<12}{'modality':<10}{'series':>7}  description"]
    for (role, modality, description), count in sorted(series.items())[:_MOST_SERIES]:
        lines.append(f"{role:<12}{modality:<10}{count:>7}  {description}")
    if len(series) > _MOST_SERIES:
        lines.append(f"and {len(series) - _MOST_SERIES} more kinds of series")
    return lines


def _summary(counts: Counter[str], roles: Counter[str], folder: Path) -> str:
    parts = [f"{counts['added']} added"]
    parts += [f"{counts[key]} {key}" for key in ("already", "ignored", "set aside") if counts[key]]
    parts += [f"{counts['objects']} objects beside images"] if counts["objects"] else []
    table = ", ".join(f"{role}: {count}" for role, count in sorted(roles.items()))
    return f"{folder}: {', '.join(parts)}. Roles: {table}."
