"""Attributes of the stored, de-identified headers as covariates of their cases, for `label`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vesalius.core.cohort import Cohort
from vesalius.core.errors import UsageError
from vesalius.core.progress import Progress

if TYPE_CHECKING:
    from vesalius.privacy.door import Door


def join_attributes(door: Door, study: Cohort, keywords: Sequence[str], progress: Progress) -> None:
    """Take attributes of the images' stored headers as covariates; a case whose images differ goes without.

    The values pass the same judgement as the columns of a table, so that a word that names somebody stays out.

    Raises:
        UsageError: a keyword is no attribute that can be a covariate, or no stored header has any of them.
    """
    from vesalius.formats.dicom_attributes import attributes_in, check_keywords
    from vesalius.privacy.tables import Table
    from vesalius.store.cohort import StoredImage, readable

    check_keywords(keywords)
    rows: dict[str, dict[str, str]] = {}
    differing: dict[str, int] = {}
    for case in progress.track(study.cases, "Reading headers", total=len(study.cases)):
        said = []
        for pixels in (image.pixels for image in case.images):
            assert isinstance(pixels, StoredImage)
            with readable(pixels.path, pixels.seal) as path:
                said.append(attributes_in(path, keywords))
        rows[case.id] = {}
        for keyword in keywords:
            values = {entry[keyword] for entry in said if keyword in entry}
            if len(values) == 1:
                rows[case.id][keyword] = values.pop()
            differing[keyword] = differing.get(keyword, 0) + (len(values) > 1)
    if not any(rows.values()):
        raise UsageError(
            f"No stored header has {' or '.join(keywords)}.",
            remedy="Only DICOM has headers, and the profile may have removed it; `ingest --what-if` tells.",
        )
    whole = [{keyword: row.get(keyword, "") for keyword in keywords} for row in rows.values()]
    table = Table.of(whole, [])
    patients = {case.id: case.patient for case in study.cases}
    for case_id, row in rows.items():
        door.admit_covariates(case_id, table.covariates(row, door.pseudonyms, patients[case_id]))
    for keyword, reason in table.refused.items():
        progress.say(f"{keyword} was left out: {reason}.")
    for keyword, count in differing.items():
        if count:
            progress.say(f"The images of {count} cases differ in {keyword}; these cases go without it.")
    progress.note(cohort=str(door.folder), cases=len(rows), attributes=list(table.kept))
    progress.say(f"{len(table.kept)} attributes for {sum(bool(row) for row in rows.values())} cases.")
