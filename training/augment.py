"""Augmented crops, made in batches on the device."""

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
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from unet.bundle import Preprocessing
from unet.metrics import IGNORE_INDEX

from .dataset import DataError, Pairs


@dataclass(frozen=True)
class Augmentation:
    """How much training pictures are changed.

    scale: smallest and largest zoom. flip: mirror left and right. rotate: also upside down and by quarters, for
    pictures without an up. color: spread of gain, contrast, saturation and each channel's gain.
    """

    scale: tuple[float, float] = (0.6, 1.8)
    flip: bool = True
    rotate: bool = False
    color: float = 0.25


class PixelStore:
    """A split's pictures and label maps, decoded once.

    All pixels lie back to back in one uint8 tensor (P, 4): red, green, blue, label. A batch is one gather from it.
    pairs: ``Pairs``, or without a cache any sequence. cache: folder of the file that holds the pixels, of which the
    system keeps in memory what fits; None keeps all. A GPU holds the pixels if half of its free memory suffices.
    Raises DataError where the file cannot be written.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[np.ndarray, np.ndarray]],
        working_pixels: int | None,
        device: str | torch.device,
        *,
        cache: Path | None = None,
    ) -> None:
        self.device = torch.device(device)
        resizing = Preprocessing((0, 0, 0), (1, 1, 1), working_pixels)
        on_disk = isinstance(pairs, Pairs)
        self.names = [path.name for path in pairs.images] if on_disk else [str(i) for i in range(len(pairs))]
        sizes = map(pairs.size, range(len(pairs))) if on_disk else (image.shape[:2] for image, _ in pairs)
        self.sizes = torch.tensor([resizing.working_size(size) for size in sizes])
        areas = self.sizes.prod(dim=1)
        self.offsets = areas.cumsum(0) - areas
        shape = (int(areas.sum()), 4)
        if cache is None:
            pixels = np.concatenate(list(_read_pixels(pairs, resizing)))
        else:
            # Never written to, but a mapping that is not shared with its file would count as memory.
            pixels = np.memmap(_pixel_file(pairs, resizing, cache, math.prod(shape)), np.uint8, "r+", shape=shape)
        self.pixels = torch.from_numpy(pixels)
        if self.device.type != "cuda" or pixels.nbytes <= torch.cuda.mem_get_info(self.device)[0] // 2:
            self.pixels = self.pixels.to(self.device)
        *channels, self._label_counts = _count_values(self.pixels)
        mean, std = zip(*map(_mean_and_deviation, channels), strict=True)
        self.preprocessing = Preprocessing(mean, std, working_pixels)

    def __len__(self) -> int:
        return len(self.sizes)

    def class_shares(self, num_classes: int) -> Tensor:
        """float64 (num_classes,): shares of pixels that are not void."""
        counts = self._label_counts[:num_classes].double()
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
        """Augmented crops of the pictures at ``indices`` (N,).

        size: (h, w) of the labels. margin: pixels by which the images are larger on each side.
        generator: on the CPU, so that all devices draw the same numbers.
        Returns images, float32 (N, 3, h + 2 margin, w + 2 margin) in 0..255, mirrored beyond the picture's border, and
        labels, int64 (N, h, w), IGNORE_INDEX beyond it.
        """
        n, device = len(indices), self.pixels.device
        matrix = _random_matrices(n, augmentation, generator)
        image_size = self.sizes[indices].double()
        # Half the window, seen in the picture: its middle is drawn so that it stays inside, where it fits.
        reach = (matrix.abs() @ (torch.tensor(size, dtype=torch.double) / 2)).minimum(image_size / 2)
        middle = reach + (image_size - 2 * reach) * _uniform((n, 2), generator)
        rows, columns = _grid(size, margin, matrix.float().to(device), middle.float().to(device))
        pictures = torch.column_stack([self.sizes, self.offsets])[indices].to(device).view(n, 3, 1, 1).unbind(1)
        images = _bilinear(self.pixels, rows, columns, *pictures).to(self.device)
        inner = slice(margin, -margin or None)
        labels = _nearest_label(self.pixels, rows[:, inner, inner], columns[:, inner, inner], *pictures)
        images = _jitter_colors(images, augmentation.color, generator)
        return images.permute(0, 3, 1, 2), labels.to(self.device)


def _read_pixels(pairs: Sequence[tuple[np.ndarray, np.ndarray]], resizing: Preprocessing) -> Iterator[np.ndarray]:
    """Pictures with labels, uint8 (h * w, 4) each."""
    for image, labels in tqdm(pairs, "reading", leave=False, disable=None):
        image = resizing.resize(image)
        h, w, _ = image.shape
        labels = np.asarray(Image.fromarray(labels).resize((w, h), Image.Resampling.NEAREST))
        yield np.dstack([image, labels]).reshape(-1, 4)


def _pixel_file(pairs: Pairs, resizing: Preprocessing, folder: Path, size: int) -> Path:
    """The file of all pixels, written where missing."""
    known_by = (pairs.fingerprint(), resizing.working_pixels)
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
            file.writelines(_read_pixels(pairs, resizing))
            file.flush()
            os.fsync(file.fileno())  # a disk may notice as late as here that it is full
        return partial.replace(path)
    except OSError as error:
        raise DataError(
            f"the pixels of the {len(pairs)} training pictures, {size / 1e9:.1f} GB, could not be written to {folder} "
            f"({error.strerror}); free some space there, name another place with --runs, or make the pictures smaller "
            "with --working-pixels"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _count_values(pixels: Tensor) -> Tensor:
    """Histograms int64 (4, 256) of uint8 (P, 4)."""
    counts = torch.zeros(4 * 256, dtype=torch.long, device=pixels.device)
    columns = 256 * torch.arange(4, dtype=torch.int32, device=pixels.device)
    for part in pixels.split(1 << 18):
        counts += torch.bincount((part + columns).flatten(), minlength=4 * 256)
    return counts.view(4, 256).cpu()


def _mean_and_deviation(counts: Tensor) -> tuple[float, float]:
    """Mean and deviation of 0..255, by their counts."""
    # In whole numbers, so that no order of summing matters.
    n, total, squares = (sum(k * value**power for value, k in enumerate(counts.tolist())) for power in range(3))
    return total / n, max(1.0, math.sqrt((n * squares - total**2) / (n * max(1, n - 1))))


def _bilinear(pixels: Tensor, rows: Tensor, columns: Tensor, height: Tensor, width: Tensor, offset: Tensor) -> Tensor:
    """Colours at fractional positions, mirrored at the border.

    rows, columns: (N, h, w). height, width, offset: (N, 1, 1), of the pictures. Returns float32 (N, h, w, 3).
    """

    def rgb(row: Tensor, column: Tensor) -> Tensor:
        index = row * width + column + offset
        return pixels.index_select(0, index.reshape(-1)).view(*index.shape, 4)[..., :3].float()

    rows, columns = _mirror(rows, height), _mirror(columns, width)
    top, left = rows.long(), columns.long()
    bottom, right = (top + 1).minimum(height - 1), (left + 1).minimum(width - 1)
    down, across = (rows - top).unsqueeze(-1), (columns - left).unsqueeze(-1)
    upper, lower = (torch.lerp(rgb(row, left), rgb(row, right), across) for row in (top, bottom))
    return torch.lerp(upper, lower, down)


def _nearest_label(
    pixels: Tensor, rows: Tensor, columns: Tensor, height: Tensor, width: Tensor, offset: Tensor
) -> Tensor:
    """Labels at fractional positions, IGNORE_INDEX outside."""
    row, column = rows.round().long(), columns.round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = (row * width + column + offset).where(inside, 0)
    return torch.where(inside, pixels[:, 3][index].long(), IGNORE_INDEX)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.double)


def _random_matrices(n: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """From crops to pictures: float64 (N, 2, 2)."""
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
    """Positions of the crops in their pictures."""
    steps = [torch.arange(-margin, n + margin, device=middle.device) - (n - 1) / 2 for n in size]
    down, across = torch.meshgrid(*steps, indexing="ij")
    return tuple(
        step[:, 0, None, None] * down + step[:, 1, None, None] * across + start[:, None, None]
        for step, start in zip(matrix.unbind(1), (middle - 0.5).unbind(1), strict=True)
    )


def _mirror(position: Tensor, length: Tensor) -> Tensor:
    """Mirror positions at the border pixels' centres."""
    last = (length - 1).float()
    period = (2 * last).clamp(min=1)
    folded = position.remainder(period)
    return folded.minimum(period - folded).clamp(min=0).minimum(last)


def _jitter_colors(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Randomly change the colours of (N, h, w, 3)."""
    n = len(images)
    draw = (1 + strength * (2 * _uniform((n, 6), generator) - 1)).float().to(images.device)
    gain, contrast, saturation, cast = draw[:, 0], draw[:, 1], draw[:, 2], 1 + (draw[:, 3:] - 1) / 2
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast.view(-1, 1, 1, 1))
    images = torch.lerp(images.mean(dim=3, keepdim=True), images, saturation.view(-1, 1, 1, 1))
    return (images * (gain[:, None] * cast).view(-1, 1, 1, 3)).clamp(0, 255)
