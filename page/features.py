"""What a skip connection carries, and what a network answers without it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from page.components import render
from page.overlay import data_uri, signed_view
from unet.compare import disagreement, score
from unet.model import Join, center_crop
from unet.predict import Segmenter
from unet.resize import shrink
from unet.tiling import Tile

_MAP_PIXELS = 18_000  # of a feature map's picture, at most


@dataclass(frozen=True)
class SkipFeatures:
    """The feature maps that meet at one level, for one tile.

    All are float32, as the network computes them.

    level: 0 is full resolution. skip: "add" or "concat". picture: uint8 (H, W, 3), what the network was fed, its
    mirrored margin included. encoder: (C, h, w), out of the encoder block, before cropping. decoder: (C, h', w'), what
    the encoder's is joined to. joined: (C, h', w') added, or (2C, h', w') concatenated, the encoder's channels first.
    """

    level: int
    skip: str
    picture: np.ndarray
    encoder: np.ndarray
    decoder: np.ndarray
    joined: np.ndarray

    @property
    def cropped(self) -> np.ndarray:
        """(C, h', w'): the part of the encoder's maps that is joined."""
        return center_crop(self.encoder, self.decoder.shape[1:])

    def strongest(self, n: int) -> np.ndarray:
        """Channels with the most to see, strongest first: int (n, 2).

        Strength is a channel's standard deviation over the tile. Added maps meet channel by channel, so both columns
        name the same channel, by the sum of the two deviations; concatenated ones are ranked each by themselves.
        """
        strength = np.stack([maps.std(axis=(1, 2)) for maps in (self.cropped, self.decoder)], axis=1)
        if self.skip == "add":
            strength = np.repeat(strength.sum(axis=1, keepdims=True), 2, axis=1)
        return np.argsort(-strength, axis=0, kind="stable")[:n]


def skip_features(segmenter: Segmenter, image: np.ndarray, level: int, tile: Tile | None = None) -> SkipFeatures:
    """Run one tile, keeping the maps joined at ``level``.

    tile: one of ``segmenter.layout(image.shape[:2])``; None takes the one that answers the picture's middle. Raises
    ValueError for a level without a skip and for another array.
    """
    segmenter.net.config.check_skips([level])
    working = segmenter.working_picture(image)
    tile = tile or segmenter.layout(image.shape[:2]).middle
    met: list[Join] = []

    def keep(join: Join) -> None:
        if join.level == level:
            met.append(join)

    segmenter.run(working, tile, watch=keep)
    encoder, decoder, joined = (maps[0].float().cpu().numpy() for maps in met[0][1:])
    return SkipFeatures(level, segmenter.net.config.skip, tile.read(working), encoder, decoder, joined)


@dataclass(frozen=True)
class Ablation:
    """How a network answers without the skips of ``levels``.

    agreement: share of pixels that keep the class of its full answer. miou: without the skips and with all of them,
    against a ground truth; None where there is none.
    """

    levels: tuple[int, ...]
    agreement: float
    miou: tuple[float, float] | None


def ablation(
    levels: Collection[int], label_map: np.ndarray, full: np.ndarray, num_classes: int, truth: np.ndarray | None = None
) -> Ablation:
    """Compare the answer without ``levels`` with the full one.

    All are uint8 (H, W). Raises as `score`.
    """
    agreement = float(1 - disagreement(label_map, full).mean())
    scores = None
    if truth is not None:
        scores = tuple(score(answer, truth, num_classes).miou for answer in (label_map, full))
    return Ablation(tuple(sorted(levels)), agreement, scores)


def ablations(found: Sequence[Ablation], num_skips: int) -> str:
    """What leaving out skips costs, as an HTML table."""
    return render("ablations", found=found, num_skips=num_skips)


# ---- the maps at a join, as HTML -------------------------------------------------------------------------------------


def joins(features: SkipFeatures, *, count: int = 6) -> str:
    """The strongest channels at a join, as HTML.

    Added: a card a channel, its three maps on one scale, so that what is seen adds up. Concatenated: the encoder's
    cards in front, then the decoder's; each map on its own scale. What crop cuts away is paler.
    """
    strongest, maps = features.strongest(count), (features.encoder, features.decoder)
    if features.skip == "add":
        return render("joins", sums=[_sum(features, channel) for channel in strongest[:, 0]], channels=len(maps[0]))
    stack = []
    for what, own, chosen, first in zip(("encoder", "decoder"), maps, strongest.T, (0, len(maps[0])), strict=True):
        drawn = [
            (c + first, _map(features, own[c], _scale(own[c]), f"{what.capitalize()}, channel {c}")) for c in chosen
        ]
        stack.append((what, first, first + len(own) - 1, drawn))
    return render("joins", sums=[], stack=stack)


def _sum(features: SkipFeatures, channel: int) -> tuple[Any, ...]:
    maps = features.encoder[channel], features.decoder[channel], features.joined[channel]
    scale = max(_scale(values) for values in maps)
    titles = (f"{what}, channel {channel}" for what in ("Encoder", "Decoder", "Sum"))
    return channel, *(_map(features, values, scale, title) for values, title in zip(maps, titles, strict=True))


def _scale(values: np.ndarray) -> float:
    """The magnitude drawn brightest, which half a percent may exceed."""
    return float(np.quantile(np.abs(values), 0.995))


def _map(features: SkipFeatures, values: np.ndarray, scale: float, title: str) -> dict[str, Any]:
    """Draw one map (h, w), to scale, what crop cuts away paler."""
    picture = signed_view(values, scale)
    h, w = features.decoder.shape[1:]
    if values.shape != (h, w):
        top, left = (values.shape[0] - h) // 2, (values.shape[1] - w) // 2
        paler = np.rint(picture * 0.45 + 255 * 0.25).astype(np.uint8)
        paler[top : top + h, left : left + w] = picture[top : top + h, left : left + w]
        picture = paler
    return {
        "picture": data_uri(shrink(picture, _MAP_PIXELS), "png"),
        "title": title,
        "low": values.min(),
        "high": values.max(),
        "scale": scale,
        "width": 100 * values.shape[1] / features.encoder.shape[2],
    }
