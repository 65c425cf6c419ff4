"""Several processes train as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from folders import write_dataset
from runs import RECIPE, fresh_accelerator

from training.checkpoint import TrainingError
from training.distributed import make_accelerator
from training.fit import fit

ROOT = Path(__file__).parents[1]


def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path):
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "tests/processes.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for architecture in ("residual-add", "crop-concat"):
        for process in (0, 1):
            assert f"{architecture}: process {process} of 2 agrees" in done.stdout


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    class ThreeProcesses:
        num_processes = 3

    with pytest.raises(TrainingError, match="--batch-size must be a multiple of 3"):
        fit(None, None, RECIPE, accelerator=ThreeProcesses(), validate=None, folder=tmp_path)


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="pip install trackio"):
        make_accelerator("trackio")


def test_without_cuda_the_cpu_trains_whatever_else_there_is(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("accelerate.state.is_mps_available", lambda: True)
    assert fresh_accelerator().device.type == "cpu"


def test_torchrun_on_cpus_trains_one_network(tmp_path):
    """The README's line: each process would otherwise believe that it is alone."""
    data = write_dataset(tmp_path / "discs")
    flags = ["--data", data, "--epochs", "2", "--batch-size", "4", "--crop", "24", "32", "--width", "0.0625"]
    flags += ["--architectures", "residual-add", "--output", tmp_path / "weights", "--runs", tmp_path / "runs"]
    environment = {k: v for k, v in os.environ.items() if k != "ACCELERATE_USE_CPU"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py",
         *map(str, flags)],
        cwd=ROOT, env=environment | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "weights/discs/residual-add/config.json").read_text())
    assert config["training"]["processes"] == 2
    assert done.stdout.count("class  colour") == 1
