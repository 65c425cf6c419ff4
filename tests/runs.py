"""Short trainings, each as if in a process of its own."""

import dataclasses

import torch
from accelerate.state import AcceleratorState, PartialState
from folders import disc

from training.augment import PixelStore
from training.distributed import make_accelerator
from training.fit import fit
from training.recipe import Recipe
from unet import ARCHITECTURES, UNet

RECIPE = Recipe(epochs=3, batch_size=4, crop=(24, 32), validate_every=1)


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


class Killed(Exception):
    pass
