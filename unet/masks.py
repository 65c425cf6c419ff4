"""Colour-coded masks: find their classes, label their pixels.

Masks are uint8 (H, W, 3): exact (PNG), or with compression noise and blended edges (JPEG, smooth resizing).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from .colors import ALL_COLORS, codes_of, colors_of
from .images import as_rgb
from .metrics import IGNORE_INDEX
from .palette import Palette

#: How far, in RGB levels (Euclidean), a mask's colour may be from its class's: as much as JPEG and colour profiles
#: shift it. Colours of two classes are often only 40 apart and must not be taken for each other.
SAME_COLOR = 24
#: Farther than this from every class, a pixel of a compressed mask is of none.
OTHER_COLOR = 48

_SMALLEST_CLASS = 2e-5  # of the flat area. At JPEG quality 75 what ringing leaves of other colours stays below 1e-5
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)  # JPEG


def palette_of_masks(
    masks: Iterable[np.ndarray], k: int | None = None, *, names: Mapping[str, Sequence[int]] | None = None
) -> tuple[Palette, str]:
    """Find the colours that are classes, and say why.

    masks: uint8 (H, W, 3) each, read one at a time. The training split only.
    k: how many classes, or None to find out. Of more colours than k the k largest become classes.
    names: {class name: (r, g, b)}. A class within SAME_COLOR of a named colour gets that name and exactly that colour;
        names without such a class are left out.

    Returns the palette, largest area first, and a sentence that says how many classes were found, and why.
    Raises ValueError without masks, without flat pixels, or for k larger than the number of colours found.

    A class is a colour that fills areas: only pixels whose 5x5 neighbourhood is flat (within 8 levels a channel) are
    counted, since blended edges and ringing never fill one. The most frequent colour takes in all within 14 levels,
    then the most frequent of the rest, down to 0.002 % of the flat area. Of exact masks every colour is a class.
    """
    flat, everywhere = np.zeros((2, ALL_COLORS), np.uint32)
    for mask in masks:
        mask = as_rgb(mask)
        np.add.at(flat, codes_of(mask[_spread(mask, 2) <= 8]), np.uint32(1))
        np.add.at(everywhere, codes_of(mask.reshape(-1, 3)), np.uint32(1))
    codes, seen = np.flatnonzero(flat), np.flatnonzero(everywhere)
    if not len(codes):
        raise ValueError("no mask with a flat area was given: colour-coded masks fill areas with one colour each")
    exact = _are_exact(len(seen), len(codes))
    if exact:
        codes, flat = seen, everywhere
    colors, sizes = _modes(colors_of(codes).astype(float), flat[codes].astype(float), radius=0 if exact else 14)
    shares = sizes / flat[codes].sum()
    found = len(colors) if exact else int(np.count_nonzero(shares >= _SMALLEST_CLASS))
    asked, k = k, found if k is None else k
    if k > len(colors):
        few = f"only {len(colors)} colours fill areas in the masks"
        raise ValueError(f"{k} classes were asked for, but {few}; ask for {found}, or leave k out")
    if k > 255:
        raise ValueError(
            f"{k} colours fill areas, but a label map holds 255 classes: these are photos, not colour-coded masks; "
            "if they are masks, give k"
        )
    what = f"found {k} classes" if asked is None else f"{k} classes asked for, {found} found"
    kind = "exact masks" if exact else "masks with compressed or blended edges"
    fill = f"these colours fill {shares[:k].sum():.3%} of the flat area, the smallest of them {shares[k - 1]:.4%}"
    rest = f"the next colour fills {shares[k]:.4%}" if k < len(shares) else "no other colour fills any"
    reason = f"{what}: {kind}, in which {fill}; {rest}"
    colors = np.round(colors[:k]).astype(np.uint8)
    return (_with_names(colors, names) if names else Palette(colors)), reason


def encode_mask(mask: np.ndarray, palette: Palette, *, ambiguous: str = "nearest") -> np.ndarray:
    """Give every pixel of a colour-coded mask its class.

    mask: uint8 (H, W, 3). Returns a label map, uint8 (H, W).
    ambiguous: "nearest" labels every pixel. "ignore" gives IGNORE_INDEX to edge pixels that a second class explains
        about as well, since a wrong label there teaches a wrong outline, and to areas of no class: those farther than
        OTHER_COLOR from every one.

    An exact mask is looked up. In any other, flat pixels get the nearest colour. At an edge a blend of A and B can be
    the very colour of a class C, and JPEG keeps colour at half resolution. So an edge pixel gets the class that
    explains its own brightness and, together with the classes around it, the blurred colour there. On CamVid's labels
    as JPEGs of 256x256, 99.8 % of the pixels are right, with the nearest colour alone 99.3 %, which costs a network's
    mIoU 0.6 points (benchmarks/masks.py).
    """
    if ambiguous not in ("nearest", "ignore"):
        raise ValueError(f'ambiguous is "nearest" or "ignore", got {ambiguous!r}')
    mask = as_rgb(mask)
    label_map = palette.encode(mask)
    distance = color_distance(mask, palette, label_map)
    if not distance.any():
        return label_map
    flat = _spread(mask, 1) <= 32
    other = flat & (distance > OTHER_COLOR)
    edge = ~flat | ((distance > SAME_COLOR) & ~other)
    doubtful = _explain_edges(mask, palette.colors, label_map, np.flatnonzero(edge))
    if ambiguous == "ignore":
        label_map[doubtful | other] = IGNORE_INDEX
    return label_map


def strange_colors(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """Colours of a mask outside the palette, largest first.

    In an exact mask, every colour farther than SAME_COLOR from all of the palette's. In one with compressed or blended
    edges, those farther than OTHER_COLOR that fill areas of 5x5 pixels, together more than a thousandth of the mask: at
    JPEG quality 50 and 4:2:0, ringing between the colours of the palette fills less than a thirtieth of that.
    """
    mask = as_rgb(mask)
    distance = color_distance(mask, palette, palette.encode(mask))
    if not (distance > SAME_COLOR).any():
        return np.empty((0, 3), np.uint8)
    spread, codes = _spread(mask, 2), codes_of(mask.reshape(-1, 3)).reshape(mask.shape[:2])
    filling = len(np.unique(codes[spread <= 8])) or 256  # one as small as a stamp has no areas
    exact = _are_exact(len(np.unique(codes)), filling)
    strange = distance > SAME_COLOR if exact else (distance > OTHER_COLOR) & (spread <= 32)
    if not exact and strange.mean() <= 1e-3:
        return np.empty((0, 3), np.uint8)
    found, counts = np.unique(codes[strange], return_counts=True)
    colors, _ = _modes(colors_of(found).astype(float), counts.astype(float), radius=0 if exact else SAME_COLOR)
    return np.round(colors).astype(np.uint8)


def _with_names(colors: np.ndarray, names: Mapping[str, Sequence[int]]) -> Palette:
    titles = [f"class {i}" for i in range(len(colors))]
    distances = np.linalg.norm(colors[:, None] - np.array(list(names.values()), float), axis=2)
    for j, (name, color) in enumerate(names.items()):
        i = distances[:, j].argmin()
        if distances[i, j] <= SAME_COLOR and distances[i].argmin() == j:  # each is the other's nearest
            titles[i], colors[i] = name, color
    return Palette(colors, tuple(titles))


def _are_exact(distinct: int, filling: int) -> bool:
    """Whether masks with so many colours are exact."""
    # Blended edges have many colours that fill nothing, exact masks at most a few: classes drawn in thin lines.
    return distinct <= min(256, 2 * filling)


def color_distance(mask: np.ndarray, palette: Palette, label_map: np.ndarray) -> np.ndarray:
    """Distance of every pixel from its class's colour."""
    return np.linalg.norm(np.subtract(mask, palette.colors[label_map], dtype=np.float32), axis=2)


