"""The documents say what the program does: their code runs, their links lead somewhere, no option is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

import doc_data
from vesalius.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]

_BLOCK = re.compile(r"(?P<mark><!-- not run: [^>]+-->\n)?```(?P<kind>bash|python)\n(?P<code>.*?)^```", re.M | re.S)
_PREPARED = re.compile(r"<!-- prepared: ([a-z, ]+) -->")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_MOST_NOT_RUN = 14  # blocks that need a hospital, a fresh machine or hours


@dataclass(frozen=True)
class Block:
    """A piece of code of a page."""

    kind: str
    code: str
    line: int
    run: bool


def _blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["kind"], found["code"], text.count("\n", 0, found.start()) + 1, found["mark"] is None)
        for found in _BLOCK.finditer(text)
    ]


def _environment(place: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_DATA_HOME": str(place / ".key"),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
    }


def _shell(code: str, place: Path) -> None:
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", code],
        cwd=place, env=_environment(place), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("documents")
    doc_data.make(place)
    return place


@pytest.fixture(scope="session")
def study(data: Path) -> Path:
    _shell(
        "vesalius ingest scans --into study --quiet\nvesalius label study --masks masks --names 1=front,2=back --quiet",
        data,
    )
    return data / "study"


@pytest.fixture(scope="session")
def model(data: Path, study: Path) -> Path:
    _shell("vesalius fit study segmentation --minutes 0.3 --to model --quiet", data)
    return data / "model"


@pytest.fixture
def place(tmp_path: Path, data: Path) -> Path:
    """A fresh copy of the data for one page."""
    for entry in data.iterdir():
        if entry.name in ("study", "model"):
            continue  # pages that want these say so
        if entry.is_dir():
            shutil.copytree(entry, tmp_path / entry.name)
        else:
            shutil.copy(entry, tmp_path / entry.name)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs(page: Path, place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = _PREPARED.search(page.read_text(encoding="utf-8"))
    wanted = prepared[1].split(", ") if prepared else []
    made = [request.getfixturevalue(name) for name in wanted]  # all of them first: fitting draws the study's split
    for folder in made:
        shutil.copytree(folder, place / folder.name)
        shutil.copytree(folder.parent / ".key", place / ".key", dirs_exist_ok=True)
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_DATA_HOME", str(place / ".key"))
    names: dict[str, object] = {}
    for block in _blocks(page):
        if not block.run:
            continue
        if block.kind == "bash":
            _shell(block.code, place)
        else:
            exec(compile("\n" * block.line + block.code, str(page), "exec"), names)


def test_few_blocks_are_not_run() -> None:
    skipped = [f"{page.name}:{block.line}" for page in PAGES for block in _blocks(page) if not block.run]
    assert len(skipped) <= _MOST_NOT_RUN, skipped


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_every_option_stands_on_its_page(verb: str) -> None:
    page = (ROOT / "docs" / f"{verb}.md").read_text(encoding="utf-8")
    missing = [
        option
        for parameter in COMMANDS[verb].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--") and f"`{option}" not in page
    ]
    assert missing == []


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_no_page_names_an_option_that_is_gone(verb: str) -> None:
    page = (ROOT / "docs" / f"{verb}.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(--[a-z-]+)", page, flags=re.MULTILINE)
    known = {option for parameter in COMMANDS[verb].params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert set(table) <= known


def _links() -> Iterator[tuple[Path, str]]:
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://", "mailto:")):
                yield page, target


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    broken = []
    for page, target in _links():
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in _anchors(there)):
            broken.append(f"{page.name}: {target}")
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = set(_LINK.findall(index))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked
