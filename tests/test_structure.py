"""The house's shape: what starts fast, what is public, how long a file may be, what must not be in the tree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vesalius

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "vesalius"
HEAVY = ("torch", "monai", "onnxruntime", "onnx", "SimpleITK", "matplotlib", "highdicom", "scipy", "nilearn")
TRAINING_SIDE = ("torch", "monai", "onnxscript", "onnx")
TRAINING_ROOMS = ("learning", "networks")
TRAINING_FILES = ("imaging/augmentation.py",)
LONGEST_FILE = 400

START = """
import json, sys, time
{body}
print(json.dumps([time.process_time(), [name for name in sys.modules if "." not in name]]), file=sys.stderr)
"""
IMPORT = "import vesalius"
HELP = """
from vesalius.cli import main
sys.argv = ["vesalius", "--help"]
try:
    main()
except SystemExit:
    pass
"""


def _start(body: str) -> tuple[float, set[str]]:
    """CPU seconds of a fresh interpreter that runs `body`, and the top-level modules that it loaded."""
    done = subprocess.run([sys.executable, "-c", START.format(body=body)], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stderr.strip().splitlines()[-1])
    return seconds, set(modules)


@pytest.mark.parametrize("body", [IMPORT, HELP], ids=["import", "help"])
def test_start_is_light(body: str) -> None:
    runs = [_start(body) for _ in range(3)]
    assert not runs[0][1] & set(HEAVY)
    assert min(seconds for seconds, _ in runs) < 0.5


def _bedside_modules() -> list[str]:
    paths = [path.relative_to(SOURCE) for path in sorted(SOURCE.rglob("*.py"))]
    return [
        ".".join(("vesalius", *path.with_suffix("").parts)).removesuffix(".__init__")
        for path in paths
        if path.parts[0] not in TRAINING_ROOMS and path.as_posix() not in (*TRAINING_FILES, "__main__.py")
    ]


def test_no_bedside_module_loads_the_training_side() -> None:
    names = _bedside_modules()
    assert len(names) > 30
    _, loaded = _start("import importlib\nfor name in " + repr(names) + ": importlib.import_module(name)")
    assert not loaded & set(TRAINING_SIDE)


def test_public_names_exist_and_are_documented() -> None:
    for name in vesalius.__all__:
        assert getattr(vesalius, name).__doc__, name
    table = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([A-Za-z_]+)` \|", table, flags=re.MULTILINE)
    assert sorted(documented) == sorted(vesalius.__all__)


def test_every_step_is_a_file_a_command_a_function_and_a_page() -> None:
    import typer

    from vesalius.cli import app

    files = {path.stem for path in (SOURCE / "steps").glob("*.py") if not path.stem.startswith("_")}
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert {name.replace("-", "_") for name in commands} == files
    assert files <= set(vesalius.__all__)
    assert commands <= {path.stem for path in (ROOT / "docs").glob("*.md")}


def test_files_are_about_one_thing() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_no_patient_image_and_no_path_of_one_machine_is_in_the_tree() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [name for name in listed.stdout.split("\0") if name]
    images = (".dcm", ".dicom", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".mgz")
    assert [name for name in files if name.lower().endswith(images)] == []
    told = re.compile(r"(?<![\w.])/(work|root|home)/[a-z]|[.]{2}/shared")
    texts = [ROOT / name for name in files if name.endswith((".py", ".md", ".toml", ".yaml", ".sh", "Makefile"))]
    assert [
        str(path.relative_to(ROOT))
        for path in texts
        if path.exists() and path != Path(__file__) and told.search(path.read_text(encoding="utf-8"))
    ] == []
