"""What every command shares: its common options, and how a step's outcome becomes output and an exit status."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vesalius.core.errors import UsageError, VesaliusError
from vesalius.terminal import Terminal

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to standard error.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Seed = Annotated[int, typer.Option(help="Every random choice follows from it.")]
CohortFolder = Annotated[Path, typer.Argument(metavar="COHORT", help="Folder of the cohort.")]


def run(step: Callable[[Terminal], object], *, as_json: bool, quiet: bool) -> None:
    """Run a step and turn what became of it into output and an exit status.

    0: done. 1: done, some inputs were set aside or some checks do not hold. 2: wrong usage, unexpected error or no
    usable input.
    """
    terminal = Terminal(quiet=quiet)
    error: VesaliusError | None = None
    result: object = None
    try:
        result = step(terminal)
    except VesaliusError as raised:
        error = raised
    except KeyboardInterrupt:
        error = UsageError("Interrupted.", remedy="Run the same command again to go on; fit goes on with --resume.")
    except Exception as raised:
        traceback.print_exc()
        error = VesaliusError(
            f"This should not have happened ({type(raised).__name__}).", remedy="Please report the lines above."
        )
    terminal.finish()
    failed = bool(terminal.aside) or getattr(result, "passed", True) is False
    status = 2 if error else 1 if failed else 0
    if as_json:
        figures: dict[str, Any] = {"status": status, **terminal.figures, "set_aside": terminal.aside}
        if error:
            figures["error"] = {"what": error.what, "remedy": error.remedy, "file": error.file}
        sys.stdout.write(json.dumps(figures, indent=2, allow_nan=False, default=str) + "\n")
    elif error is None and not quiet and result is not None and type(result).__str__ is not object.__str__:
        terminal.show(result)
    if error:
        terminal.fail(str(error))
    raise typer.Exit(status)
