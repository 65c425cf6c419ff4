"""The network that a training begins with, and the one that it publishes."""

from __future__ import annotations

import dataclasses

import torch

from unet.bundle import Bundle
from unet.model import ARCHITECTURES, UNet


def build_network(architecture: str, classes: int, *, width: float | None, seed: int, start: Bundle | None) -> UNet:
    """A network with random weights, as it is trained.

    width: multiplies the architecture's channels; None is 1, or the widths of ``start``, the bundle to start from.
    The paper's network has no BatchNorm, but trains far better with it: it is put in here; `published` folds it away.
    """
    config = ARCHITECTURES[architecture]
    widths = tuple(max(1, round(channels * (width or 1))) for channels in config.widths)
    if start and width is None:
        widths = start.net.config.widths
    config = dataclasses.replace(
        config,
        widths=widths,
        num_outputs=1 if classes == 2 else classes,
        batch_norm="before_relu" if config.batch_norm == "none" else config.batch_norm,
    )
    torch.manual_seed(seed)
    return UNet(config)


def published(net: UNet, architecture: str) -> UNet:
    """Fold away the BatchNorm that only the training needs."""
    return net.fold_batch_norm() if ARCHITECTURES[architecture].batch_norm == "none" else net
