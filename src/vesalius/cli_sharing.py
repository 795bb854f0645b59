"""The commands of sharing, which `cli.py` takes in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vesalius.command import CohortFolder, Json, Quiet, Seed, run
from vesalius.terminal import Terminal

if TYPE_CHECKING:
    from vesalius.steps.receive import NewKey


def share(
    cohort: CohortFolder,
    to: Annotated[
        list[str] | None, typer.Option(help="Public key of a recipient, or a file of such; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The encrypted file.")] = None,
    minimise: Annotated[Path | None, typer.Option(help="TOML: which covariates identify, and how to coarsen.")] = None,
    k: Annotated[int | None, typer.Option("--k", "-k", help="Patients that must look alike; 5 by default.")] = None,
    faces: Annotated[str, typer.Option(help="Faces in MR and CT of the head: remove or keep.")] = "remove",
    accept: Annotated[list[str] | None, typer.Option(help="Kind of finding that is harmless here; repeatable.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the data, for the data card.")] = "",
    what_if: Annotated[bool, typer.Option("--what-if", help="Check and tell; write nothing.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a cohort again, coarsen its covariates, and encrypt a copy for others."""
    from vesalius.steps.share import share as step

    run(
        lambda progress: step(
            cohort, to=to or (), out=out, minimise=minimise, k=k, faces=faces, accept=accept or (), licence=licence,
            what_if=what_if, seed=seed, progress=progress,
        ),
        as_json=as_json, quiet=quiet,
    )  # fmt: skip


def receive(
    file: Annotated[Path | None, typer.Argument(help="A share.")] = None,
    into: Annotated[Path | None, typer.Option(help="A new folder.")] = None,
    identity: Annotated[Path | None, typer.Option(help="File with the private key.")] = None,
    signed_by: Annotated[str | None, typer.Option(help="Public key that must have signed it.")] = None,
    new_identity: Annotated[Path | None, typer.Option(help="Make a private key in this file instead.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify a share and make a cohort of it."""
    from vesalius.steps.receive import NewKey
    from vesalius.steps.receive import receive as step

    def shown(progress: Terminal) -> NewKey | None:
        result = step(
            file, into=into, identity=identity, signed_by=signed_by, new_identity=new_identity, seed=seed,
            progress=progress,
        )  # fmt: skip
        return result if isinstance(result, NewKey) else None

    run(shown, as_json=as_json, quiet=quiet)
