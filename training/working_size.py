"""Choose the working size from the labelled regions.

residual-add sees 33 pixels in every direction: at full size it would know the streets of CamVid by their texture. For
streets and hands, whose regions are large, trials favour sizes about those that come out here; nuclei and blood vessels
are small or thin, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from unet.images import sample, view_size
from unet.metrics import IGNORE_INDEX

MAP_PIXELS = 512 * 512  # to which a label map is sampled
MAX_REGION_SHARE = 0.5  # a class that covers a larger share of all pixels is the background of the others


def sample_indices(n: int, most: int = 50) -> list[int]:
    """Indices of ``most`` pictures, evenly spaced over n."""
    return np.linspace(0, n - 1, min(most, n)).round().astype(int).tolist()


def suitable_pixels(label_maps: Iterable[np.ndarray], receptive_radius: int) -> int | None:
    """Pixels that pictures should have; None is all.

    label_maps: uint8 (H, W). receptive_radius: how far the network sees. The typical region, such that half of all that
    is labelled belongs to larger ones, becomes as large as what it sees across; no picture is made larger for that.
    """
    maps, pixels = [], []
    for label_map in label_maps:
        pixels.append(label_map.size)
        maps.append(sample(label_map, view_size(label_map.shape, MAP_PIXELS)))
    counts = sum(np.bincount(label_map.reshape(-1), minlength=256) for label_map in maps)[:IGNORE_INDEX]
    things = np.flatnonzero((counts > 0) & (counts <= MAX_REGION_SHARE * counts.sum()))
    found = [_regions(label_map == thing) for label_map in maps for thing in things]
    if not found:
        return None
    sizes, areas = (np.concatenate(values) for values in zip(*found, strict=True))
    order = sizes.argsort()
    covered = areas[order].cumsum()
    typical = sizes[order][np.searchsorted(covered, covered[-1] / 2)]
    suitable = round(((2 * receptive_radius + 1) / typical) ** 2, -2)
    return int(suitable) if suitable < np.median(pixels) else None


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Size and area of each region, as shares of the picture.

    The size is the side of the square of the same area; of a region that is long and thin, four times its width.
    """
    numbers, n = ndimage.label(mask)
    area = np.bincount(numbers.reshape(-1), minlength=n + 1)
    perimeter = np.zeros(n + 1)
    for here, there in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
        edge = here != there
        perimeter += np.bincount(here[edge], minlength=n + 1) + np.bincount(there[edge], minlength=n + 1)
    area, perimeter = area[1:], perimeter[1:].clip(min=1)
    # The perimeter of a strip is its area over half its width.
    return np.minimum(area**0.5, 8 * area / perimeter) / mask.size**0.5, area / mask.size
