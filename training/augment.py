"""Augmented crops of a training split, made in batches on the device."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from unet.bundle import Preprocessing
from unet.metrics import IGNORE_INDEX

from .dataset import DataError, Pairs


@dataclass(frozen=True)
class Augmentation:
    """How much a training picture may be changed; the default is what served every task.

    scale: smallest and largest zoom. flip: mirror left and right. rotate: also upside down and by quarters, for
    pictures without an up. color: spread of gain, contrast, saturation and each channel's gain.
    """

    scale: tuple[float, float] = (0.6, 1.8)
    flip: bool = True
    rotate: bool = False
    color: float = 0.25


class PixelStore:
    """A split's pictures and label maps, decoded once, as uint8 on one device, whatever their sizes.

    All pixels lie back to back in one tensor (P, 4): red, green, blue, label. A batch is one gather from it, so that
    cropping, zooming, turning and mirroring a whole batch costs a few tensor operations on whatever device this is.
    Pixels that memory does not hold lie in a file: a batch reads the rows of its crops, and is bit for bit the same.

    cache: folder for that file, which is built once; None keeps all pixels in memory. pairs must be ``Pairs`` for it.
    limit: bytes of pixels that are kept in memory; None is half of what is free.
    Raises DataError where the file cannot be written.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[np.ndarray, np.ndarray]],
        working_pixels: int | None,
        device: str | torch.device,
        *,
        cache: Path | None = None,
        limit: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        preprocessing = Preprocessing((0, 0, 0), (1, 1, 1), working_pixels)
        if isinstance(pairs, Pairs):
            sizes = [pairs.size(i) for i in range(len(pairs))]
        else:
            sizes = [image.shape[:2] for image, _ in pairs]
        self.sizes = torch.tensor([preprocessing.working_size(size) for size in sizes])
        areas = self.sizes.prod(dim=1)
        self.offsets = areas.cumsum(0) - areas
        shape = (int(areas.sum()), 4)
        limit = _free_memory(self.device) // 2 if limit is None else limit
        self.on_disk = cache is not None and math.prod(shape) > limit
        if self.on_disk:
            path = _pixel_file(pairs, preprocessing, cache, math.prod(shape))
            # Nothing is ever written to it, but torch wants an array that it could write to, and a mapping that is not
            # shared with the file counts as memory: one larger than the machine's is refused.
            self.pixels = torch.from_numpy(np.memmap(path, np.uint8, "r+", shape=shape))
        else:
            pixels = np.empty(shape, np.uint8)
            for offset, part in zip(self.offsets.tolist(), _read_pixels(pairs, preprocessing), strict=True):
                pixels[offset : offset + len(part)] = part
            self.pixels = torch.from_numpy(pixels).to(self.device)
        self._counts = _count_values(self.pixels)
        #: Of these pictures: the mean and deviation of each channel over all their pixels.
        self.preprocessing = Preprocessing(*self._statistics(), working_pixels)

    def __len__(self) -> int:
        return len(self.sizes)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all pixels, in 0..255."""
        means, deviations = [], []
        for channel in self._counts[:3].tolist():
            # In whole numbers, so that no order of summing matters.
            n, total, squares = (sum(count * value**power for value, count in enumerate(channel)) for power in range(3))
            means.append(total / n)
            deviations.append(max(1.0, math.sqrt((n * squares - total**2) / (n * max(1, n - 1)))))
        return tuple(means), tuple(deviations)

    def class_shares(self, num_classes: int) -> Tensor:
        """float64 (num_classes,): each class's share of the pixels that are not void."""
        counts = self._counts[3, :num_classes].double()
        return counts / counts.sum().clamp(min=1)

    def batch(
        self,
        indices: Tensor,
        size: tuple[int, int],
        *,
        margin: int = 0,
        augmentation: Augmentation,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Crops of the pictures at ``indices`` (N,), each augmented in its own way.

        size: (h, w) of what is labelled. margin: pixels that the picture reaches beyond it on each side.
        generator: on the CPU, so that every device draws the same.
        Returns images, float32 (N, 3, h + 2 margin, w + 2 margin) in 0..255, mirrored beyond the picture's border, and
        labels, int64 (N, h, w), IGNORE_INDEX beyond it.
        """
        n, device = len(indices), self.device
        matrix = _random_matrices(n, augmentation, generator)
        image_size = self.sizes[indices].double()
        # Half the window, seen in the picture: its middle is drawn so that it stays inside, where it fits.
        reach = (matrix.abs() @ (torch.tensor(size, dtype=torch.double) / 2)).minimum(image_size / 2)
        middle = reach + (image_size - 2 * reach) * _uniform((n, 2), generator)
        matrix, middle = matrix.float().to(device), middle.float().to(device)
        bounds = self.sizes[indices].to(device)

        rows, columns = _grid(size, margin, matrix, middle)
        pixels, offsets = self._rows_of_disk(indices, rows) if self.on_disk else (self.pixels, self.offsets[indices])
        offsets = offsets.to(device)
        images = _bilinear(pixels, rows, columns, bounds, offsets)
        if margin:
            rows, columns = (x[:, margin:-margin, margin:-margin] for x in (rows, columns))
        labels = _nearest_label(pixels, rows, columns, bounds, offsets)
        images = _jitter_colors(images, augmentation.color, generator)
        return images.permute(0, 3, 1, 2), labels

    def _rows_of_disk(self, indices: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of the pictures at ``indices``, only what the positions ``rows`` (N, h, w) need of them.

        Returns their pixels back to back on the device, (Q, 4), and where in them each picture's first row would be.
        """
        heights, widths = self.sizes[indices].unbind(dim=1)
        mirrored = _mirror(rows, heights.to(rows.device).view(-1, 1, 1)).flatten(1)
        first, last = mirrored.amin(dim=1).long().cpu(), mirrored.amax(dim=1).long().cpu()
        stop = (last + 2).minimum(heights)  # between two rows both are needed
        parts = [
            self.pixels[offset + start * width : offset + end * width]
            for offset, start, end, width in zip(
                *(x.tolist() for x in (self.offsets[indices], first, stop, widths)), strict=True
            )
        ]
        lengths = (stop - first) * widths
        return torch.cat(parts).to(self.device), lengths.cumsum(0) - lengths - first * widths


def _read_pixels(pairs: Sequence[tuple[np.ndarray, np.ndarray]], preprocessing: Preprocessing) -> Iterator[np.ndarray]:
    """Each picture at its working size, as uint8 (h * w, 4): red, green, blue, label."""
    for image, labels in tqdm(pairs, "reading", leave=False, disable=None):
        image = preprocessing.resize(image)
        h, w, _ = image.shape
        labels = np.asarray(Image.fromarray(labels).resize((w, h), Image.Resampling.NEAREST))
        yield np.dstack([image, labels]).reshape(-1, 4)


def _pixel_file(pairs: Pairs, preprocessing: Preprocessing, folder: Path, size: int) -> Path:
    """The file of ``size`` bytes with all pixels of ``pairs``; written now, unless it is there. Raises DataError."""
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in (*pairs.images, *pairs.annotations)]
    colors = pairs.palette.colors.tolist() if pairs.palette else None
    known_by = (files, pairs.binary, pairs.void, colors, pairs.ambiguous, preprocessing.working_pixels)
    path = folder / f"pixels-{hashlib.sha256(repr(known_by).encode()).hexdigest()[:16]}.bin"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("pixels-*"):  # by a killed run, or of a set as it was
            left.unlink()
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with partial.open("wb") as file:
            for part in _read_pixels(pairs, preprocessing):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())  # a disk may notice as late as here that it is full
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"memory does not hold the pixels of all {len(pairs)} training pictures, and the {size / 1e9:.1f} GB could "
            f"not be written to {folder} ({error.strerror}); free some space there, name another place with --runs, or "
            "make the pictures smaller with --working-pixels"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _free_memory(device: torch.device) -> int:
    """Bytes that are free on ``device`` and in main memory, through which everything goes."""
    free = psutil.virtual_memory().available
    container = Path("/sys/fs/cgroup/memory.max")
    if container.exists() and (limit := container.read_text().strip()) != "max":
        free = min(free, int(limit))
    return min(free, torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free


def _count_values(pixels: Tensor) -> Tensor:
    """int64 (4, 256), on the CPU: how often each value occurs in each column of uint8 (P, 4)."""
    counts = torch.zeros(4 * 256, dtype=torch.long, device=pixels.device)
    columns = 256 * torch.arange(4, dtype=torch.int32, device=pixels.device)
    for part in pixels.split(1 << 20):
        counts += torch.bincount((part + columns).flatten(), minlength=4 * 256)
    return counts.view(4, 256).cpu()


def _bilinear(pixels: Tensor, rows: Tensor, columns: Tensor, bounds: Tensor, offsets: Tensor) -> Tensor:
    """float32 (N, h, w, 3) at fractional positions (N, h, w), mirrored at the border."""

    def rgb(index: Tensor) -> Tensor:
        return pixels.index_select(0, index.reshape(-1)).view(*index.shape, 4)[..., :3].float()

    height, width = (bounds[:, axis].view(-1, 1, 1) for axis in (0, 1))
    rows, columns = _mirror(rows, height), _mirror(columns, width)
    top, left = rows.long(), columns.long()
    bottom, right = (top + 1).minimum(height - 1), (left + 1).minimum(width - 1)
    down, across = (rows - top).unsqueeze(-1), (columns - left).unsqueeze(-1)
    top, bottom = (offsets.view(-1, 1, 1) + y * width for y in (top, bottom))
    upper = torch.lerp(rgb(top + left), rgb(top + right), across)
    lower = torch.lerp(rgb(bottom + left), rgb(bottom + right), across)
    return torch.lerp(upper, lower, down)


def _nearest_label(pixels: Tensor, rows: Tensor, columns: Tensor, bounds: Tensor, offsets: Tensor) -> Tensor:
    """int64 (N, h, w) at fractional positions (N, h, w), IGNORE_INDEX outside."""
    height, width = (bounds[:, axis].view(-1, 1, 1) for axis in (0, 1))
    row, column = rows.round().long(), columns.round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = (offsets.view(-1, 1, 1) + row * width + column).where(inside, 0)
    return torch.where(inside, pixels[:, 3][index].long(), IGNORE_INDEX)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.double)


