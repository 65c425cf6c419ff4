"""A bundle applied to a picture of any size: exact tiles, bounded memory.

A tile's logits equal the whole picture's, for both kinds of network. An unpadded network gets the paper's overlap-tile
strategy: a mirrored margin around the picture, and tiles that overlap by what the convolutions lose (Ronneberger 2015,
figure 2). A padded one gets a halo as wide as its receptive field, cut off at the picture's border, where the whole
picture has its zero padding too. Tiles start at multiples of the network's stride, so poolings fall on the same pixels.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .bundle import Bundle
from .model import Join, UNet, UNetConfig

#: Side of a tile in working pixels. Larger wastes less on margins and halos; memory grows with the square.
TILE = 512
#: Below this, tiles hardly need less memory: crop-concat is fed 184 pixels more a side than it answers.
SMALLEST_TILE = 64
#: What a thin picture may cost, beside a square one of as many pixels; cut into smaller tiles, it may be twice.
THIN = 1.8
#: A network that sees pictures shrunken answers all of a large one in one tile: for about this many pixels at a time,
#: so that their logits stay in a processor's cache. For eight times as many this part takes almost three times as long.
STRIP_PIXELS = 1 << 17


@dataclass(frozen=True)
class Segmentation:
    """A segmented picture.

    label_map: uint8 (H, W), class indices. confidence: float32 (H, W), the probability of that class.
    palette: uint8 (k, 3). seconds: wall-clock time from the picture to this. device: what it ran on, "cpu" say.
    note: a sentence for whoever waited, where memory was too short; else empty.
    """

    label_map: np.ndarray
    confidence: np.ndarray
    class_names: tuple[str, ...]
    palette: np.ndarray
    seconds: float
    device: str
    note: str = ""

    def shares(self) -> np.ndarray:
        """float64 (k,): the share of the picture that each class covers; they sum to 1."""
        counts = np.bincount(self.label_map.reshape(-1), minlength=len(self.class_names))
        return counts / self.label_map.size


@dataclass(frozen=True)
class Averaging:
    """How often the network looks at a picture; the probabilities it gives are averaged, as DeepLab's are.

    (Chen et al. 2017, arXiv 1706.05587: each look's logits are brought to the picture's size, then softmax, then mean.)

    flip: look at it with left and right exchanged, too. scales: look at the working size times each of these.
    """

    flip: bool = True
    scales: tuple[float, ...] = (0.75, 1.0, 1.25)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        if not self.scales or not min(self.scales) > 0:
            raise ValueError(f"scales needs at least one number, all above 0, got {self.scales}")


class Segmenter:
    """Segments pictures with one bundle on one device.

    device: "cpu", "cuda", ... or None for CUDA where there is one with room for the network.
    precision: "float32", "bfloat16" or None for what the hardware does natively (bfloat16 emulated is slower).
    averaging: look several times, which takes that many times as long; None looks once.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
        averaging: Averaging | None = None,
    ) -> None:
        self.bundle = bundle
        self.averaging = averaging or Averaging(flip=False, scales=(1.0,))
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            bundle.net.to(self.device, memory_format=torch.channels_last).eval()
        except torch.OutOfMemoryError:
            if device is not None:
                raise
            self.device = torch.device("cpu")
            bundle.net.to(self.device)  # what had found room already comes back
        self.net = bundle.net
        self._precision = precision
        precision = precision or ("bfloat16" if has_native_bfloat16(self.device) else "float32")
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is {precision!r}; it must be 'float32', 'bfloat16' or None")
        self.dtype = getattr(torch, precision)
        self._has_run = False

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
        averaging: Averaging | None = None,
    ) -> Segmenter:
        """Load a bundle's folder, or the Hub's repository "user/name" at ``revision`` (branch, tag or commit).

        Raises BundleError for a bundle that is missing, damaged or not this project's.
        """
        if not Path(source).exists() and str(source).count("/") == 1:
            from .hub import fetch_bundle  # only who loads from the Hub pays for its import

            source = fetch_bundle(str(source), revision=revision)
        return cls(Bundle.load(source), device=device, precision=precision, averaging=averaging)

    def __call__(
        self,
        image: np.ndarray,
        *,
        tile: int = TILE,
        without_skips: Collection[int] = (),
        progress: Callable[[int, int], object] | None = None,
    ) -> Segmentation:
        """Segment uint8 (H, W, 3).

        tile: side of a tile in working pixels. without_skips: levels whose skip carries zeros, 0 is full resolution:
        what would the network say if it had to do without? progress: called with (tiles done, tiles in all) after each.
        Where the device has too little memory, smaller tiles are tried, then the CPU: the same answer, with a note.
        Raises ValueError for another array, a tile smaller than the network's stride, and a level without a skip, and
        torch.OutOfMemoryError if the CPU has too little memory, too.
        """
        start = time.perf_counter()
        asked, smaller = self, tile
        while True:
            try:
                labels, confidence = asked._answer(image, smaller, without_skips, progress)
                break
            except torch.OutOfMemoryError:
                if asked.device.type == "cpu" and smaller < 2 * SMALLEST_TILE:
                    raise
            # Not in the clause above: the exception holds the frames it came through, and they hold tensors.
            if smaller >= 2 * SMALLEST_TILE:
                smaller //= 2
            else:
                asked, smaller = self._on_the_cpu(), tile
        note = ""
        if asked is not self:
            note = "There was too little GPU memory for this picture: the CPU answered, which takes longer."
        elif smaller < tile:
            note = f"There was too little GPU memory for tiles of {tile} pixels: {smaller} it was, which takes longer."
        seconds = time.perf_counter() - start
        self._has_run = True
        names, palette = self.bundle.class_names, self.bundle.palette
        return Segmentation(labels, confidence, names, palette, seconds, asked.device.type, note)

    def _answer(
        self,
        image: np.ndarray,
        tile: int,
        without_skips: Collection[int],
        progress: Callable[[int, int], object] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels uint8 (H, W) and confidences float32 (H, W), with tiles of this size."""
        label_map = np.empty(image.shape[:2], np.uint8)
        confidence = np.empty(image.shape[:2], np.float32)
        for rows, columns, logits in self.tiles(image, tile=tile, without_skips=without_skips, progress=progress):
            probability, label = decide(logits, self.bundle.temperature)
            label_map[rows, columns] = label.cpu().numpy()
            confidence[rows, columns] = probability.cpu().numpy()
        return label_map, confidence

    def _on_the_cpu(self) -> Segmenter:
        """The same for one picture; a copy, since others may be using this one, and the next picture may fit again."""
        with torch.device("meta"):
            net = UNet(self.net.config)
        net.load_state_dict({name: value.cpu() for name, value in self.net.state_dict().items()}, assign=True)
        bundle = dataclasses.replace(self.bundle, net=net)
        return Segmenter(bundle, device="cpu", precision=self._precision, averaging=self.averaging)

    def warm_up(self) -> None:
        """Run once on a small picture, unless a picture was segmented already.

        A first run also sets up kernels and memory, which its seconds would count; they are meant to be those of any
        later picture.
        """
        if not self._has_run:
            self(np.zeros((96, 128, 3), np.uint8))

    def layout(self, size: tuple[int, int], *, tile: int = TILE, scale: float = 1.0) -> Layout:
        """How a picture of ``size`` (h, w) is cut; `tiles` runs exactly these, unless it looks several times.

        scale: of the working size. Raises ValueError as a call does.
        """
        config = self.net.config
        if tile < config.stride + 2:
            raise ValueError(f"a tile must be at least {config.stride + 2} pixels for this network, got {tile}")
        tile = tile // config.stride * config.stride
        working_size = self._working_size(size, scale)
        rows, columns = (_cut(*lengths, tile, config) for lengths in zip(size, working_size, strict=True))
        return Layout(size, working_size, tuple(Tile(row, column) for row in rows for column in columns))

    def tiles(
        self,
        image: np.ndarray,
        *,
        tile: int = TILE,
        without_skips: Collection[int] = (),
        progress: Callable[[int, int], object] | None = None,
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Cut ``image`` into tiles; yields (rows, columns, logits float32 (C, h, w)) that cover it exactly once.

        progress: as for a call.
        """
        size = image.shape[:2]
        looks = []
        for scale in self.averaging.scales:
            working = self.working_picture(image, scale=scale)
            looks.append(_Look(size, working, flipped=False))
            if self.averaging.flip:
                looks.append(_Look(size, np.fliplr(working), flipped=True))
        # Cut where the largest look needs it; the others need less of theirs for the same pixels.
        parts = self.layout(size, tile=tile, scale=max(self.averaging.scales)).tiles
        for done, part in enumerate(parts, 1):
            seen = [look.tile(part, self.net.config) for look in looks]
            answers = [
                self.run(look.working, its_tile, without_skips=without_skips)
                for look, its_tile in zip(looks, seen, strict=True)
            ]
            for strips in zip(*(its_tile.strips() for its_tile in seen), strict=True):
                each = zip(looks, strips, answers, strict=True)
                logits = _average([look.upright(strip.resample(answer)) for look, strip, answer in each])
                yield strips[0].rows.pixels, part.columns.pixels, logits
            if progress is not None:
                progress(done, len(parts))

    def working_picture(self, image: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (h, w, 3), at the size at which the network works, times ``scale``.

        Raises ValueError as a call.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(
                f"Segmenter needs a uint8 array (H, W, 3), got {image.dtype} {image.shape}; read_image makes one"
            )
        return self.bundle.preprocessing.resize(image, self._working_size(image.shape[:2], scale))

    def _working_size(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        """(h, w) at which the network works: the bundle's, or less where a picture of ``size`` is thin.

        Margins around a row of pixels are most of what a network is fed. A thin picture is shrunk, in its shape as far
        as whole pixels go, until it costs at most THIN times a square picture of as many pixels.
        """
        preprocessing, config = self.bundle.preprocessing, self.net.config
        working_size = preprocessing.working_size(size, scale=scale)
        square = math.isqrt(size[0] * size[1])
        side, _ = preprocessing.working_size((square, square), scale=scale)
        limit, longest = THIN * _fed(side, config) ** 2, max(working_size)

        def shrunk(length: int) -> tuple[int, int]:
            return tuple(max(1, round(n * length / longest)) for n in working_size)

        def cost(length: int) -> int:
            return math.prod(_fed(n, config) for n in shrunk(length))

        if cost(longest) <= limit:
            return working_size
        return shrunk(bisect.bisect_right(range(1, longest + 1), limit, key=cost))

    def run(
        self,
        working: np.ndarray,
        tile: Tile,
        *,
        without_skips: Collection[int] = (),
        watch: Callable[[Join], None] | None = None,
    ) -> Tensor:
        """float32 (C, h, w): what the whole working picture's logits are in this tile's window.

        working: uint8, of `working_picture`. watch: called at every join, as `UNet.forward` does.
        """
        x = torch.from_numpy(tile.read(working)).to(self.device).permute(2, 0, 1)[None]
        x = self.bundle.preprocessing.normalise(x).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.net(x, without_skips=without_skips, watch=watch)[0].float()
        return logits[:, tile.rows.answer, tile.columns.answer]


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    pixels: of the picture, which this tile answers. window: of the working picture, whose logits the answer is
    interpolated from. read: of the working picture, what the network is fed for that; positions outside of
    0..working length are mirrored. answer: where the window lies in the network's output.
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
        """The span that answers ``pixels`` of a side of ``length``; its window starts at a multiple of the stride."""
        lower, upper, weight = _neighbours(pixels, length, working_length)
        start = int(lower[0]) // config.stride * config.stride
        window = range(start, int(upper[-1]) + 1)
        read, skipped = _read_window(window, working_length, config)
        answer = slice(skipped, skipped + len(window))
        return cls(pixels, window, read, answer, lower - start, upper - start, weight)

    def part(self, start: int, stop: int) -> Span:
        """The same run of the network, asked for these of its pixels only, counted from the first of them."""
        pixels = slice(self.pixels.start + start, min(self.pixels.start + stop, self.pixels.stop))
        indices = (index[start:stop] for index in (self.lower, self.upper, self.weight))
        return Span(pixels, self.window, self.read, self.answer, *indices)

    def resample(self, logits: Tensor, dim: int, *, first: int = 0) -> Tensor:
        """Bilinear along ``dim``, with the same arithmetic for a pixel whatever tile it is in.

        first: where in the window the logits begin.
        """
        lower, upper = self.lower - first, self.upper - first
        if np.array_equal(lower, range(logits.shape[dim])) and not self.weight.any():
            return logits
        lower, upper = (torch.from_numpy(index).to(logits.device) for index in (lower, upper))
        weight = torch.from_numpy(self.weight).to(logits.device).view([-1 if d == dim else 1 for d in range(3)])
        return torch.lerp(logits.index_select(dim, lower), logits.index_select(dim, upper), weight)


@dataclass(frozen=True)
class Tile:
    """One run of the network over a part of the picture."""

    rows: Span
    columns: Span

    @property
    def input_size(self) -> tuple[int, int]:
        """(h, w) that the network is fed."""
        return len(self.rows.read), len(self.columns.read)

    def read(self, working: np.ndarray) -> np.ndarray:
        """The working picture (h, w, 3) -> what the network is fed of it, (*input_size, 3), mirrored beyond it."""
        return mirrored(working, self.rows.read, self.columns.read)

    def strips(self) -> Iterator[Tile]:
        """The same run of the network, asked for STRIP_PIXELS of its pixels at a time, or for one row."""
        height, width = (len(span.lower) for span in (self.rows, self.columns))
        step = max(1, STRIP_PIXELS // width)
        for start in range(0, height, step):
            yield dataclasses.replace(self, rows=self.rows.part(start, start + step))

    def resample(self, logits: Tensor) -> Tensor:
        """Logits (C, h, w) of the window -> those of the picture's pixels."""
        # Picking columns is slow: do it first, while there are few rows. A strip needs no more of them than these.
        first, last = int(self.rows.lower[0]), int(self.rows.upper[-1])
        logits = self.columns.resample(logits[:, first : last + 1], dim=2)
        return self.rows.resample(logits, dim=1, first=first)


@dataclass(frozen=True)
class Layout:
    """How a picture is cut: tiles in reading order. size: (h, w). working_size: (h, w) at which the network works."""

    size: tuple[int, int]
    working_size: tuple[int, int]
    tiles: tuple[Tile, ...]

    def tile_at(self, row: int, column: int) -> Tile:
        """The tile that answers this pixel of the picture."""
        return next(t for t in self.tiles if row < t.rows.pixels.stop and column < t.columns.pixels.stop)

    @property
    def middle(self) -> Tile:
        """The tile that answers the middle of the picture."""
        return self.tile_at(self.size[0] // 2, self.size[1] // 2)


@dataclass(frozen=True)
class _Look:
    """The picture, of ``size`` (h, w), as the network sees it once: uint8 (h', w', 3), left and right exchanged or not.

    A look is answered at the picture's pixels, counted in its own direction.
    """

    size: tuple[int, int]
    working: np.ndarray
    flipped: bool

    def tile(self, part: Tile, config: UNetConfig) -> Tile:
        """The tile of this look that answers the same pixels as ``part``, of another look."""
        rows, columns = part.rows.pixels, part.columns.pixels
        if self.flipped:
            columns = slice(self.size[1] - columns.stop, self.size[1] - columns.start)
        return Tile(
            Span.of(rows, self.size[0], self.working.shape[0], config),
            Span.of(columns, self.size[1], self.working.shape[1], config),
        )

    def upright(self, logits: Tensor) -> Tensor:
        """Logits (C, h, w) of this look, in the picture's own direction."""
        return logits.flip(2) if self.flipped else logits


def mirrored(image: np.ndarray, rows: range, columns: range) -> np.ndarray:
    """(H, W, ...) -> (len(rows), len(columns), ...); positions outside are mirrored at the border pixels' centres."""
    return image[np.ix_(_mirror(rows, image.shape[0]), _mirror(columns, image.shape[1]))]


def _cut(length: int, working_length: int, tile: int, config: UNetConfig) -> list[Span]:
    """Cut an axis of ``length`` pixels so that each span needs at most ``tile`` working pixels, from a stride on."""
    lower, upper, _ = _neighbours(slice(0, length), length, working_length)
    spans, first = [], 0
    while first < length:
        stop = int(lower[first]) // config.stride * config.stride + tile
        last = int(np.searchsorted(upper, stop))
        spans.append(Span.of(slice(first, last), length, working_length, config))
        first = last
    return spans


def _fed(length: int, config: UNetConfig) -> int:
    """Pixels that the network is fed along a side of ``length`` working pixels, in tiles of TILE, margins included."""
    tile = TILE // config.stride * config.stride
    whole = (length - 1) // tile  # tiles before the last
    if config.padded:
        halo = _round_up(config.receptive_radius, config.stride)
        return _round_up(length, config.stride) + 2 * halo * whole
    last, full = config.input_size((length - whole * tile, tile))
    return whole * full + last


def _neighbours(pixels: slice, length: int, working_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of these pixels of a side: the working pixels before and after it, and the latter's weight."""
    # Pixel centres, as torch's align_corners=False and Pillow have them; the outermost half pixels repeat the border.
    position = (np.arange(pixels.start, pixels.stop) + 0.5) * (working_length / length) - 0.5
    position = position.clip(0, working_length - 1)
    lower = np.floor(position).astype(np.int64)
    weight = (position - lower).astype(np.float32)
    return lower, lower + (weight > 0), weight


def _read_window(window: range, working_length: int, config: UNetConfig) -> tuple[range, int]:
    """Which working pixels to feed for logits at ``window``, and how many logits to skip before its first."""
    if config.padded:
        # Zero padding must fall where the whole picture has it (its border, after padding to whole strides), never
        # inside: so a halo of at least the receptive radius, ended at that border.
        whole = _round_up(working_length, config.stride)
        halo = _round_up(config.receptive_radius, config.stride)
        start = max(0, window.start - halo)
        return range(start, min(whole, _round_up(window.stop, config.stride) + halo)), window.start - start
    start = window.start - config.margin
    return range(start, start + config.input_size((len(window), 1))[0]), 0


def _mirror(positions: range, length: int) -> np.ndarray:
    """Indices into an axis of ``length`` pixels for positions that may lie beyond it."""
    period = max(1, 2 * (length - 1))
    folded = np.arange(positions.start, positions.stop) % period
    return np.minimum(folded, period - folded) if length > 1 else np.zeros(len(positions), np.int64)


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _average(looks: Sequence[Tensor]) -> Tensor:
    """Logits (C, h, w) whose probabilities are the mean of the looks'; a single look's as they are."""
    if len(looks) == 1:
        return looks[0]
    total = functools.reduce(torch.logaddexp, map(_log_probabilities, looks))
    return total[1:] - total[:1] if len(total) == 2 else total


def _log_probabilities(logits: Tensor) -> Tensor:
    """Logits (C, h, w) -> log-probabilities of all classes, float32 (max(2, C), h, w)."""
    if logits.shape[0] == 1:  # two classes share one logit
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)])
    return logits.log_softmax(dim=0)


def decide(logits: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits (C, ...) -> probability float32 (...) of the likeliest class, and its index uint8 (...).

    temperature: divides the logits, which changes the probability and never the class.
    """
    if logits.shape[0] == 1:  # two classes share one logit
        return (logits[0].abs() / temperature).sigmoid(), (logits[0] > 0).to(torch.uint8)
    best, label = logits.max(dim=0)
    return ((logits - best) / temperature).exp_().sum(dim=0).reciprocal_(), label.to(torch.uint8)


def has_native_bfloat16(device: torch.device) -> bool:
    """Does this hardware multiply bfloat16 itself? Emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
