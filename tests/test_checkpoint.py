"""Runs resume exactly, and none overwrites another."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import RECIPE, Killed, same_weights, train

from training.checkpoint import TrainingError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("architecture", ["residual-add", "crop-concat"])
def test_killed_and_resumed_gives_what_the_uninterrupted_run_gives(tmp_path, architecture):
    calls = []

    def validate(net):
        calls.append(net.head.weight.abs().sum().item())
        return calls[-1]

    whole = train(tmp_path / "whole", architecture=architecture, validate=validate)
    scores_of_the_whole = calls[:]
    calls.clear()

    def killed_in_the_third_epoch(net):
        if len(calls) == 2:
            raise Killed
        return validate(net)

    with pytest.raises(Killed):
        train(tmp_path / "cut", architecture=architecture, validate=killed_in_the_third_epoch)
    resumed = train(tmp_path / "cut", architecture=architecture, validate=validate, resume=True)
    assert calls == scores_of_the_whole
    assert same_weights(whole.net, resumed.net)
    assert whole.record["best_step"] == resumed.record["best_step"]


def killed_in_the_second_epoch(folder):
    """Leave an unfinished run with the checkpoint of its first epoch."""

    def validate(net):
        if (folder / "checkpoint").exists():
            raise Killed
        return 0.0

    with pytest.raises(Killed):
        train(folder, validate=validate)


def test_a_checkpoint_of_two_networks_says_what_to_do(tmp_path):
    """Once, the network that measures the pace was saved with the other."""
    killed_in_the_second_epoch(tmp_path)
    for name in ("model{}.safetensors", "optimizer{}.bin", "custom_checkpoint{}.pkl"):
        first = tmp_path / "checkpoint" / name.format("_0" * name.startswith("custom"))
        shutil.copy(first, first.with_name(name.format("_1")))
    with pytest.raises(TrainingError, match=f"of another version; delete {tmp_path} to start again"):
        train(tmp_path, resume=True)


def test_a_kill_while_the_checkpoint_is_swapped_loses_nothing(tmp_path):
    killed_in_the_second_epoch(tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.previous")
    (tmp_path / "checkpoint.partial").mkdir()
    assert same_weights(train(tmp_path, resume=True).net, train(tmp_path / "whole").net)


def test_saving_seldom_costs_a_kill_more_epochs_and_the_run_nothing(tmp_path):
    recipe, calls = dataclasses.replace(RECIPE, epochs=5), []

    def killed_in_the_fourth_epoch(net):
        calls.append(net)
        if len(calls) == 4:
            raise Killed
        return 0.0

    with pytest.raises(Killed):
        train(tmp_path / "cut", recipe=recipe, validate=killed_in_the_fourth_epoch, save_every=2)
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "cut/history.jsonl").read_text().splitlines()]
    assert epochs == [1, 2]
    resumed = train(tmp_path / "cut", recipe=recipe, resume=True, save_every=2)
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "cut/history.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3, 4, 5]
    assert same_weights(resumed.net, train(tmp_path / "whole", recipe=recipe).net)


def test_an_unfinished_run_is_not_overwritten(tmp_path):
    killed_in_the_second_epoch(tmp_path)
    with pytest.raises(TrainingError, match="--resume"):
        train(tmp_path)
    with pytest.raises(TrainingError, match=r"epochs: 3 then, 5 now"):
        train(tmp_path, recipe=dataclasses.replace(RECIPE, epochs=5), resume=True)


def test_killed_anywhere_it_resumes_to_the_same_weights(tmp_path):
    done = subprocess.run(
        [sys.executable, "tests/kills.py", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1].split(" kills, every time the same weights")[0]) >= 20


@pytest.mark.parametrize("limit", [9_000, 40_000], ids=["weights", "optimizer"])
def test_a_full_disk_is_a_sentence_and_the_run_goes_on_once_there_is_space(tmp_path, limit):
    """The limit on the size of a file stands for a disk that fills up while the second checkpoint is written."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(net):
        if (tmp_path / "cut/checkpoint").exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        return 0.0

    recipe = dataclasses.replace(RECIPE, epochs=2)
    try:
        with pytest.raises(TrainingError, match=r"could not be written .* is the disk full\? .* --resume$"):
            train(tmp_path / "cut", recipe=recipe, validate=fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    whole = train(tmp_path / "whole", recipe=recipe)
    assert same_weights(train(tmp_path / "cut", recipe=recipe, resume=True).net, whole.net)
    history = (tmp_path / "cut/history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in history] == [1, 2]


def test_while_a_run_is_going_on_its_folder_is_nobody_else_s(tmp_path):
    def try_another(net):
        for resume in (False, True):
            with pytest.raises(TrainingError, match="another run is going on"):
                train(tmp_path, resume=resume)
        raise Killed

    with pytest.raises(Killed):
        train(tmp_path, validate=try_another)
    train(tmp_path)  # and with its end it lets go
