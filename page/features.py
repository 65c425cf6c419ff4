"""What a skip connection carries, and what a network answers without it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from page.diagram import data_uri
from page.formatting import percent
from page.overlay import signed_view
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


# ---- HTML ------------------------------------------------------------------------------------------------------------


def joins(features: SkipFeatures, *, count: int = 6) -> str:
    """The strongest channels at a join, as HTML.

    Added: a card a channel, its three maps on one scale, so that what is seen adds up. Concatenated: the encoder's
    cards in front, then the decoder's; each map on its own scale. What crop cuts away is paler.
    """
    return _sums(features, count) if features.skip == "add" else _stack(features, count)


def _sums(features: SkipFeatures, count: int) -> str:
    cards = []
    for channel, _ in features.strongest(count):
        maps = features.encoder[channel], features.decoder[channel], features.joined[channel]
        scale = max(_scale(values) for values in maps)
        encoder, decoder, joined = (
            _feature_image(values, scale, features, f"{what}, channel {channel}")
            for values, what in zip(maps, ("Encoder", "Decoder", "Sum"), strict=True)
        )
        cards.append(
            f'<figure class="sum">{encoder}<b>+</b>{decoder}<b>=</b>{joined}<figcaption>channel {channel}</figcaption>'
            "</figure>"
        )
    channels = len(features.joined)
    return (
        f'<div class="joins"><p class="row-name"><span>encoder</span> + <span>decoder</span> = <span>joined</span>: '
        f"{channels} + {channels} channels become {channels}</p>"
        f'<div class="cards">{"".join(cards)}</div></div>'
    )


def _stack(features: SkipFeatures, count: int) -> str:
    sides = []
    for maps, chosen, offset, what in (
        (features.encoder, features.strongest(count)[:, 0], 0, "encoder"),
        (features.decoder, features.strongest(count)[:, 1], len(features.encoder), "decoder"),
    ):
        cards = "".join(
            f"<figure>{_feature_image(maps[c], _scale(maps[c]), features, f'{what.capitalize()}, channel {c}')}"
            f"<figcaption>channel {c + offset}</figcaption></figure>"
            for c in chosen
        )
        place = f"channels {offset} to {offset + len(maps) - 1} of what is joined"
        sides.append(f'<p class="row-name"><span>{what}</span>: {place}</p><div class="cards">{cards}</div>')
    return f'<div class="joins">{"".join(sides)}</div>'


def _scale(values: np.ndarray) -> float:
    """The magnitude that is drawn brightest.

    The outermost half percent is left out, so that one pixel hides no other.
    """
    return float(np.quantile(np.abs(values), 0.995))


def _feature_image(values: np.ndarray, scale: float, features: SkipFeatures, title: str) -> str:
    """Draw one map (h, w) as an <img>, to scale beside the encoder's.

    The rim that crop cuts away from the encoder's own is paler.
    """
    picture = signed_view(values, scale)
    h, w = features.decoder.shape[1:]
    if values.shape != (h, w):
        top, left = (values.shape[0] - h) // 2, (values.shape[1] - w) // 2
        paler = np.rint(picture * 0.45 + 255 * 0.25).astype(np.uint8)
        paler[top : top + h, left : left + w] = picture[top : top + h, left : left + w]
        picture = paler
    share = 100 * values.shape[1] / features.encoder.shape[2]
    text = escape(f"{title}: from {values.min():.2f} to {values.max():.2f}; brightest at ±{scale:.2f}")
    address = data_uri(shrink(picture, _MAP_PIXELS), "png")
    return f'<img src="{address}" alt="{text}" title="{text}" style="width:{share:.1f}%">'


def ablations(found: Sequence[Ablation], num_skips: int) -> str:
    """What leaving out skips costs, as an HTML table."""
    scored = any(entry.miou for entry in found)
    rows = []
    for entry in found:
        name = "all" if len(entry.levels) == num_skips > 1 else ", ".join(map(str, entry.levels))
        share = percent(entry.agreement)
        miou = f"<td>{percent(entry.miou[0])} <small>of {percent(entry.miou[1])}</small></td>" if entry.miou else ""
        rows.append(
            f'<tr><th scope="row">{name}</th><td><span class="bar"><i style="width:{100 * entry.agreement:.1f}%"></i>'
            f"</span>{share}</td>{miou}</tr>"
        )
    head = '<th scope="col">Without level</th><th scope="col">Agrees with its full answer on</th>'
    head += '<th scope="col">mIoU</th>' if scored else ""
    return f'<table class="ablations"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
