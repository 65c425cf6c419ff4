"""A training in calls of a few minutes: stopped, gone on with, sent in parts and put together again."""

import json
import sys
from pathlib import Path

import pytest
from folders import write_dataset

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_run  # noqa: E402
import measuring  # noqa: E402

from unet import Segmenter  # noqa: E402


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call the script for one network on a set of discs; returns its status and what it printed."""
    monkeypatch.setattr(gpu_run, "PART", 10_000)
    write_dataset(tmp_path / "data" / "hands", size=(64, 80), classes={"class_names": ["background", "hand"]})
    write_dataset(
        tmp_path / "data" / "nuclei", val=6, size=(64, 80), classes={"class_names": ["background", "nucleus"]}
    )

    def call(*arguments, runs="runs", only=("hands-residual-add",)):
        given = ["--runs", str(tmp_path / runs), *arguments]
        if "--join" not in arguments:
            given += ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--dry-run"]
            given += ["--only", *only, "--reserve", "0"]
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
    monkeypatch.setattr(gpu_run.Training, "command", lambda job, args: command)
    status, printed = call("--minutes", "0.05")
    assert status == 0
    assert "hands-residual-add: stopped, to go on" in printed
    assert "call again: 1 to do, about 1 minutes of the card, 0 to send" in printed


def test_gone_on_with_sent_and_joined(call, tmp_path):
    status, printed = call("--minutes", "5", "--megabytes", "0.001")
    assert status == 0, (tmp_path / "runs/gpu/hands-residual-add.log").read_text()
    assert "call again: 0 to do, about 0 minutes of the card, 1 to send" in printed
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


def test_a_cell_of_the_table_leaves_its_scores_and_not_its_weights(call, tmp_path):
    assert call("--minutes", "5", only=["nuclei-residual-add-seed1"])[1].endswith("all done\n")
    call("--join", str(tmp_path / "out"), runs="home")
    cell = tmp_path / "home/skips/seed1/weights/nuclei/residual-add"
    assert {path.name for path in cell.iterdir()} == {"config.json", "scores.json"}
    assert len(json.loads((cell / "scores.json").read_text())["pictures"]) == 6


def test_a_benchmark_runs_alone_and_its_table_comes_home(call, tmp_path, monkeypatch):
    order = []

    def alone(script):
        def command(job, args):
            order.append(job.name)
            return [sys.executable, "-c", script]

        return command

    monkeypatch.setattr(gpu_run.Benchmark, "command", alone("raise SystemExit('no card')"))
    status, printed = call("--minutes", "5", only=["benchmark-training"])
    assert status == 1
    assert "no card" in printed
    assert "call again: 1 to do" in printed

    monkeypatch.setattr(gpu_run.Training, "command", alone("import time; time.sleep(0.6)"))
    monkeypatch.setattr(gpu_run.Benchmark, "command", alone("print('| a table |')"))
    del order[:]
    call("--minutes", "5", only=["benchmark-training", "hands-residual-add", "nuclei-crop-add-seed0"])
    assert order == ["hands-residual-add", "benchmark-training", "nuclei-crop-add-seed0"]

    begin, end = measuring.markers("training", gpu=True)
    (tmp_path / "README.md").write_text(f"{begin}\nnone yet\n{end}\n", encoding="utf-8")
    monkeypatch.setattr(measuring, "ROOT", tmp_path)
    assert call("--join", str(tmp_path / "out"), "--write", runs="home")[0] == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == f"{begin}\n| a table |\n{end}\n"


def test_a_plan_is_what_the_minutes_are_enough_for(call, tmp_path):
    names = ["hands-residual-add", "hands-residual-concat"]
    status, printed = call("--plan", "1", only=names)
    assert status == 0
    rows = [line.split("|")[1:-1] for line in printed.splitlines()[2:]]
    assert [row[1].strip() for row in rows] == ["residual-add", "residual-concat"]
    found = json.loads((tmp_path / "runs/gpu/plan.json").read_text())["hands-residual-weights"]
    assert found["epochs"] == min(int(row[3]) for row in rows), "what is compared is trained equally long"
    args = gpu_run.parse_arguments(["--data", "d", "--out", "o", "--runs", str(tmp_path / "runs")])
    job = next(job for job in gpu_run.JOBS if job.name == "hands-residual-add")
    assert f"--epochs {found['epochs']} " in " ".join(job.command(args))
    # Half a minute each, but for the epoch that would not fit any more.
    assert 0 < found["epochs"] < job.epochs
    assert found["minutes"] == pytest.approx(0.5, rel=0.2)


def test_the_weights_that_ship_are_all_there_and_the_table_is_complete():
    names = [job.name for job in gpu_run.JOBS]
    assert len(set(names)) == len(names)
    cells = {f"{task}-{body}-{skip}-seed{seed}" for task in ("streets", "nuclei") for body in ("residual", "crop")
             for skip in ("add", "concat") for seed in range(3)}  # fmt: skip
    shipped = {f"{task}-{architecture}" for task in ("streets", "nuclei", "hands")
               for architecture in ("crop-concat", "residual-add", "residual-concat")}  # fmt: skip
    assert shipped | cells | {"benchmark-inference", "benchmark-training"} == set(names)
    assert names[:2] == ["streets-crop-concat", "nuclei-crop-concat"], "the most wanted first"
