"""Drawings of networks and of tiles.

Their colours come from the page: maps from ``--accent``, all else from the text around. Shapes are channels × height ×
width.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
    """Draw a network for inputs (h, w), as SVG.

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
        kept = f", cropped to {shape_text(_cropped(level))}," if _rim(level) else ""
        sentences.append(
            f"Level {i}: the encoder’s {shape_text(level.encoder)}{kept} is {how} the decoder’s "
            f"{shape_text(level.decoder)}."
        )
    return " ".join([*sentences, f"Bottleneck: {shape_text(bottleneck.encoder)}."])


def _cropped(level: LevelShapes) -> Shape:
    """Of the encoder's map, what crop keeps."""
    return level.encoder[0], *level.decoder[1:]


def _rim(level: LevelShapes) -> int:
    """Pixels of the encoder's map cropped on each side."""
    return (level.encoder[1] - level.decoder[1]) // 2


def _element(tag: str, *content: str, **attributes: float | str) -> str:
    """An SVG element; numbers have one decimal."""
    said = "".join(
        f' {name.strip("_").replace("_", "-")}="{value if isinstance(value, str) else f"{value:.1f}"}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{said}>{''.join(content)}</{tag}>"


def _points(corners: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


class _Row(NamedTuple):
    """Where a level lies: text, maps, turn of arrows."""

    text: float
    middle: float
    turn: float


class _NetworkDrawing:
    def __init__(self, config: UNetConfig, size: tuple[int, int], without_skips: frozenset[int]) -> None:
        self.config, self.size, self.without_skips = config, size, without_skips
        self.levels = config.level_shapes(size)
        self.most_channels = max(shape[0] for level in self.levels for shape in level if shape)
        self.bottleneck = len(self.levels) - 1
        self.join_first = config.join == "before_block"
        self.parts: list[str] = []

        # Skips begin beside the widest encoder block, and leave room for the bottleneck between both sides.
        entering = (config.in_channels, *config.widths)[: max(1, self.bottleneck)]
        skip_start = _GUTTER + max(self._width(n) + self._block_width(i) for i, n in enumerate(entering))
        self.skip_end = skip_start + max(_SKIP, self._block_width(self.bottleneck) + 10)
        self.middle = (skip_start + self.skip_end) / 2  # of the skips' front views

        rows, decoders, y = [], [0.0], 12.0
        for i, level in enumerate(self.levels):
            over = 6 if self.join_first else 10  # room for the skip to pass over the decoder's block
            half = max(self._height(level.encoder[1]), 0 if i == self.bottleneck else _FRONT) / 2
            text = y + 17
            middle = text + over + half
            y = middle + half + (24 if i < self.bottleneck else 8)
            rows.append(_Row(text, middle, y))
            if i < self.bottleneck:
                stacks = [level.joined[0]] if config.skip == "add" else [level.encoder[0], level.decoder[0]]
                join = 2 * _RADIUS + 4 + sum(map(self._width, stacks))
                # Where the join comes last, the up-convolution's map has a place of its own.
                decoders.append(self._block_width(i) + join + (0 if self.join_first else 4 + self._width(level.up[0])))
        self.rows = rows
        self.right_edge = self.skip_end + max(decoders) + _GAP + self._width(config.num_outputs) + _GUTTER

    def svg(self, name: str) -> str:
        self._head(*self._decoder(*self._encoder()))
        width, height = self.right_edge, self.rows[-1].turn
        words = escape(network_words(self.config, self.size, name=name))
        return (
            f'<svg class="network-drawing" viewBox="0 0 {width:.0f} {height:.0f}" role="group" aria-label="{words}" '
            f'style="max-width:{1.5 * width:.0f}px">{"".join(self.parts)}</svg>'
        )

    # ---- pieces

    def _width(self, channels: int) -> float:
        return max(_THINNEST, _WIDEST * channels / self.most_channels)

    def _height(self, h: int) -> float:
        return max(_LOWEST, _TALLEST * h / self.size[0])

    def _block_width(self, level: int) -> float:
        return self.config.convolutions * (_GAP + self._width(self.config.widths[level]))

    def _map(self, x: float, y: float, shape: Shape, title: str, kind: str = "") -> float:
        """Draw feature maps -> their right edge."""
        w, h = self._width(shape[0]), self._height(shape[1])
        said = _element("title", f"{title}: {shape_text(shape)}")
        self.parts.append(_element("rect", said, class_=f"map {kind}", x=x, y=y - h / 2, width=w, height=h, rx="1"))
        return x + w

    def _arrow(self, *points: Point, title: str, kind: str = "flow") -> None:
        """Draw an arrow of level and upright legs."""
        (x0, y0), (x, y) = points[-2:]
        dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
        tip = [(x, y), (x - 5 * dx - 3 * dy, y - 5 * dy - 3 * dx), (x - 5 * dx + 3 * dy, y - 5 * dy + 3 * dx)]
        line, head = _element("polyline", points=_points(points)), _element("polygon", points=_points(tip))
        self.parts.append(_element("g", _element("title", title), line, head, class_=kind))

    def _text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        self.parts.append(_element("text", text, class_=kind, x=x, y=y, text_anchor=anchor))

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
        """Draw from the encoder's end to the join."""
        level, y, middle, cut = self.levels[i], self.rows[i].middle, self.middle, i in self.without_skips
        scale = min(_FRONT / level.encoder[1], _FRONT_WIDEST / level.encoder[2])

        def front(kind: str, h: float, w: float) -> str:
            return _element("rect", class_=kind, x=middle - w / 2, y=y - h / 2, width=w, height=h)

        start, end = (middle + sign * level.encoder[2] * scale / 2 for sign in (-1, 1))
        kept = f", of which crop keeps {shape_text(_cropped(level))}" if _rim(level) else ""
        title = f"Skip of level {i}: {'zeros instead of ' if cut else ''}{shape_text(level.encoder)}{kept}"
        kind, does = ("skip cut", "put its skip back") if cut else ("skip", "leave its skip out")
        drawn = [
            _element("title", f"{title}. Click to {does}"),
            front("target", 54, 60),
            _element("polyline", points=_points([(x + 1, y), (start, y)])),
            front("away", *(scale * side for side in level.encoder[1:])),
            front("kept", *(scale * side for side in level.decoder[1:])),
        ]
        if cut:
            drawn.append(_element("path", class_="cross", d=f"M{middle - 9:.1f},{y - 9:.1f}l18,18m0,-18l-18,18"))
        button = {"role": "button", "tabindex": "0", "aria_pressed": str(cut).lower()}
        label = f"Level {i}: {does}"
        self.parts.append(_element("g", *drawn, class_=f"{kind} switch", data_level=str(i), aria_label=label, **button))
        caption = "zeros" if cut else f"crop {_rim(level)} a side" if _rim(level) else "nothing cropped"
        self._text(middle, y + _FRONT / 2 + 12, caption, "middle", "small")
        if self.join_first:
            path = [(end, y), (self.skip_end - 1, y)]
        else:
            bend, over = self.skip_end - 8, self.rows[i].text + 5
            join = self.skip_end + self._width(level.up[0]) + self._block_width(i) + 4 + _RADIUS
            path = [(end, y), (bend, y), (bend, over), (join, over), (join, y - _RADIUS - 1)]
        self._arrow(*path, title=title, kind=kind)

    def _join(self, x: float, y: float, level: LevelShapes) -> float:
        """Draw a join's sign and result -> its end."""
        added, r = self.config.skip == "add", _RADIUS
        strokes = f"M{x + r - 4.5:.1f},{y:.1f}h9m-4.5,-4.5v9" if added else f"M{x + r - 2:.1f},{y - 4:.1f}v8m4,0v-8"
        title = "Added, number by number" if added else "Concatenated: one stack behind the other"
        circle, sign = _element("circle", cx=x + r, cy=y, r=f"{r}"), _element("path", d=strokes)
        self.parts.append(_element("g", _element("title", title), circle, sign, class_="sign"))
        x += 2 * r + 4
        if added:
            return self._map(x, y, level.joined, "The sum of both", "sum")
        x = self._map(x, y, _cropped(level), "The encoder’s, in front", "copied")
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
        """Draw the right side, from below -> its end."""
        for i in range(self.bottleneck - 1, -1, -1):
            level, row, start = self.levels[i], self.rows[i], self.skip_end
            up = start + (_RADIUS if self.join_first else self._width(level.up[0]) / 2)
            foot = row.middle + (_RADIUS if self.join_first else self._height(level.up[1]) / 2) + 1
            edge = self.right_edge - 4
            way = [(up, y)] if i == self.bottleneck - 1 else [(edge, y), (edge, row.turn), (up, row.turn)]
            self._arrow((x + 1, y), *way, (up, foot), title="Up-convolution 2 × 2: twice as high, twice as wide")
            self._text(up - 5, row.turn + 4, "up-conv", "end", "small")
            y = row.middle
            if self.join_first:
                x = self._block(self._join(start, y, level), y, level.joined, self.config.widths[i])
            else:
                x = self._map(start, y, level.up, "After the up-convolution")
                x = self._join(self._block(x, y, level.up, self.config.widths[i]) + 4, y, level)
            self._text(self.right_edge - _GUTTER, row.text, shape_text(level.output), "end")
        return x, y

    def _head(self, x: float, y: float) -> None:
        start = (self.config.in_channels, *self.size)
        end = (self.config.num_outputs, *self.config.output_size(self.size))
        title = "Head, a 1 × 1 convolution: one number a class and pixel"
        self._arrow((x + 1, y), (x + _GAP - 1, y), title=title)
        self._map(x + _GAP, y, end, title, "input")
        self._text(_GUTTER, 11, f"in {shape_text(start)}", kind="small")
        self._text(self.right_edge - _GUTTER, 11, f"head 1 × 1, out {shape_text(end)}", "end", "small")


def tiling(layout: Layout, tile: Tile, working: np.ndarray) -> str:
    """Draw a picture's tiles over it, as SVG.

    Tiles are thin lines, ``tile`` is framed, what is read for it dashed. working: uint8 (h, w, 3), the picture at
    ``layout.working_size``; beyond it lies what the network reads there, the mirrored picture, paler.
    """
    (h, w), first, last = layout.working_size, layout.tiles[0], layout.tiles[-1]
    rows = range(min(0, first.rows.read.start), max(h, last.rows.read.stop))
    columns = range(min(0, first.columns.read.start), max(w, last.columns.read.stop))
    picture = data_uri(Image.fromarray(shrink(mirrored(working, rows, columns), _TILING_PIXELS)), "webp")
    values = {"rows": rows, "columns": columns, "picture": picture, "words": _tile_words}
    return render("tiling", layout=layout, tile=tile, **values)


def _tile_words(tile: Tile) -> str:
    window = len(tile.rows.window), len(tile.columns.window)
    return f"reads {shape_text(tile.input_size)} pixels to answer {shape_text(window)}"


def tiling_facts(layout: Layout, tile: Tile, config: UNetConfig) -> str:
    """What `tiling` shows, in two sentences."""
    rows, columns = len({t.rows.window for t in layout.tiles}), len({t.columns.window for t in layout.tiles})
    many = len(layout.tiles) > 1
    cut = f"cut into {rows} × {columns} tiles. For the framed one the network" if many else "in one tile. The network"
    shrunk = "" if layout.size == layout.working_size else f" instead of {shape_text(layout.size)}"
    if config.margin:
        around = f", with a margin of {config.margin} on each side, mirrored beyond the border"
    elif many:
        around = f", with a halo, because it sees {config.receptive_radius} pixels far, and zeros at the border"
    else:
        around = ", with zeros at the border"
    return f"Seen at {shape_text(layout.working_size)} pixels{shrunk}, {cut} {_tile_words(tile)}{around}."
