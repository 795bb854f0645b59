"""The model bundle: what was written is what is opened, and nothing else."""

import json
import os
from pathlib import Path

import pytest

from vesalius.core.errors import BundleError, UsageError
from vesalius.store import bundle as bundles
from vesalius.store.bundle import open_bundle, write_bundle

CARD = {
    "name": "toy",
    "task": "segmentation",
    "research_only": "Research use only.",
    "classes": [{"value": 1, "name": "a", "code": None}],
    "inputs": ["image"],
    "preparation": {},
    "network": {},
}
FILES = {"model.onnx": b"graph", "weights.safetensors": b"weights", "finder/template.bin": b"1234"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "models" / "toy", FILES, CARD)


def test_round_trip(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.card["name"] == "toy"
    assert bundle.card["format"] == bundles.CARD_FORMAT
    assert {name: bundle.path(name).read_bytes() for name in FILES} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_digest_follows_content_not_place(folder: Path, tmp_path: Path) -> None:
    digest = open_bundle(folder).digest
    assert open_bundle(write_bundle(tmp_path / "b", FILES, CARD)).digest == digest
    other = write_bundle(tmp_path / "c", {**FILES, "model.onnx": b"grapH"}, CARD)
    assert open_bundle(other).digest != digest


def test_a_bundle_is_replaced_and_nothing_else_is(folder: Path, tmp_path: Path) -> None:
    write_bundle(folder, {"model.onnx": b"new"}, CARD)
    assert open_bundle(folder).path("model.onnx").read_bytes() == b"new"
    assert not (folder / "weights.safetensors").exists()
    other = tmp_path / "notes"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        write_bundle(other, FILES, CARD)
    assert (other / "thesis.txt").read_text() == "mine"


def test_a_failed_write_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        write_bundle(folder, {"model.onnx": b"new"}, CARD)
    assert open_bundle(folder).path("model.onnx").read_bytes() == b"graph"
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


@pytest.mark.parametrize("name", [*FILES, "card.json"])
def test_altered_and_missing_files_are_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=f"{name} was altered"):
        open_bundle(folder)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(folder)


def test_extra_files_are_named(folder: Path) -> None:
    (folder / "finder" / "plugin.py").write_text("print()")
    with pytest.raises(BundleError, match=r"finder/plugin.py does not belong"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json"])
def test_links_are_refused_even_to_the_same_content(folder: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    (folder / name).rename(copy)
    (folder / name).symlink_to(copy)
    with pytest.raises(BundleError, match=f"{name} is a link"):
        open_bundle(folder)


def test_a_linked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "finder").rename(tmp_path / "finder")
    (folder / "finder").symlink_to(tmp_path / "finder")
    with pytest.raises(BundleError, match="finder is a link"):
        open_bundle(folder)


@pytest.mark.parametrize(
    "name", ["../out", "/etc/passwd", "a/../../b", "a\\b", "./a", "C:/x", "a//b", "manifest.json", ""]
)
def test_names_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="outside itself"):
        write_bundle(tmp_path / "x", {**FILES, name: b""}, CARD)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="outside itself"):
        open_bundle(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"files": 3}', '{"files": {}}', '{"files": {"model.onnx": 1}}', "[" * 100_000]
)
def test_a_damaged_manifest_is_a_bundle_error(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(folder)


@pytest.mark.parametrize("key", sorted(CARD))
def test_a_card_without_a_needed_key_is_refused(tmp_path: Path, key: str) -> None:
    card = {name: value for name, value in CARD.items() if name != key}
    with pytest.raises(BundleError, match=key):
        write_bundle(tmp_path / "x", FILES, card)


def test_unknown_card_formats_and_doubled_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="format 99"):
        write_bundle(tmp_path / "x", FILES, {**CARD, "format": 99})
    with pytest.raises(BundleError, match="classes"):
        write_bundle(tmp_path / "x", FILES, {**CARD, "classes": [{"value": 1}, {"value": 1}]})


def test_names_of_shipped_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "shipped" / "toy", FILES, CARD)
    monkeypatch.setattr(bundles, "_shipped_root", lambda: tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    assert bundles.shipped_bundles() == ("toy",)
    (tmp_path / "toy").mkdir()  # a folder of that name which is no bundle does not hide it
    assert open_bundle("toy").folder == tmp_path / "shipped" / "toy"
    with pytest.raises(BundleError, match="comes with Vesalius"):
        open_bundle("absent")
    with pytest.raises(BundleError, match="no model here"):
        open_bundle("../shipped")
