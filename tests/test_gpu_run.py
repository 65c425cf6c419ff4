"""A training in calls of a few minutes: stopped, gone on with, sent in parts and put together again."""

import sys
from pathlib import Path

import pytest
from folders import write_dataset

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_run  # noqa: E402

from unet import Segmenter  # noqa: E402


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call the script for one network on a set of discs; returns its status and what it printed."""
    monkeypatch.setattr(gpu_run, "PART", 10_000)
    write_dataset(tmp_path / "data" / "hands", size=(64, 80), classes={"class_names": ["background", "hand"]})

    def call(*arguments, runs="runs"):
        given = ["--runs", str(tmp_path / runs), *arguments]
        if "--join" not in arguments:
            given += ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--dry-run"]
            given += ["--only", "hands-residual-add", "--reserve", "0"]
        status = gpu_run.main(given)
        return status, capsys.readouterr().out

    return call


SAVES_AND_STOPS = """
import signal, sys, time
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(1))
while len(asked) < int(sys.argv[1]):
    time.sleep(0.05)
sys.exit(130)
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_at_the_deadline_a_run_is_asked_to_stop_and_once_more_if_it_did_not_hear(call, monkeypatch, signals):
    command = [sys.executable, "-c", SAVES_AND_STOPS, str(signals)]
    monkeypatch.setattr(gpu_run.Job, "command", lambda job, args: command)
    status, printed = call("--minutes", "0.05")
    assert status == 0
    assert "hands-residual-add: stopped, to go on" in printed
    assert "call again: 1 to train, 0 to send" in printed


def test_gone_on_with_sent_and_joined(call, tmp_path):
    status, printed = call("--minutes", "5", "--megabytes", "0.001")
    assert status == 0, (tmp_path / "runs/gpu/hands-residual-add.log").read_text()
    assert "call again: 0 to train, 1 to send" in printed
    assert not list((tmp_path / "out").iterdir())

    assert call("--minutes", "5")[1].endswith("all done\n")
    parts = sorted((tmp_path / "out").iterdir())
    assert len(parts) > 1
    assert all(part.stat().st_size <= 10_000 for part in parts)

    assert call("--join", str(tmp_path / "out"), runs="home")[0] == 0
    bundle = "gpu/weights/hands/residual-add"
    assert Segmenter.load(tmp_path / "home" / bundle).bundle.task == "hands"
    for file in (tmp_path / "runs" / bundle).iterdir():
        assert file.read_bytes() == (tmp_path / "home" / bundle / file.name).read_bytes()
    assert call("--minutes", "5", runs="home")[1] == "all done\n", "what came home is not trained again"

    parts[0].unlink()
    assert call("--join", str(tmp_path / "out"), runs="elsewhere")[0] == 1


def test_the_weights_that_ship_are_all_there_and_the_table_is_complete():
    names = {job.name for job in gpu_run.JOBS}
    assert len(names) == len(gpu_run.JOBS)
    for task in ("streets", "nuclei", "hands"):
        assert {f"{task}-crop-concat", f"{task}-residual-add", f"{task}-residual-concat"} <= names
    cells = {f"{task}-{body}-{skip}-seed{seed}" for task in ("streets", "nuclei") for body in ("residual", "crop")
             for skip in ("add", "concat") for seed in range(3)}  # fmt: skip
    assert cells <= names
