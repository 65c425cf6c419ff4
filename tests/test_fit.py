"""Training learns, repeats exactly, and says why it stops."""

import dataclasses
import json
import math

import pytest
import torch
from accelerate.tracking import GeneralTracker
from bundles import small_bundle
from folders import disc
from runs import RECIPE, fresh_accelerator, same_weights, train

from training.augment import PixelStore
from training.checkpoint import TrainingError
from training.evaluate import evaluate
from training.recipe import Recipe
from unet import Segmenter


def test_two_runs_with_one_seed_give_identical_weights(tmp_path):
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    other = train(tmp_path / "c", recipe=dataclasses.replace(RECIPE, seed=1))
    assert same_weights(first.net, second.net)
    assert not same_weights(first.net, other.net)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(tmp_path, monkeypatch):
    """One picture makes the loss infinite: it is among those that are named, and those are one batch."""
    store = PixelStore([disc(36, 44, i) for i in range(12)], None, "cpu")
    batch, bad = store.batch, 7

    def with_a_bad_picture(indices, *arguments, **options):
        images, labels = batch(indices, *arguments, **options)
        images[indices == bad] = math.inf
        return images, labels

    monkeypatch.setattr(store, "batch", with_a_bad_picture)
    store.names = [f"picture-{i}.png" for i in range(12)]
    with pytest.raises(TrainingError, match=r"not finite at step [123] \(epoch 1\)") as stopped:
        train(tmp_path, store=store)
    assert f"picture-{bad}.png" in str(stopped.value)
    assert str(stopped.value).count("picture-") == RECIPE.batch_size


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


def test_fit_runs_in_the_precision_that_the_processor_multiplies_natively(bfloat16, tmp_path):
    fitted = train(tmp_path, recipe=dataclasses.replace(RECIPE, epochs=1))
    assert fitted.record["precision"] == ("bf16" if bfloat16 else "no")
