"""Begin a training with the weights of a trained network.

Other classes and wider levels are allowed. Widening keeps the function (Chen, Goodfellow, Shlens 2016, Net2Net, arXiv
1511.05641): new channels are noisy copies of old ones, and nothing old looks at them yet, so that the first logits are
those of the trained network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unet.bundle import Bundle
from unet.model import ConvBlock, UNet, UNetConfig

from .augment import Augmentation, PixelStore
from .checkpoint import TrainingError

NOISE = 0.5  # of the weights' own deviation, added to a copied channel: equal channels would stay equal for ever
CALIBRATION_PICTURES = 16

#: What two networks must share; widths may grow, the head may change, and BatchNorm may be put in.
_BODY = ("convolutions", "padded", "skip", "join", "in_channels")


def start_from(net: UNet, source: Bundle, class_names: tuple[str, ...], store: PixelStore) -> dict[str, Any]:
    """Copy the weights of a bundle into ``net``, in place.

    Returns what the training record says of it.
    class_names: what ``net`` tells apart; where they are not the source's, its head keeps its random weights.
    store: the training pictures, by whose statistics a BatchNorm is put in where the source's was folded away.
    Raises TrainingError for a network of another body or with narrower levels.
    """
    old, new = source.net.config, net.config
    check_body(old, new)
    keep_head = source.class_names == tuple(class_names)
    trained = source.net.to(net.head.weight)
    with torch.no_grad():
        _copy_network(trained, net, keep_head=keep_head)
        if old.batch_norm != new.batch_norm:
            _calibrate(net, _training_crops(net, store))
    return {
        "task": source.task,
        "architecture": source.architecture,
        "widths": list(old.widths),
        "new_head": not keep_head,
        "pictures_seen": source.training.get("pictures_seen"),
    }


def check_body(old: UNetConfig, new: UNetConfig) -> None:
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
    """Copy every layer. ``seen``: where old input channels are among the new."""
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
            twins = torch.arange(layer.num_features) % getattr(old, name).num_features
            values = getattr(old, name).state_dict()
            for key, tensor in layer.state_dict().items():
                tensor.copy_(values[key][twins] if values[key].ndim else values[key])
    return seen


def _copy_convolution(old: nn.Conv2d | nn.ConvTranspose2d, new: nn.Conv2d | nn.ConvTranspose2d, seen: Tensor) -> Tensor:
    """Copy one layer; returns where its old output channels are now."""
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
    """Set every BatchNorm to the statistics of ``images`` and undo them.

    The function stays what it was, in eval mode exactly and in training nearly, as the batches are alike.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]

    def undo(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)

    hooks = [norm.register_forward_pre_hook(undo) for norm in norms]
    net.eval()(images)
    for hook in hooks:
        hook.remove()
    net.train()


def _training_crops(net: UNet, store: PixelStore) -> Tensor:
    """Normalised crops of the first training pictures, 64 pixels or more."""
    indices = torch.arange(min(CALIBRATION_PICTURES, len(store)))
    size = net.config.output_size(net.config.input_size((64, 64)))
    images, _ = store.batch(
        indices,
        size,
        margin=net.config.margin,
        augmentation=Augmentation(scale=(1, 1), flip=False, color=0),
        generator=torch.Generator().manual_seed(0),
    )
    return store.preprocessing.normalise(images).to(net.head.weight)
