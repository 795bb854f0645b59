"""export: a cohort in the layout of another program, so that nobody is locked in."""

from __future__ import annotations

from pathlib import Path

from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.progress import Progress, Silent

LAYOUTS = ("nnunet", "monai", "bids")


def export(
    cohort: str | Path | Cohort,
    layout: str,
    *,
    to: str | Path,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write the de-identified images, masks and split of a cohort for another program.

    `ingest` reads each of these layouts again, masks and classes included.

    Args:
        cohort: the cohort or its folder.
        layout: "nnunet" (raw layout with splits_final.json), "monai" (datalist.json) or "bids".
        to: a new folder.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told how far the work is.

    Returns:
        The folder.

    Raises:
        UsageError: the layout is not known, or the folder exists.
    """
    from vesalius.formats import bids, datalist, nnunet
    from vesalius.privacy import audit
    from vesalius.store.cohort import open_cohort

    progress = progress or Silent()
    writers = dict(zip(LAYOUTS, (nnunet, datalist, bids), strict=True))
    if layout not in writers:
        raise UsageError(f"The layout {layout!r} is not known.", remedy=f"Choose one of {', '.join(LAYOUTS)}.")
    folder = Path(to)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("This folder exists already.", remedy="Name a new folder.", file=folder)
    study = cohort if isinstance(cohort, Cohort) else open_cohort(cohort)
    audit.enter(study.folder, "export", cases=len(study))
    beside = folder.parent / f".{folder.name}.exporting"
    beside.mkdir(parents=True, exist_ok=True)
    writers[layout].write(study, beside, progress)
    if folder.exists():
        folder.rmdir()
    beside.rename(folder)
    progress.note(layout=layout, to=str(folder), cases=len(study))
    progress.say(f"{len(study)} cases written to {folder} for {layout}.")
    return folder
