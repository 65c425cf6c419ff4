"""What a skip connection carries, and what a network answers without it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from unet.compare import disagreement, score
from unet.model import Join, center_crop
from unet.predict import Segmenter, Tile


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
        """Channels with the most to see, strongest first: int (n or fewer, 2).

        The first column is of the encoder, the second of the decoder.

        Strength is a channel's standard deviation over the tile. Added maps meet channel by channel, so both columns
        name the same channel, by the sum of the two deviations; concatenated ones are ranked each by themselves.
        """
        strength = np.stack([maps.std(axis=(1, 2)) for maps in (self.cropped, self.decoder)], axis=1)
        if self.skip == "add":
            strength = np.repeat(strength.sum(axis=1, keepdims=True), 2, axis=1)
        return np.argsort(-strength, axis=0, kind="stable")[:n]


def skip_features(segmenter: Segmenter, image: np.ndarray, level: int, tile: Tile | None = None) -> SkipFeatures:
    """Run one tile of a picture and keep the maps that meet at ``level``.

    image: uint8 (H, W, 3). level: 0 is full resolution.

    tile: one of ``segmenter.layout(image.shape[:2])``; None takes the one that answers the picture's middle. Raises
    ValueError for a level without a skip and for another array.
    """
    segmenter.net.config.check_skips([level])
    working = segmenter.working_picture(image)
    tile = tile or segmenter.layout(image.shape[:2]).middle
    met: dict[int, Join] = {}

    def keep(join: Join) -> None:
        if join.level == level:
            met[level] = join

    segmenter.run(working, tile, watch=keep)
    encoder, decoder, joined = (maps[0].float().cpu().numpy() for maps in met[level][1:])
    return SkipFeatures(level, segmenter.net.config.skip, tile.read(working), encoder, decoder, joined)


@dataclass(frozen=True)
class Ablation:
    """A network's answer without the skips of ``levels``.

    label_map: uint8 (H, W). agreement: share of pixels that keep the class of its full answer. miou: without the skips
    and with all of them, against a ground truth; None where there is none.
    """

    levels: tuple[int, ...]
    label_map: np.ndarray
    agreement: float
    miou: tuple[float, float] | None


def ablation(
    levels: Collection[int],
    label_map: np.ndarray,
    full: np.ndarray,
    num_classes: int,
    truth: np.ndarray | None = None,
) -> Ablation:
    """Compare the answer without ``levels`` with the full one.

    label_map, full, truth: uint8 (H, W). Raises as `score`.
    """
    agreement = float(1 - disagreement(label_map, full).mean())
    scores = None
    if truth is not None:
        scores = tuple(score(answer, truth, num_classes).miou for answer in (label_map, full))
    return Ablation(tuple(sorted(levels)), label_map, agreement, scores)