def _spread(mask: np.ndarray, radius: int) -> np.ndarray:
    """Range of levels around each pixel, uint8 (H, W)."""
    window = (2 * radius + 1, 2 * radius + 1, 1)
    return (ndimage.maximum_filter(mask, window) - ndimage.minimum_filter(mask, window)).max(axis=2)


def _modes(colors: np.ndarray, counts: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Group colours around frequent ones: means and sizes."""
    left = counts.copy()
    means, sizes = [], []
    while left.any() and len(means) < 400:
        near = ((colors - colors[left.argmax()]) ** 2).sum(1) <= radius**2
        sizes.append(left[near].sum())
        means.append(left[near] @ colors[near] / sizes[-1])
        left[near] = 0
    order = np.lexsort([*np.transpose(means), -np.array(sizes)])
    return np.array(means)[order], np.array(sizes)[order]


def _explain_edges(mask: np.ndarray, colors: np.ndarray, label_map: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Improve the labels of edge pixels in place.

    edge: flat indices. Returns where two classes fit about equally well.

    Minimises, by coordinate descent (iterated conditional modes, Besag 1986), the squared error of luma, plus half of
    that of chroma as 4:2:0 subsampling blurs it, minus 200 for every equal neighbour: weights that did best on masks
    made from street scenes at JPEG quality 75 to 95.
    """
    observed, of_class = mask @ _YCBCR.T, colors @ _YCBCR.T
    luma_cost = (observed.reshape(-1, 3)[edge, :1] - of_class[:, 0]) ** 2
    rows, columns = np.divmod(edge, label_map.shape[1])
    doubtful = np.zeros(label_map.shape, bool)
    label_map.reshape(-1)[edge] = (
        luma_cost + 0.1 * ((observed.reshape(-1, 3)[edge, None, 1:] - of_class[:, 1:]) ** 2).sum(2)
    ).argmin(1)
    for _ in range(4):
        for phase in range(4):  # a quarter of the pixels at a time, so that neighbours do not change together
            now = (rows % 2) * 2 + columns % 2 == phase
            residual = _subsampled(observed[..., 1:] - _subsampled(of_class[label_map][..., 1:]))
            change = of_class[:, 1:] - of_class[label_map.reshape(-1)[edge[now]], None, 1:]
            # What the change does to the squared residuals of all pixels that its blur reaches; 0.15 is the sum of
            # the blur's squared weights. The blur is about symmetric, so that it serves as its own transpose.
            chroma_cost = 0.15 * (change**2).sum(2) - 2 * (change @ residual.reshape(-1, 2)[edge[now], :, None])[..., 0]
            cost = luma_cost[now] + 0.5 * chroma_cost
            around = np.pad(label_map, 1, mode="edge")
            every = np.arange(len(cost))
            for i, j in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)):
                cost[every, around[rows[now] + i, columns[now] + j]] -= 200
            label_map.reshape(-1)[edge[now]] = cost.argmin(1)
            if len(colors) > 1:
                best, second = np.partition(cost, 1, axis=1)[:, :2].T
                doubtful.reshape(-1)[edge[now]] = second - best < 600
    return doubtful


def _subsampled(chroma: np.ndarray) -> np.ndarray:
    """Blur chroma (H, W, 2) as JPEG's 4:2:0 does."""
    h, w = chroma.shape[:2]
    halved = F.avg_pool2d(torch.from_numpy(chroma).permute(2, 0, 1)[None], 2, ceil_mode=True)
    blurred = F.interpolate(halved, scale_factor=2, mode="bilinear")[0, :, :h, :w]
    return blurred.permute(1, 2, 0).numpy()
