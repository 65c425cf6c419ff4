"""Drawings of networks and of tiles.

SVG and HTML that take their colours from the page: text and lines from the text around them, maps from ``--accent``.
Everything is drawn from the configuration and the arrays at hand, for any number of levels and any widths, and so
cannot be out of date. Shapes are written channels × height × width.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from page.components import render
from page.views import data_uri
from unet.images import shrink
from unet.model import LevelShapes, UNetConfig
from unet.tiling import Layout, Tile, mirrored

Shape = tuple[int, int, int]
Point = tuple[float, float]

# In units of a drawing about as wide as a phone, so that its text is read there at its own size.
_TALLEST, _LOWEST = 62, 5  # height of the side view of a level's maps, at full resolution and at least
_WIDEST, _THINNEST = 24, 3  # width of the side view of the stack with the most channels, and of one channel
_GAP = 11  # from one map to the next, with the arrow of a convolution
_FRONT = 42  # height of the front view on a skip
_FRONT_WIDEST = 52
_SKIP = 92  # least length of a skip, which has a line of text under its front view
_GUTTER = 14  # where the arrows from level to level run
_RADIUS = 8  # of the sign at a join

_TILING_PIXELS = 250_000  # of the picture inside a drawing, at most


def network(config: UNetConfig, size: tuple[int, int], *, name: str, without_skips: Collection[int] = ()) -> str:
    """Draw a network for an input of ``size`` (h, w), as SVG.

    Maps are seen from the side: as wide as they have channels, as high as they are high. The rectangle on a skip is the
    encoder's map from the front, to scale; the filled part is what crop keeps. Skips of ``without_skips`` are crossed
    out. Raises ValueError for a size that does not fit and for a level without a skip.
    """
    config.check_skips(without_skips)
    return _NetworkDrawing(config, size, frozenset(without_skips)).svg(name)


def shape_text(shape: Sequence[int]) -> str:
    """(64, 568, 568) -> "64 × 568 × 568"."""
    return " × ".join(map(str, shape))


def network_words(config: UNetConfig, size: tuple[int, int], *, name: str) -> str:
    """What the drawing shows, for who cannot see it."""
    *levels, bottleneck = config.level_shapes(size)
    start, end = (config.in_channels, *size), (config.num_outputs, *config.output_size(size))
    how = "added to" if config.skip == "add" else "concatenated with"
    sentences = [f"{name}: {shape_text(start)} goes in, {shape_text(end)} comes out."]
    for i, level in enumerate(levels):
        kept = f", cropped to {shape_text(level.encoder[:1] + level.decoder[1:])}," if _rim(level) else ""
        sentences.append(
            f"Level {i}: the encoder’s {shape_text(level.encoder)}{kept} is {how} the decoder’s "
            f"{shape_text(level.decoder)}."
        )
    return " ".join([*sentences, f"Bottleneck: {shape_text(bottleneck.encoder)}."])


def _rim(level: LevelShapes) -> int:
    """Pixels of the encoder's map that crop cuts away on each side."""
    return (level.encoder[1] - level.decoder[1]) // 2


class _Row(NamedTuple):
    """Where a level lies: text baseline, middle of its maps, turn of its arrows."""

    text: float
    middle: float
    turn: float


