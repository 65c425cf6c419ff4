"""Tiles whose logits equal the whole picture's.

An unpadded network gets the paper's overlap-tile strategy: a mirrored margin around the picture, and tiles that overlap
by what the convolutions lose (Ronneberger 2015, figure 2). A padded one gets a halo as wide as its receptive field, cut
off at the picture's border, where the whole picture has its zero padding too. Tiles start at multiples of the network's
stride, so that poolings fall on the same pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .model import UNetConfig

#: Side of a tile in working pixels. Larger wastes less on margins and halos; memory grows with the square.
TILE = 512
#: Logits are interpolated for this many pixels at a time, so that they stay in a processor's cache: for eight times as
#: many, this part takes almost three times as long.
STRIP_PIXELS = 1 << 17


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    pixels: of the picture, labelled by this tile. window: of the working picture; their logits are interpolated. read:
    of the working picture, fed to the network; positions outside of 0..working length are mirrored. answer: where the
    window lies in the network's output. lower, upper, weight: the two neighbours of every pixel in the window, and the
    weight of the upper one.
    """

    pixels: slice
    window: range
    read: range
    answer: slice
    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, pixels: slice, length: int, working_length: int, config: UNetConfig) -> Span:
        """The span for ``pixels`` of a side of ``length``."""
        lower, upper, weight = _neighbours(pixels, length, working_length)
        start = int(lower[0]) // config.stride * config.stride
        window = range(start, int(upper[-1]) + 1)
        read, skipped = _read_window(window, working_length, config)
        answer = slice(skipped, skipped + len(window))
        return cls(pixels, window, read, answer, lower - start, upper - start, weight)

    def part(self, start: int, stop: int) -> Span:
        """The same run, for some of its pixels."""
        pixels = slice(self.pixels.start + start, min(self.pixels.start + stop, self.pixels.stop))
        indices = {name: getattr(self, name)[start:stop] for name in ("lower", "upper", "weight")}
        return dataclasses.replace(self, pixels=pixels, **indices)

    def resample(self, logits: Tensor, dim: int, *, first: int = 0) -> Tensor:
        """Interpolate logits along ``dim``, from ``first`` in the window."""
        # The arithmetic for a pixel is the same in every tile.
        lower, upper = self.lower - first, self.upper - first
        if np.array_equal(lower, range(logits.shape[dim])) and not self.weight.any():
            return logits
        lower, upper = (torch.from_numpy(index).to(logits.device) for index in (lower, upper))
        weight = torch.from_numpy(self.weight).to(logits.device).view([-1 if d == dim else 1 for d in range(3)])
        return torch.lerp(logits.index_select(dim, lower), logits.index_select(dim, upper), weight)


@dataclass(frozen=True)
class Tile:
    """One run of the network."""

    rows: Span
    columns: Span

    @property
    def input_size(self) -> tuple[int, int]:
        """(h, w) of the network's input."""
        return len(self.rows.read), len(self.columns.read)

    def read(self, working: np.ndarray) -> np.ndarray:
        """The network's input, (*input_size, 3), mirrored at the border."""
        return mirrored(working, self.rows.read, self.columns.read)

    def strips(self) -> Iterator[Tile]:
        """The same run in strips of about STRIP_PIXELS."""
        height, width = (len(span.lower) for span in (self.rows, self.columns))
        step = max(1, STRIP_PIXELS // width)
        for start in range(0, height, step):
            yield dataclasses.replace(self, rows=self.rows.part(start, start + step))

    def resample(self, logits: Tensor) -> Tensor:
        """Interpolate the window's logits (C, h, w) at the pixels."""
        # Picking columns is slow: do it first, while there are few rows. A strip needs no more of them than these.
        first, last = int(self.rows.lower[0]), int(self.rows.upper[-1])
        logits = self.columns.resample(logits[:, first : last + 1], dim=2)
        return self.rows.resample(logits, dim=1, first=first)


@dataclass(frozen=True)
class Layout:
    """The tiles of a picture, in reading order.

    size: (h, w) of the picture. working_size: (h, w) at which the network works.
    """

    size: tuple[int, int]
    working_size: tuple[int, int]
    tiles: tuple[Tile, ...]

    @classmethod
    def of(cls, size: tuple[int, int], working_size: tuple[int, int], tile: int, config: UNetConfig) -> Layout:
        """Cut into tiles of at most ``tile`` working pixels.

        Raises ValueError for a tile smaller than the network's stride.
        """
        if tile < config.stride + 2:
            raise ValueError(f"a tile must be at least {config.stride + 2} pixels for this network, got {tile}")
        tile = tile // config.stride * config.stride
        rows, columns = (_cut(*lengths, tile, config) for lengths in zip(size, working_size, strict=True))
        return cls(size, working_size, tuple(Tile(row, column) for row in rows for column in columns))

    def tile_at(self, row: int, column: int) -> Tile:
        """The tile that labels this pixel of the picture."""
        return next(t for t in self.tiles if row < t.rows.pixels.stop and column < t.columns.pixels.stop)

    @property
    def middle(self) -> Tile:
        """The tile that labels the middle of the picture."""
        return self.tile_at(self.size[0] // 2, self.size[1] // 2)


def mirrored(image: np.ndarray, rows: range, columns: range) -> np.ndarray:
    """Rows and columns, mirrored at the border pixels' centres."""
    indices = []
    for positions, length in zip((rows, columns), image.shape, strict=False):
        period = max(1, 2 * (length - 1))
        folded = np.arange(positions.start, positions.stop) % period
        indices.append(np.minimum(folded, period - folded))
    return image[np.ix_(*indices)]


def _cut(length: int, working_length: int, tile: int, config: UNetConfig) -> list[Span]:
    """Cut an axis into spans of at most ``tile``."""
    lower, upper, _ = _neighbours(slice(0, length), length, working_length)
    spans, first = [], 0
    while first < length:
        stop = int(lower[first]) // config.stride * config.stride + tile
        last = int(np.searchsorted(upper, stop))
        spans.append(Span.of(slice(first, last), length, working_length, config))
        first = last
    return spans


def fed_length(length: int, config: UNetConfig) -> int:
    """Pixels fed along a side cut into tiles."""
    tile = TILE // config.stride * config.stride
    whole = (length - 1) // tile  # tiles before the last
    if config.padded:
        halo = _round_up(config.receptive_radius, config.stride)
        return _round_up(length, config.stride) + 2 * halo * whole
    last, full = config.input_size((length - whole * tile, tile))
    return whole * full + last


def _neighbours(pixels: slice, length: int, working_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two working pixels around each, and weights."""
    # Pixel centres, as torch's align_corners=False and Pillow have them; the outermost half pixels repeat the border.
    position = (np.arange(pixels.start, pixels.stop) + 0.5) * (working_length / length) - 0.5
    position = position.clip(0, working_length - 1)
    lower = np.floor(position).astype(np.int64)
    weight = (position - lower).astype(np.float32)
    return lower, lower + (weight > 0), weight


def _read_window(window: range, working_length: int, config: UNetConfig) -> tuple[range, int]:
    """The working pixels to feed, and logits before the window."""
    if config.padded:
        # Zero padding must fall where the whole picture has it (its border, after padding to whole strides), never
        # inside: so a halo of at least the receptive radius, ended at that border.
        whole = _round_up(working_length, config.stride)
        halo = _round_up(config.receptive_radius, config.stride)
        start = max(0, window.start - halo)
        return range(start, min(whole, _round_up(window.stop, config.stride) + halo)), window.start - start
    start = window.start - config.margin
    return range(start, start + config.input_size((len(window), 1))[0]), 0


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
