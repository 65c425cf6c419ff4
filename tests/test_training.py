"""The loss counts what it should, runs repeat and resume exactly, and what cannot go on says why."""

import dataclasses
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.tracking import GeneralTracker
from bundles import small_bundle
from folders import disc

from training.augment import PixelStore
from unet import ARCHITECTURES, Segmenter, UNet
from unet.metrics import IGNORE_INDEX
from unet.training import (
    Recipe,
    SegmentationLoss,
    TrainingError,
    class_weights,
    evaluate,
    fit,
    make_accelerator,
    scores,
)

ROOT = Path(__file__).parents[1]
RECIPE = Recipe(epochs=3, batch_size=4, crop=(24, 32))


def fresh_accelerator():
    """As in a new process: Accelerate keeps its state in the process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    return make_accelerator()


def train(
    folder,
    *,
    architecture="residual-add",
    recipe=RECIPE,
    validate=lambda net: 0.0,
    store=None,
    accelerator=None,
    **options,
):
    """One short run, as if in a process of its own."""
    accelerator = accelerator or fresh_accelerator()
    config = ARCHITECTURES[architecture]
    widths = tuple(w // 16 for w in config.widths)
    norm = "before_relu" if config.batch_norm == "none" else config.batch_norm
    torch.manual_seed(0)
    net = UNet(dataclasses.replace(config, widths=widths, batch_norm=norm))
    store = store or PixelStore([disc(36, 44, i) for i in range(6)], None, "cpu")
    return fit(net, store, recipe, accelerator=accelerator, validate=validate, folder=folder, **options)


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_fit_runs_in_the_precision_that_the_processor_multiplies_natively(bfloat16, tmp_path):
    fitted = train(tmp_path, recipe=dataclasses.replace(RECIPE, epochs=1))
    assert fitted.record["precision"] == ("bf16" if bfloat16 else "no")


@pytest.mark.parametrize("outputs", [1, 3])
def test_void_pixels_do_not_count(outputs):
    torch.manual_seed(0)
    loss = SegmentationLoss(outputs, torch.ones(3))
    logits = torch.randn(2, outputs, 4, 5)
    labels = torch.randint(0, 2, (2, 4, 5))
    labels[:, 1:3] = IGNORE_INDEX
    changed = logits.clone()
    changed[:, :, 1:3] = 50 * torch.randn(2, outputs, 2, 5)
    torch.testing.assert_close(loss(logits, labels), loss(changed, labels))
    # ... and do not dilute either: the same as if they had been cut out.
    kept = [0, 3]
    torch.testing.assert_close(loss(logits, labels), loss(logits[:, :, kept], labels[:, kept]))


@pytest.mark.parametrize("outputs", [1, 3])
def test_right_costs_nothing_wrong_costs_much_and_void_alone_costs_nothing(outputs):
    loss = SegmentationLoss(outputs, torch.ones(3))
    labels = torch.tensor([[[0, 1, 1], [0, 1, 0]]])
    one_hot = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    right = 40 * (labels[:, None] - 0.5) if outputs == 1 else 40 * one_hot
    assert loss(right, labels) < 0.2  # Dice's smoothing leaves a little
    assert loss(-right, labels) > 5
    assert loss(right, torch.full_like(labels, IGNORE_INDEX)) == pytest.approx(0, abs=1e-6)


def test_cross_entropy_is_weighted_by_class():
    """Two pixels, one of each class, equally wrong by log 2: a weighted mean of equal numbers is that number."""
    logits, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    weighted = SegmentationLoss(2, torch.tensor([1.0, 3.0]))
    entropy = weighted(logits, labels) - weighted.dice(logits, labels)
    assert entropy == pytest.approx(math.log(2))
    logits[0, 0, 0, 1] = 5.0  # now the pixel of class 1, of weight 3, is wrong by log(1 + e^5)
    entropy = weighted(logits, labels) - weighted.dice(logits, labels)
    assert entropy == pytest.approx((math.log(2) + 3 * math.log(1 + math.exp(5))) / 4)


def test_rare_classes_weigh_more_but_not_without_limit():
    weights = class_weights(torch.tensor([0.9, 0.1, 0.0]))
    assert weights.tolist() == pytest.approx([1 / math.log(2.0), 1 / math.log(1.2), 1 / math.log(1.1)])


def test_learning_rate_rises_then_falls_to_zero():
    recipe = dataclasses.replace(RECIPE, learning_rate=1.0, warmup=0.1)
    rates = [recipe.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(0.91**0.9, rel=0.02)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[50] == pytest.approx(0.5**0.9)
    assert rates[99] == pytest.approx(0.01**0.9)
    held = dataclasses.replace(recipe, decay=0.0)
    assert [held.rate(step, 100) for step in (9, 50, 99)] == [1.0, 1.0, 1.0]


def test_two_runs_with_one_seed_give_identical_weights(tmp_path):
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    other = train(tmp_path / "c", recipe=dataclasses.replace(RECIPE, seed=1))
    assert same_weights(first.net, second.net)
    assert not same_weights(first.net, other.net)


class Killed(Exception):
    pass


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


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(tmp_path, monkeypatch):
    """One picture makes the loss infinite: it is among those that are named, and those are one batch."""
    store = PixelStore([disc(36, 44, i) for i in range(12)], None, "cpu")
    batch, bad = store.batch, 7

    def with_a_bad_picture(indices, *arguments, **options):
        images, labels = batch(indices, *arguments, **options)
        images[indices == bad] = math.inf
        return images, labels

    monkeypatch.setattr(store, "batch", with_a_bad_picture)
    with pytest.raises(TrainingError, match=r"not finite at step [123] \(epoch 1\)") as stopped:
        train(tmp_path, store=store, names=[f"picture-{i}.png" for i in range(12)])
    assert f"picture-{bad}.png" in str(stopped.value)
    assert str(stopped.value).count("picture-") == RECIPE.batch_size


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


def test_dropout_is_the_recipe_s_while_training_and_the_network_s_afterwards(tmp_path):
    seen = []

    def validate(net):
        seen.append([module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)])
        return 0.0

    net = train(tmp_path, recipe=dataclasses.replace(RECIPE, dropout=0.5, epochs=1), validate=validate).net
    rates = [module.p for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates == [0.2, 0.3, 0.4, 0.3, 0.2]
    assert seen == [[rate / 2 for rate in rates]]


def test_loss_and_score_go_to_the_tracker(tmp_path):
    class Kept(GeneralTracker):
        name, requires_logging_directory, main_process_only = "kept", False, True
        entries = ()

        @property
        def tracker(self):
            return self

        def log(self, values, step=None, **_):
            self.entries = (*self.entries, {"step": step} | values)

    accelerator = fresh_accelerator()
    accelerator.trackers = [Kept(_blank=True)]
    train(
        tmp_path, accelerator=accelerator, recipe=dataclasses.replace(RECIPE, validate_every=2), validate=lambda _: 0.25
    )
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    expected = [{k: entry[k] for k in ("step", "loss", "score") if k in entry} for entry in history]
    assert list(accelerator.trackers[0].entries) == expected
    assert [("score" in entry) for entry in expected] == [False, True, True]


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="pip install trackio"):
        make_accelerator("trackio")


def test_the_best_weights_are_kept_not_the_last(tmp_path):
    seen = []

    def validate(net):
        seen.append({k: v.clone() for k, v in net.state_dict().items()})
        return [0.3, 0.9, 0.5][len(seen) - 1]

    finished = train(tmp_path, validate=validate)
    assert all(torch.equal(v, seen[1][k]) for k, v in finished.net.state_dict().items())
    assert finished.record["best_step"] == 4


@pytest.mark.parametrize("architecture", ["residual-add", "crop-concat"])
def test_it_learns(tmp_path, architecture):
    """Discs of one colour: after some dozens of steps nearly every pixel of unseen pictures is right."""
    pairs = [disc(36, 44, i) for i in range(8)]
    store = PixelStore(pairs, None, "cpu")
    recipe = Recipe(epochs=30, batch_size=4, crop=(24, 32), learning_rate=1e-2, validate_every=30)
    net = train(tmp_path, architecture=architecture, recipe=recipe, store=store).net
    bundle = dataclasses.replace(
        small_bundle("residual-add", classes=2, divisor=16),
        net=net.fold_batch_norm() if architecture == "crop-concat" else net,
        preprocessing=store.preprocessing,
    )
    confusion = evaluate(Segmenter(bundle), [disc(40, 40, 100 + i) for i in range(3)], progress=False)
    assert confusion.miou() > 0.9


def test_scores_name_every_class_and_absent_ones_are_none():
    bundle = small_bundle("residual-add", divisor=16)
    image, labels = disc(30, 30, 0)
    found = scores(evaluate(Segmenter(bundle), [(image, labels)], progress=False), bundle.class_names, 1)
    assert set(found["iou"]) == set(bundle.class_names)
    assert found["pictures"] == 1
    assert all(value is None or 0 <= value <= 1 for value in [*found["iou"].values(), *found["dice"].values()])