class _NetworkDrawing:
    def __init__(self, config: UNetConfig, size: tuple[int, int], without_skips: frozenset[int]) -> None:
        self.config, self.size, self.without_skips = config, size, without_skips
        self.levels = config.level_shapes(size)
        self.most_channels = max(shape[0] for level in self.levels for shape in level if shape)
        self.bottleneck = len(self.levels) - 1
        self.parts: list[str] = []

    def svg(self, name: str) -> str:
        x, y = self._encoder()
        x, y = self._decoder(x, y)
        self._head(x, y)
        width, height = self.right_edge, self.rows[-1].turn
        words = escape(network_words(self.config, self.size, name=name))
        return (
            f'<svg class="network-drawing" viewBox="0 0 {width:.0f} {height:.0f}" role="group" aria-label="{words}" '
            f'style="max-width:{1.5 * width:.0f}px">{"".join(self.parts)}</svg>'
        )

    # ---- where things are

    def _width(self, channels: int) -> float:
        return max(_THINNEST, _WIDEST * channels / self.most_channels)

    def _height(self, h: int) -> float:
        return max(_LOWEST, _TALLEST * h / self.size[0])

    def _block_width(self, level: int) -> float:
        return self.config.convolutions * (_GAP + self._width(self.config.widths[level]))

    def _join_width(self, level: int) -> float:
        parts = 2 if self.config.skip == "concat" else 1
        return 2 * _RADIUS + 4 + parts * self._width(self.config.widths[level])

    @cached_property
    def skip_start(self) -> float:
        """The end of the widest encoder block."""
        widths = (self.config.in_channels, *self.config.widths)
        return _GUTTER + max(self._width(widths[i]) + self._block_width(i) for i in range(max(1, self.bottleneck)))

    @cached_property
    def skip_end(self) -> float:
        """Where all skips end, leaving room for the bottleneck."""
        return self.skip_start + max(_SKIP, self._block_width(self.bottleneck) + 10)

    @property
    def middle(self) -> float:
        """Of the skips' front views."""
        return (self.skip_start + self.skip_end) / 2

    @cached_property
    def right_edge(self) -> float:
        blocks = [self._block_width(i) + self._join_width(i) for i in range(self.bottleneck)]
        if self.config.join == "after_block":  # then the up-convolution's map has a place of its own
            blocks = [4 + width + self._width(self.config.widths[i]) for i, width in enumerate(blocks)]
        return self.skip_end + max(blocks, default=0) + _GAP + self._width(self.config.num_outputs) + _GUTTER

    @cached_property
    def rows(self) -> list[_Row]:
        rows, y = [], 12.0
        over = 10 if self.config.join == "after_block" else 6  # room for the skip to pass over the decoder's block
        for i, level in enumerate(self.levels):
            half = max(self._height(level.encoder[1]), 0 if i == self.bottleneck else _FRONT) / 2
            text = y + 17
            middle = text + over + half
            y = middle + half + (24 if i < self.bottleneck else 8)
            rows.append(_Row(text, middle, y))
        return rows

    # ---- pieces

    def _map(self, x: float, y: float, shape: Shape, title: str, kind: str = "") -> float:
        """Draw a stack of feature maps -> its right edge."""
        w, h = self._width(shape[0]), self._height(shape[1])
        self.parts.append(
            f'<rect class="map {kind}" x="{x:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="1">'
            f"<title>{title}: {shape_text(shape)}</title></rect>"
        )
        return x + w

    def _arrow(self, *points: Point, title: str, kind: str = "flow") -> None:
        """Draw an arrow of level and upright legs."""
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        tip = [(x, y), (x - 5 * dx - 3 * dy, y - 5 * dy - 3 * dx), (x - 5 * dx + 3 * dy, y - 5 * dy + 3 * dx)]
        line, tip = (" ".join(f"{a:.1f},{b:.1f}" for a, b in corners) for corners in (points, tip))
        self.parts.append(
            f'<g class="{kind}"><title>{title}</title><polyline points="{line}"/><polygon points="{tip}"/></g>'
        )

    def _text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>')

    def _block(self, x: float, y: float, start: Shape, width: int) -> float:
        """Draw a block's convolutions -> where they end."""
        count, lost = self.config.convolutions, 0 if self.config.padded else 2
        for i in range(1, count + 1):
            shape = (width, start[1] - i * lost, start[2] - i * lost)
            title = f"Convolution 3 × 3 and ReLU, {i} of {count}"
            self._arrow((x + 1, y), (x + _GAP - 1, y), title=title)
            x = self._map(x + _GAP, y, shape, title)
        return x

    def _skip(self, i: int, x: float) -> None:
        """From the encoder block's end at x across to the join."""
        level, y = self.levels[i], self.rows[i].middle
        scale = min(_FRONT / level.encoder[1], _FRONT_WIDEST / level.encoder[2])
        (outer_h, outer_w), (inner_h, inner_w) = (
            (h * scale, w * scale) for h, w in (level.encoder[1:], level.decoder[1:])
        )
        cut = i in self.without_skips
        kept = f", of which crop keeps {shape_text(level.encoder[:1] + level.decoder[1:])}" if _rim(level) else ""
        title = f"Skip of level {i}: " + ("zeros instead of " if cut else "") + shape_text(level.encoder) + kept
        kind = "skip cut" if cut else "skip"
        does = f"Level {i}: " + ("put its skip back" if cut else "leave its skip out")
        start, end = self.middle - outer_w / 2, self.middle + outer_w / 2
        self.parts.append(
            f'<g class="{kind} switch" data-level="{i}" role="button" tabindex="0" aria-pressed="{str(cut).lower()}" '
            f'aria-label="{does}"><title>{title}. Click to {does.partition(": ")[2]}</title>'
            f'<rect class="target" x="{self.middle - 30:.1f}" y="{y - 27:.1f}" width="60" height="54"/>'
            f'<polyline points="{x + 1:.1f},{y:.1f} {start:.1f},{y:.1f}"/>'
            f'<rect class="away" x="{start:.1f}" y="{y - outer_h / 2:.1f}" width="{outer_w:.1f}" '
            f'height="{outer_h:.1f}"/><rect class="kept" x="{self.middle - inner_w / 2:.1f}" '
            f'y="{y - inner_h / 2:.1f}" width="{inner_w:.1f}" height="{inner_h:.1f}"/>'
            + (f'<path class="cross" d="M{self.middle - 9:.1f},{y - 9:.1f}l18,18m0,-18l-18,18"/>' if cut else "")
            + "</g>"
        )
        caption = "zeros" if cut else f"crop {_rim(level)} a side" if _rim(level) else "nothing cropped"
        self._text(self.middle, y + _FRONT / 2 + 12, caption, "middle", "small")
        if self.config.join == "before_block":
            self._arrow((end, y), (self.skip_end - 1, y), title=title, kind=kind)
        else:
            bend, over = self.skip_end - 8, self.rows[i].text + 5
            join = self.skip_end + self._width(level.up[0]) + self._block_width(i) + 4 + _RADIUS
            path = [(end, y), (bend, y), (bend, over), (join, over), (join, y - _RADIUS - 1)]
            self._arrow(*path, title=title, kind=kind)

    def _join(self, x: float, y: float, level: LevelShapes) -> float:
        """Draw the sign of a join and its result -> where that ends."""
        added, r = self.config.skip == "add", _RADIUS
        strokes = f"M{x + r - 4.5:.1f},{y:.1f}h9m-4.5,-4.5v9" if added else f"M{x + r - 2:.1f},{y - 4:.1f}v8m4,0v-8"
        title = "Added, number by number" if added else "Concatenated: one stack behind the other"
        self.parts.append(
            f'<g class="sign"><title>{title}</title><circle cx="{x + r:.1f}" cy="{y:.1f}" r="{r}"/>'
            f'<path d="{strokes}"/></g>'
        )
        x += 2 * r + 4
        if added:
            return self._map(x, y, level.joined, "The sum of both", "sum")
        x = self._map(x, y, level.encoder[:1] + level.decoder[1:], "The encoder’s, in front", "copied")
        return self._map(x, y, level.decoder, "The decoder’s, behind")

    # ---- the three parts

    def _encoder(self) -> Point:
        """Down the left side -> where the bottleneck ends."""
        shape, leaves = (self.config.in_channels, *self.size), (0.0, 0.0)
        for i, (level, row) in enumerate(zip(self.levels, self.rows, strict=True)):
            x, y = _GUTTER, row.middle
            if i:
                down, turn = leaves[0], self.rows[i - 1].turn
                if i == self.bottleneck:  # straight down, and the bottleneck goes on from there to the other side
                    x = down - self._width(shape[0]) / 2
                    way = [(down, y - self._height(shape[1]) / 2 - 1)]
                else:
                    way = [(down, turn), (4, turn), (4, y), (x - 1, y)]
                self._arrow(leaves, *way, title="Max-pooling 2 × 2: half as high, half as wide")
                self._text(down + 5, turn + 4, "max-pool", kind="small")
            x = self._map(x, y, shape, "After max-pooling" if i else "The picture", "input")
            x = self._block(x, y, shape, self.config.widths[i])
            leaves = (x - self._width(level.encoder[0]) / 2, y + self._height(level.encoder[1]) / 2 + 1)
            if i < self.bottleneck:
                self._text(_GUTTER, row.text, shape_text(level.encoder))
                self._skip(i, x)
            else:
                self._text((leaves[0] + x) / 2 if not i else self.middle, row.text, shape_text(level.encoder), "middle")
            shape = (level.encoder[0], level.encoder[1] // 2, level.encoder[2] // 2)
        return x, y

    def _decoder(self, x: float, y: float) -> Point:
        """Draw the right side, from the bottleneck up -> where it ends."""
        for i in range(self.bottleneck - 1, -1, -1):
            level, row, start = self.levels[i], self.rows[i], self.skip_end
            before = self.config.join == "before_block"
            up = start + (_RADIUS if before else self._width(level.up[0]) / 2)
            foot = row.middle + (_RADIUS if before else self._height(level.up[1]) / 2) + 1
            edge = self.right_edge - 4
            way = [(up, y)] if i == self.bottleneck - 1 else [(edge, y), (edge, row.turn), (up, row.turn)]
            self._arrow((x + 1, y), *way, (up, foot), title="Up-convolution 2 × 2: twice as high, twice as wide")
            self._text(up - 5, row.turn + 4, "up-conv", "end", "small")
            y = row.middle
            if before:
                x = self._block(self._join(start, y, level), y, level.joined, self.config.widths[i])
            else:
                x = self._map(start, y, level.up, "After the up-convolution")
                x = self._join(self._block(x, y, level.up, self.config.widths[i]) + 4, y, level)
            self._text(self.right_edge - _GUTTER, row.text, shape_text(level.output), "end")
        return x, y

    def _head(self, x: float, y: float) -> None:
        start, end = (
            (self.config.in_channels, *self.size),
            (self.config.num_outputs, *self.config.output_size(self.size)),
        )
        title = "Head, a 1 × 1 convolution: one number a class and pixel"
        self._arrow((x + 1, y), (x + _GAP - 1, y), title=title)
        self._map(x + _GAP, y, end, title, "input")
        self._text(_GUTTER, 11, f"in {shape_text(start)}", kind="small")
        self._text(self.right_edge - _GUTTER, 11, f"head 1 × 1, out {shape_text(end)}", "end", "small")


def tiling(layout: Layout, tile: Tile, working: np.ndarray) -> str:
    """Draw how a picture is cut into tiles, as SVG over the picture.

    Tiles are thin lines, ``tile`` is framed, what is read for it dashed. working: uint8 (h, w, 3), the picture at
    ``layout.working_size``; beyond it lies what the network reads there, the mirrored picture, paler.
    """
    rows, columns = (
        range(min(0, *(span.read.start for span in spans)), max(length, *(span.read.stop for span in spans)))
        for spans, length in zip(
            ([t.rows for t in layout.tiles], [t.columns for t in layout.tiles]), layout.working_size, strict=True
        )
    )
    picture = data_uri(Image.fromarray(shrink(mirrored(working, rows, columns), _TILING_PIXELS)), "webp")
    values = {"rows": rows, "columns": columns, "picture": picture, "words": _tile_words}
    return render("tiling", layout=layout, tile=tile, **values)


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _tile_words(tile: Tile) -> str:
    window = len(tile.rows.window), len(tile.columns.window)
    return f"reads {_size_text(tile.input_size)} pixels to answer {_size_text(window)}"


def tiling_facts(layout: Layout, tile: Tile, config: UNetConfig) -> str:
    """What `tiling` shows, in two sentences."""
    rows, columns = len({t.rows.window for t in layout.tiles}), len({t.columns.window for t in layout.tiles})
    many = len(layout.tiles) > 1
    cut = f"cut into {rows} × {columns} tiles. For the framed one the network" if many else "in one tile. The network"
    shrunk = "" if layout.size == layout.working_size else f" instead of {_size_text(layout.size)}"
    if config.margin:
        around = f", with a margin of {config.margin} on each side, mirrored beyond the border"
    elif many:
        around = f", with a halo, because it sees {config.receptive_radius} pixels far, and zeros at the border"
    else:
        around = ", with zeros at the border"
    return f"Seen at {_size_text(layout.working_size)} pixels{shrunk}, {cut} {_tile_words(tile)}{around}."