def _random_matrices(n: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """float64 (N, 2, 2): from a step in the crop (row, column) to the step in the picture."""
    low, high = (math.log(s) for s in augmentation.scale)
    zoom = (low + (high - low) * _uniform((n,), generator)).exp()
    flip_rows, flip_columns, transpose = (_uniform((3, n), generator) < 0.5).unbind()
    signs = torch.ones(n, 2, dtype=torch.double)
    if augmentation.flip:
        signs[flip_columns, 1] = -1
    if augmentation.rotate:
        signs[flip_rows, 0] = -1
    matrix = torch.diag_embed(signs / zoom[:, None])
    if augmentation.rotate:
        matrix[transpose] = matrix[transpose].flip(-1)
    return matrix


def _grid(size: tuple[int, int], margin: int, matrix: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (N, h, w) in the picture, row and column, in pixels from the first pixel's centre."""
    steps = [torch.arange(-margin, n + margin, device=middle.device) - (n - 1) / 2 for n in size]
    down, across = torch.meshgrid(*steps, indexing="ij")
    return tuple(
        matrix[:, axis, 0].view(-1, 1, 1) * down
        + matrix[:, axis, 1].view(-1, 1, 1) * across
        + (middle[:, axis] - 0.5).view(-1, 1, 1)
        for axis in (0, 1)
    )


def _mirror(position: Tensor, length: Tensor) -> Tensor:
    """Fold positions into 0..length-1, mirrored at the border pixels' centres."""
    last = (length - 1).float()
    period = (2 * last).clamp(min=1)
    folded = position.remainder(period)
    return folded.minimum(period - folded).clamp(min=0).minimum(last)


def _jitter_colors(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """(N, h, w, 3) in 0..255: each picture gets its own gain, contrast, saturation and colour cast."""
    n = len(images)
    draw = (1 + strength * (2 * _uniform((n, 6), generator) - 1)).float().to(images.device)
    gain, contrast, saturation, cast = draw[:, 0], draw[:, 1], draw[:, 2], 1 + (draw[:, 3:] - 1) / 2
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast.view(-1, 1, 1, 1))
    images = torch.lerp(images.mean(dim=3, keepdim=True), images, saturation.view(-1, 1, 1, 1))
    return (images * (gain[:, None] * cast).view(-1, 1, 1, 3)).clamp(0, 255)
