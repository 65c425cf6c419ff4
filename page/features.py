"""What a skip carries, and answers without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from page.components import render
from page.views import data_uri, signed_view
from unet.images import shrink
from unet.metrics import ConfusionMatrix
from unet.model import Join, center_crop
from unet.predict import Segmenter
from unet.tiling import Tile

_MAP_PIXELS = 18_000  # of a feature map's picture, at most
_TITLES = ("Encoder", "Decoder", "Sum")  # of the maps at a join


def skip_features(segmenter: Segmenter, image: np.ndarray, level: int, tile: Tile) -> Join:
    """Run one tile, keeping the maps joined at ``level``.

    Returns them as float32 (C, h, w), without the batch. Raises ValueError for a level without a skip.
    """
    segmenter.net.config.check_skips([level])
    met: list[Join] = []
    segmenter.run(segmenter.working_picture(image), tile, watch=met.append)
    (join,) = (join for join in met if join.level == level)
    return Join(level, *(maps[0].float().cpu().numpy() for maps in join[1:]))


def is_added(join: Join) -> bool:
    """Whether its maps are added, and not concatenated."""
    return join.joined.shape == join.decoder.shape


def strongest(join: Join, n: int) -> np.ndarray:
    """Channels with the most to see: int (n, 2).

    Strength is a channel's standard deviation over the tile. Added maps meet channel by channel, so both columns name
    the same channel, by the sum of the two deviations; concatenated ones are ranked each by themselves.
    """
    maps = center_crop(join.encoder, join.decoder.shape[1:]), join.decoder
    strength = np.stack([each.std(axis=(1, 2)) for each in maps], axis=1)
    if is_added(join):
        strength = np.repeat(strength.sum(axis=1, keepdims=True), 2, axis=1)
    return np.argsort(-strength, axis=0, kind="stable")[:n]


def joins(join: Join, *, count: int = 6) -> str:
    """The strongest channels at a join, as HTML.

    Added: a card a channel, its three maps on one scale, so that what is seen adds up. Concatenated: the encoder's
    cards in front, then the decoder's; each map on its own scale. What crop cuts away is paler.
    """
    shown, channels = strongest(join, count), len(join.encoder)
    if is_added(join):
        sums = []
        for channel in shown[:, 0]:
            maps = [each[channel] for each in join[1:]]
            scale = max(map(_scale, maps))
            drawn = [_map(join, each, scale, what, channel) for each, what in zip(maps, _TITLES, strict=True)]
            sums.append((channel, *drawn))
        return render("joins", sums=sums, channels=channels)
    stack = []
    for what, maps, chosen, first in zip(_TITLES, join[1:3], shown.T, (0, channels), strict=False):
        drawn = [(c + first, _map(join, maps[c], _scale(maps[c]), what, c)) for c in chosen]
        stack.append((what.lower(), first, first + channels - 1, drawn))
    return render("joins", sums=[], stack=stack)


def _scale(values: np.ndarray) -> float:
    """The magnitude drawn brightest; few values exceed it."""
    return float(np.quantile(np.abs(values), 0.995))


def _map(join: Join, values: np.ndarray, scale: float, what: str, channel: int) -> dict[str, Any]:
    """Draw a map (h, w), paler where cropped away."""
    picture, kept = signed_view(values, scale), join.decoder.shape[1:]
    if values.shape != kept:
        paler = np.rint(picture * 0.45 + 255 * 0.25).astype(np.uint8)
        center_crop(paler.transpose(2, 0, 1), kept)[:] = center_crop(picture.transpose(2, 0, 1), kept)
        picture = paler
    return {
        "picture": data_uri(Image.fromarray(shrink(picture, _MAP_PIXELS)), "png"),
        "title": f"{what}, channel {channel}",
        "low": values.min(),
        "high": values.max(),
        "scale": scale,
        "width": 100 * values.shape[1] / join.encoder.shape[2],
    }


def ablations(
    each: Iterable[tuple[Sequence[int], np.ndarray]],
    full: np.ndarray,
    truth: np.ndarray | None,
    num_classes: int,
    num_skips: int,
) -> str:
    """What leaving out skips costs, as an HTML table.

    each: levels, and the label map without their skips. full: the answer with all skips. All are uint8 (H, W).
    """

    def miou(label_map: np.ndarray) -> float:
        counts = ConfusionMatrix(num_classes)
        counts.update(truth, label_map)
        return counts.miou()

    found = [
        {
            "levels": sorted(levels),
            "agreement": (label_map == full).mean(),
            "miou": None if truth is None else (miou(label_map), miou(full)),
        }
        for levels, label_map in each
    ]
    return render("ablations", found=found, num_skips=num_skips)
