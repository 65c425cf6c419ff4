"""The network a training begins with, new or trained.

Widening keeps the function (Chen, Goodfellow, Shlens 2016, Net2Net, arXiv 1511.05641): new channels are noisy copies of
old ones, and nothing old looks at them yet.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from unet.bundle import Bundle, Preprocessing
from unet.model import ARCHITECTURES, ConvBlock, UNet, UNetConfig

from .augment import Augmentation, PixelStore
from .checkpoint import TrainingError
from .dataset import Dataset

NOISE = 0.5  # of the weights' own deviation, added to a copied channel: equal channels would stay equal for ever
CALIBRATION_PICTURES = 16

#: What the source's record says of the hours that its own training took.
_COST = ("seconds", "hardware", "processes", "started_from")

#: What two networks must share; widths may grow, the head may change, and BatchNorm may be put in.
_BODY = ("convolutions", "padded", "skip", "join", "in_channels")


def build_network(architecture: str, classes: int, *, width: float | None, seed: int, start: Bundle | None) -> UNet:
    """A network with random weights, as it is trained.

    width: multiplies the architecture's channels; None is 1, or the widths of ``start``, the bundle to start from.
    """
    config = ARCHITECTURES[architecture]
    widths = tuple(max(1, round(channels * (width or 1))) for channels in config.widths)
    if start and width is None:
        widths = start.net.config.widths
    outputs = 1 if classes == 2 else classes
    # The paper's network has no BatchNorm, but trains far better with it; `as_bundle` folds it away.
    norm = "before_relu" if config.batch_norm == "none" else config.batch_norm
    torch.manual_seed(seed)
    return UNet(dataclasses.replace(config, widths=widths, num_outputs=outputs, batch_norm=norm))


def as_bundle(net: UNet, task: str, architecture: str, dataset: Dataset, seen: Preprocessing, **fields: Any) -> Bundle:
    """A trained network's bundle; ``fields`` are Bundle's."""
    if ARCHITECTURES[architecture].batch_norm == "none":
        net = net.fold_batch_norm()
    names, palette = dataset.class_names, dataset.palette
    return Bundle(net, task, architecture, names, palette, seen, data=dataset.record, **fields)


def start_from(net: UNet, source: Bundle, class_names: tuple[str, ...], store: PixelStore) -> dict[str, Any]:
    """Copy a bundle's weights into ``net``; returns a record.

    class_names: what ``net`` tells apart; where they are not the source's, its head keeps its random weights.
    store: the training pictures, by whose statistics a BatchNorm is put in where the source's was folded away.
    Raises TrainingError for a network of another body or with narrower levels.
    """
    old, new = source.net.config, net.config
    _check_body(old, new)
    keep_head = source.class_names == tuple(class_names)
    with torch.no_grad():
        _copy_network(source.net.to(net.head.weight), net, keep_head=keep_head)
        if old.batch_norm != new.batch_norm:
            _calibrate(net, _training_crops(net, store))
    return {
        "task": source.task,
        "architecture": source.architecture,
        "widths": list(old.widths),
        "new_head": not keep_head,
        "pictures_seen": source.training.get("pictures_seen"),
    } | {key: source.training[key] for key in _COST if key in source.training}


def _check_body(old: UNetConfig, new: UNetConfig) -> None:
    """Raise TrainingError where ``new`` cannot start from ``old``."""
    different = [name for name in _BODY if getattr(old, name) != getattr(new, name)]
    if len(old.widths) != len(new.widths):
        different.append("number of levels")
    if old.batch_norm != new.batch_norm and (old.batch_norm, new.batch_norm) != ("none", "before_relu"):
        different.append("batch_norm")
    if different:
        raise TrainingError(
            f"--start-from names a network of another architecture (other {', '.join(different)}); choose that "
            "one with --architectures, or leave --start-from out"
        )
    if any(wide < narrow for narrow, wide in zip(old.widths, new.widths, strict=True)):
        raise TrainingError(
            f"--start-from names a network with levels of {', '.join(map(str, old.widths))} channels, wider than the "
            f"{', '.join(map(str, new.widths))} asked for; a network may only grow, so choose a larger --width"
        )


def _copy_network(old: UNet, new: UNet, *, keep_head: bool) -> None:
    """Copy every layer; ``seen``: places of old channels."""
    seen = torch.arange(old.config.in_channels)
    skips = []
    for old_block, new_block in zip(old.encoder, new.encoder, strict=True):
        seen = _copy_block(old_block, new_block, seen)
        skips.append((seen, new_block.conv1.out_channels))
    skips.pop()
    for old_up, new_up in zip(old.decoder, new.decoder, strict=True):
        skip, skip_channels = skips.pop()
        seen = _copy_convolution(old_up.up, new_up.up, seen)
        if new.config.join == "after_block":
            seen = _copy_block(old_up.block, new_up.block, seen)
        if new.config.skip == "concat":
            seen = torch.cat([skip, skip_channels + seen])
        if new.config.join == "before_block":
            seen = _copy_block(old_up.block, new_up.block, seen)
    if keep_head:
        _copy_convolution(old.head, new.head, seen)


def _copy_block(old: ConvBlock, new: ConvBlock, seen: Tensor) -> Tensor:
    for name, layer in new.named_children():
        if isinstance(layer, nn.Conv2d):
            seen = _copy_convolution(getattr(old, name), layer, seen)
        elif isinstance(layer, nn.BatchNorm2d) and hasattr(old, name):
            values = getattr(old, name).state_dict()
            twins = torch.arange(layer.num_features) % len(values["weight"])
            layer.load_state_dict({key: value[twins] if value.ndim else value for key, value in values.items()})
    return seen


def _copy_convolution(old: nn.Conv2d | nn.ConvTranspose2d, new: nn.Conv2d | nn.ConvTranspose2d, seen: Tensor) -> Tensor:
    """Copy a layer; returns its channels' new places."""
    values, weight = old.weight, new.weight
    if isinstance(new, nn.ConvTranspose2d):  # theirs are (in, out, h, w)
        values, weight = values.transpose(0, 1), weight.transpose(0, 1)
    count = len(values)
    twins = torch.arange(len(weight)) % count
    noise = NOISE * values.std() * torch.randn_like(values[twins])
    noise[:count] = 0
    weight[:count] = 0  # what is old does not look at what is new
    weight[:, seen] = values[twins] + noise
    new.bias.copy_(old.bias[twins])
    return torch.arange(count)


def _calibrate(net: UNet, images: Tensor) -> None:
    """Let BatchNorms undo their statistics: the function stays as it was."""

    def undo(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)

    norms = (module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    hooks = [norm.register_forward_pre_hook(undo) for norm in norms]
    net.eval()(images)
    for hook in hooks:
        hook.remove()
    net.train()


def _training_crops(net: UNet, store: PixelStore) -> Tensor:
    """Normalised crops of the first training pictures."""
    images, _ = store.batch(
        torch.arange(min(CALIBRATION_PICTURES, len(store))),
        net.config.output_size(net.config.input_size((64, 64))),
        margin=net.config.margin,
        augmentation=Augmentation(scale=(1, 1), flip=False, color=0),
        generator=torch.Generator().manual_seed(0),
    )
    return store.preprocessing.normalise(images).to(net.head.weight)
