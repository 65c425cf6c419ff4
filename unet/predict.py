"""Segment pictures of any size, in bounded memory."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .bundle import Bundle
from .images import as_rgb
from .model import Join, UNet
from .tiling import TILE, Layout, Span, Tile, fed_length

#: Levels whose skip carries zeros; 0 is full resolution.
Levels = Collection[int]
#: Called after each tile with (tiles done, number of tiles).
Progress = Callable[[int, int], object]
#: Below this, tiles hardly need less memory: crop-concat is fed 184 pixels more a side than it answers.
SMALLEST_TILE = 64
#: What a thin picture may cost, beside a square one of as many pixels; cut into smaller tiles, it may be twice.
THIN = 1.8


@dataclass(frozen=True)
class Segmentation:
    """A segmented picture.

    label_map: uint8 (H, W), class indices. confidence: float32 (H, W), the probability of that class.
    palette: uint8 (k, 3). seconds: wall-clock time from the picture to this. device: what it ran on, "cpu" say.
    note: a sentence for the user where memory was too short; else empty.
    """

    label_map: np.ndarray
    confidence: np.ndarray
    class_names: tuple[str, ...]
    palette: np.ndarray
    seconds: float
    device: str
    note: str = ""

    def shares(self) -> np.ndarray:
        """Share of the picture by class, float64 (k,)."""
        counts = np.bincount(self.label_map.reshape(-1), minlength=len(self.class_names))
        return counts / self.label_map.size


@dataclass(frozen=True)
class TestTimeAugmentation:
    """Average over flipped and scaled views of a picture.

    As DeepLab does (Chen et al. 2017, arXiv 1706.05587): the mean of the softmax of each view's logits at the picture's
    size. flip: also with left and right exchanged. scales: the working size times each of these.
    """

    __test__ = False  # pytest takes the name for a test

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
    averaging: several views a picture, which takes as many times as long; None is one view.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
        averaging: TestTimeAugmentation | None = None,
    ) -> None:
        self.bundle = bundle
        self.averaging = averaging or TestTimeAugmentation(flip=False, scales=(1.0,))
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
    def load(cls, source: str | Path, *, revision: str | None = None, **options: Any) -> Segmenter:
        """Load a bundle's folder, or "user/name" on the Hub.

        revision: branch, tag or commit. options: device, precision, averaging, as for `Segmenter`.
        Raises BundleError for a bundle that is missing, damaged or not this project's.
        """
        if not Path(source).exists() and str(source).count("/") == 1:
            from .hub import fetch_bundle  # only who loads from the Hub pays for its import

            source = fetch_bundle(str(source), revision=revision)
        return cls(Bundle.load(source), **options)

    def __call__(
        self, image: np.ndarray, *, tile: int = TILE, without_skips: Levels = (), progress: Progress | None = None
    ) -> Segmentation:
        """Segment uint8 (H, W, 3), or a Pillow image in RGB.

        tile: side of a tile in working pixels. Where the device has too little memory, smaller tiles are tried, then
        the CPU: the same result, with a note.
        Raises ValueError for another array, a tile smaller than the network's stride, and a level without a skip, and
        torch.OutOfMemoryError if the CPU has too little memory, too.
        """
        image = as_rgb(image)
        start = time.perf_counter()
        segmenter, smaller, note = self, tile, ""
        while True:
            try:
                labels, confidence = segmenter._segment(image, smaller, without_skips, progress)
                break
            except torch.OutOfMemoryError:
                if segmenter.device.type == "cpu" and smaller < 2 * SMALLEST_TILE:
                    raise
            # Not in the clause above: the exception holds the frames it came through, and they hold tensors.
            if smaller >= 2 * SMALLEST_TILE:
                smaller //= 2
            else:
                segmenter, smaller = self._on_the_cpu(), tile
            tiles = f"tiles of {tile} pixels: {smaller} were used"
            what = tiles if segmenter is self else "this picture: the CPU segmented it"
            note = f"There was too little GPU memory for {what}, which takes longer."
        seconds = time.perf_counter() - start
        self._has_run = True
        names, palette = self.bundle.class_names, self.bundle.palette
        return Segmentation(labels, confidence, names, palette, seconds, segmenter.device.type, note)

    def _segment(
        self, image: np.ndarray, tile: int, without_skips: Levels, progress: Progress | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels uint8 (H, W) and confidences float32 (H, W)."""
        label_map = np.empty(image.shape[:2], np.uint8)
        confidence = np.empty(image.shape[:2], np.float32)
        for rows, columns, logits in self.tiles(image, tile=tile, without_skips=without_skips, progress=progress):
            probability, label = decide(logits, self.bundle.temperature)
            label_map[rows, columns] = label.cpu().numpy()
            confidence[rows, columns] = probability.cpu().numpy()
        return label_map, confidence

    def _on_the_cpu(self) -> Segmenter:
        """A copy on the CPU; the next picture may fit again."""
        with torch.device("meta"):
            net = UNet(self.net.config)
        net.load_state_dict({name: value.cpu() for name, value in self.net.state_dict().items()}, assign=True)
        bundle = dataclasses.replace(self.bundle, net=net)
        return Segmenter(bundle, device="cpu", precision=self._precision, averaging=self.averaging)

    def warm_up(self) -> None:
        """Run once: first runs also set up kernels and memory."""
        if not self._has_run:
            self(np.zeros((96, 128, 3), np.uint8))

    def layout(self, size: tuple[int, int], *, tile: int = TILE, scale: float = 1.0) -> Layout:
        """The tiles for a picture of ``size`` (h, w).

        scale: of the working size. Raises ValueError as a call does.
        """
        return Layout.of(size, self._working_size(size, scale), tile, self.net.config)

    def tiles(
        self, image: np.ndarray, *, tile: int = TILE, without_skips: Levels = (), progress: Progress | None = None
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Run every tile; options as for a call.

        Yields (rows, columns, logits float32 (C, h, w)) that cover the picture exactly once.
        """
        image, config = as_rgb(image), self.net.config
        size = h, w = image.shape[:2]
        views = []  # pictures as the network sees them, and whether left and right are exchanged
        for scale in self.averaging.scales:
            working = self.working_picture(image, scale=scale)
            views += [(working, False), (np.fliplr(working), True)][: 2 if self.averaging.flip else 1]
        # Cut where the largest view needs it; the others need less of theirs for the same pixels.
        parts = self.layout(size, tile=tile, scale=max(self.averaging.scales)).tiles
        for done, part in enumerate(parts, 1):
            rows, columns = part.rows.pixels, part.columns.pixels
            mirrored = slice(w - columns.stop, w - columns.start)
            view_tiles, outputs = [], []
            for working, flipped in views:
                across = Span.of(mirrored if flipped else columns, w, working.shape[1], config)
                view_tiles.append(Tile(Span.of(rows, h, working.shape[0], config), across))
                outputs.append(self.run(working, view_tiles[-1], without_skips=without_skips))
            for strips in zip(*(view_tile.strips() for view_tile in view_tiles), strict=True):
                logits = [strip.resample(output) for strip, output in zip(strips, outputs, strict=True)]
                upright = [x.flip(2) if flipped else x for x, (_, flipped) in zip(logits, views, strict=True)]
                yield strips[0].rows.pixels, columns, _average(upright)
            if progress is not None:
                progress(done, len(parts))

    def working_picture(self, image: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
        """Resize uint8 (H, W, 3) to the scaled working size."""
        image = as_rgb(image)
        return self.bundle.preprocessing.resize(image, self._working_size(image.shape[:2], scale))

    def _working_size(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        """The size (h, w) that the network sees.

        Margins around a row of pixels are most of what a network is fed. A thin picture is shrunk, in its shape as far
        as whole pixels go, until it costs at most THIN times a square picture of as many pixels.
        """
        preprocessing, config = self.bundle.preprocessing, self.net.config
        working_size = preprocessing.working_size(size, scale=scale)
        square = math.isqrt(size[0] * size[1])
        side, _ = preprocessing.working_size((square, square), scale=scale)
        limit, longest = THIN * fed_length(side, config) ** 2, max(working_size)

        def shrunk(length: int) -> tuple[int, int]:
            return tuple(max(1, round(n * length / longest)) for n in working_size)

        def cost(length: int) -> int:
            return math.prod(fed_length(n, config) for n in shrunk(length))

        if cost(longest) <= limit:
            return working_size
        return shrunk(bisect.bisect_right(range(1, longest + 1), limit, key=cost))

    def run(
        self,
        working: np.ndarray,
        tile: Tile,
        *,
        without_skips: Levels = (),
        watch: Callable[[Join], None] | None = None,
    ) -> Tensor:
        """Logits of one tile's window, float32 (C, h, w).

        They equal the whole picture's. working: of `working_picture`. watch: as for `UNet.forward`.
        """
        x = torch.from_numpy(tile.read(working)).to(self.device).permute(2, 0, 1)[None]
        x = self.bundle.preprocessing.normalise(x).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.net(x, without_skips=without_skips, watch=watch)[0].float()
        return logits[:, tile.rows.answer, tile.columns.answer]


def _average(views: Sequence[Tensor]) -> Tensor:
    """Logits (C, h, w) of the views' mean probabilities."""
    if len(views) == 1:
        return views[0]
    # Two classes share one logit: as the second of two, beside 0, it has the same softmax.
    pairs = [F.pad(logits, (0, 0, 0, 0, 1, 0)) if len(logits) == 1 else logits for logits in views]
    total = functools.reduce(torch.logaddexp, [logits.log_softmax(dim=0) for logits in pairs])
    return total[1:] - total[:1] if len(total) == 2 else total


def decide(logits: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Probability and index, uint8, of the likeliest class.

    logits: (C, ...). temperature: divides the logits, which changes the probability and never the class.
    """
    if logits.shape[0] == 1:  # two classes share one logit
        return (logits[0].abs() / temperature).sigmoid(), (logits[0] > 0).to(torch.uint8)
    best, label = logits.max(dim=0)
    return ((logits - best) / temperature).exp_().sum(dim=0).reciprocal_(), label.to(torch.uint8)


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is not emulated, which is slow."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # PyTorch for Apple's processors is built without mkldnn.
    mkldnn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
