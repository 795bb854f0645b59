"""audit: whether the record of what was done with a cohort is whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vesalius.core.cohort import Cohort
from vesalius.core.errors import StoreError
from vesalius.core.progress import Progress, Silent


@dataclass(frozen=True)
class AuditResult:
    """An audit trail that holds.

    Args:
        entries: how many there are.
        own: whether all of them are signed with this user's key.
    """

    entries: int
    own: bool

    def __str__(self) -> str:
        whose = "this user's key" if self.own else "a key that is not this user's"
        return f"{self.entries} entries, each signed with {whose} and joined to the one before."


def audit(
    cohort: str | Path | Cohort, action: str = "verify", *, seed: int = 0, progress: Progress | None = None
) -> AuditResult:
    """Verify the audit trail of a cohort.

    Args:
        cohort: the cohort or its folder.
        action: "verify", the only one.
        seed: taken for the sake of a common signature; nothing here is random.
        progress: told how many entries hold.

    Raises:
        StoreError: an entry was changed, added, moved or taken away; the first such is named.
        UsageError: another action.
    """
    from vesalius.core.errors import UsageError
    from vesalius.privacy.audit import own_public_key, verify

    if action != "verify":
        raise UsageError(f"There is no audit {action}.", remedy="Write `vesalius audit verify COHORT`.")
    folder = cohort.folder if isinstance(cohort, Cohort) else Path(cohort)
    verdict = verify(folder, public=own_public_key())
    if verdict.broken:
        raise StoreError(
            f"The audit trail is broken at entry {verdict.broken}: {verdict.reason}.",
            remedy=f"The {verdict.entries} entries before it hold; ask who had access since.", file=folder,
        )  # fmt: skip
    (progress or Silent()).note(entries=verdict.entries, own_key=verdict.own)
    return AuditResult(verdict.entries, verdict.own)
