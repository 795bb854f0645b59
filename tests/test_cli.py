"""The command line's contract with scripts: JSON on standard output, exit statuses, names as given."""

import json
import subprocess
import sys

import pytest

from making import study

VERBS = ["ingest", "label", "split", "fit", "evaluate", "predict", "show", "export", "demo"]


def run(*words, status=0):
    process = subprocess.run([sys.executable, "-m", "vesalius", *map(str, words)], capture_output=True, text=True)
    assert process.returncode == status, process.stderr + process.stdout
    return process


def test_the_chain_up_to_the_split_speaks_json(tmp_path):
    images, labels = study(tmp_path / "in", cases=5)
    into = tmp_path / "study"
    ingested = json.loads(run("ingest", images, "--into", into, "--json").stdout)
    assert ingested["added"] == 5 and ingested["status"] == 0 and ingested["set_aside"] == []
    again = json.loads(run("ingest", images, "--into", into, "--json").stdout)
    assert again["added"] == 0 and again["already"] == 5
    labelled = json.loads(run("label", into, "--masks", labels, "--names", "1=a,2=b", "--json").stdout)
    assert labelled["labelled"] == 5
    drawn = json.loads(run("split", into, "--json", "--seed", "1").stdout)
    assert drawn["train_patients"] == 4 and drawn["test_patients"] == 1
    shown = json.loads(run("show", into, "--json").stdout)
    assert [shown[key] for key in ("cases", "patients", "images", "quarantined")] == [5, 5, 5, 0]


def test_what_was_set_aside_is_status_1_and_named(tmp_path):
    images, _ = study(tmp_path / "in", cases=1)
    (images / "bad.nii").write_bytes(b"not a volume")
    process = run("ingest", images, "--into", tmp_path / "study", "--json", status=1)
    aside = json.loads(process.stdout)["set_aside"]
    assert aside[0]["input"] == "bad.nii" and aside[0]["reason"]


@pytest.mark.parametrize(
    "words",
    [
        ["ingest", "/does/not/exist", "--into", "study"],
        ["show", "nothing/here"],
        ["label", "nothing/here"],
        ["fit", "nothing/here", "poetry"],
        ["predict", "no-such-model", ".", "--to", "out"],
        ["split"],
        ["unheard-of"],
    ],
)
def test_wrong_use_is_status_2_without_a_traceback(words, tmp_path):
    process = run(*words, status=2)
    assert "Traceback" not in process.stderr


def test_json_also_tells_errors(tmp_path):
    told = json.loads(run("show", tmp_path / "none", "--json", status=2).stdout)
    assert told["error"]["what"] and told["error"]["remedy"]


def test_quiet_is_quiet(tmp_path):
    images, _ = study(tmp_path / "in", cases=2)
    process = run("ingest", images, "--into", tmp_path / "study", "--quiet")
    assert process.stdout == process.stderr == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_common_options(verb):
    text = run(verb, "--help").stdout
    assert all(option in text for option in ("--json", "--quiet", "--seed"))
