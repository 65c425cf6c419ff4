"""Label maps, confidence and palettes -> pictures and small pieces of HTML to look at.

Pictures are uint8 (H, W, 3), made at the size they are shown in. HTML is escaped here: a bundle's class names come from
a stranger. Two networks are always told apart by side and by name, never by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .compare import Comparison, disagreement
from .metrics import ConfusionMatrix
from .model import UNetConfig
from .overlay import overlay, unpainted_classes

if TYPE_CHECKING:  # batch draws overlays with this module
    from .batch import Row

# Below zero, zero, above zero: two hues that colour-blind eyes keep apart, on a ground that is dark on any page.
_SIGNED_RAMP = np.array([(84, 214, 200), (20, 22, 28), (255, 196, 77)], np.float32)
# Agreement is shown as a fog over the picture: grey, pulled this far towards this level.
_FOG, _FOG_LEVEL = 0.72, 236

# Rec. 601 luma, as Pillow's "L".
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)

# What each kind of colour blindness sees, in linear RGB (Machado, Oliveira, Fernandes 2009, severity 1).
_COLOR_VISION = np.array(
    [
        np.eye(3),
        [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)],
        [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)],
        [(1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)],
    ]
)
_LINEAR_TO_XYZ = np.array(
    [(0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041)]
)
_ALIKE = 20  # CIE76 distance in Lab below which two colours lying apart are easily mistaken for one


# ---- pictures --------------------------------------------------------------------------------------------------------


def view_size(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """(h, w) of the same shape as ``size`` (h, w) with at most ``max_pixels`` pixels; never larger than ``size``."""
    h, w = size
    if h * w <= max_pixels:
        return h, w
    scale = (max_pixels / (h * w)) ** 0.5
    # The longer side gives way, so that a strip of one pixel's height stays within the limit too.
    if h <= w:
        h = max(1, int(h * scale))
        return h, min(int(w * scale), max_pixels // h) if h > 1 else min(w, max_pixels)
    w, h = view_size((w, h), max_pixels)
    return h, w


def shrink(image: np.ndarray, max_pixels: int) -> np.ndarray:
    """uint8 (H, W, 3) -> at most ``max_pixels`` pixels, each the mean of its area; the same array if small enough."""
    h, w = view_size(image.shape[:2], max_pixels)
    if (h, w) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BOX))


def sample(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, ...) -> (h, w, ...) = ``size`` by the nearest pixel: what labels need, whose means mean nothing."""
    rows, columns = (
        ((np.arange(n) + 0.5) * (length / n)).astype(np.intp) for n, length in zip(size, array.shape[:2], strict=True)
    )
    return array[rows[:, None], columns]


def paint(label_map: np.ndarray, palette: np.ndarray) -> Image.Image:
    """uint8 (H, W), labels below k, and uint8 (k, 3) -> a Pillow picture of k colours, quick to write as PNG."""
    picture = Image.fromarray(label_map)
    picture.putpalette(palette.astype(np.uint8).tobytes())
    return picture


def disagreement_view(
    image: np.ndarray,
    label_map: np.ndarray,
    other: np.ndarray,
    palette: np.ndarray,
    *,
    unpainted: Collection[int] = (),
) -> np.ndarray:
    """What one network says where the other says something else; fog where they agree.

    image: uint8 (H, W, 3). label_map, other: uint8 (H, W). unpainted: classes drawn as the clear picture. Returns uint8
    (H, W, 3). Raises ValueError for two sizes.
    """
    differs = disagreement(label_map, other)
    grey = image.astype(np.float32) @ _LUMA
    fog = np.rint(grey * (1 - _FOG) + _FOG * _FOG_LEVEL).astype(np.uint8)
    said = overlay(image, label_map, palette, opacity=1.0, unpainted=unpainted)
    return np.where(differs[..., None], said, fog[..., None])


def signed_view(values: np.ndarray, scale: float) -> np.ndarray:
    """float (H, W) -> uint8 (H, W, 3): black where zero, teal below and amber above, brightest from ``scale`` on."""
    share = np.clip(values / (scale or 1.0), -1, 1)[..., None]
    below, zero, above = _SIGNED_RAMP
    return np.rint(zero + np.maximum(share, 0) * (above - zero) + np.maximum(-share, 0) * (below - zero)).astype(
        np.uint8
    )


def perceived_distances(palette: np.ndarray) -> np.ndarray:
    """uint8 (k, 3) -> float64 (k, k): CIE76 distance of two colours for the eyes that tell them apart worst."""
    c = palette / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    t = (_COLOR_VISION @ linear.T).clip(0, 1).transpose(0, 2, 1) @ _LINEAR_TO_XYZ.T / _LINEAR_TO_XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=2)
    return np.linalg.norm(lab[:, :, None] - lab[:, None], axis=3).min(axis=0)


def pattern_numbers(palette: np.ndarray) -> list[int]:
    """A pattern for each class of a palette, uint8 (k, 3): 0 is plain, then 1, 2, ...

    As few as do, and never the same for two classes that somebody's eyes take for one.
    """
    alike = perceived_distances(palette) < _ALIKE
    numbers: list[int] = []
    for i in range(len(palette)):
        taken = {number for j, number in enumerate(numbers) if alike[i, j]}
        numbers.append(next(n for n in range(len(palette)) if n not in taken))
    return numbers


# ---- words and numbers -----------------------------------------------------------------------------------------------


def hex_code(color: Sequence[int]) -> str:
    """(r, g, b) in 0..255 -> "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*(int(value) for value in color))


def percent(share: float) -> str:
    """0.3061 -> "30.6 %"; never "0.0 %" for something, nor "100.0 %" for not quite all."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def seconds(duration: float) -> str:
    """Two digits that mean something: "0.07 s", "1.4 s", "38 s"."""
    return f"{duration:.2f} s" if duration < 0.995 else f"{duration:.1f} s" if duration < 9.95 else f"{duration:.0f} s"


def parameters(count: int) -> str:
    """Number of parameters: "0.66 M", "31.0 M"."""
    return f"{count / 1e6:.2f} M" if count < 10e6 else f"{count / 1e6:.1f} M"


# ---- HTML ------------------------------------------------------------------------------------------------------------


def tagline(config: UNetConfig) -> str:
    """How a network joins its skips: "skips are added · convolutions padded"."""
    joined = {"add": "added", "concat": "concatenated"}[config.skip]
    if config.padded:
        return f"skips are {joined} · convolutions padded"
    return f"skips are cropped and {joined} · convolutions unpadded"


def network_headings(
    names: Sequence[str],
    taglines: Sequence[str],
    counts: Sequence[int],
    durations: Sequence[float],
    devices: Sequence[str],
    cards: Sequence[str | None],
) -> str:
    """One heading a side: name, how it joins its skips, parameters, and seconds on which device.

    cards: addresses of the networks' cards; where there is none, a button that says which side's is asked for.
    """
    sides = []
    columns = zip("ab", names, taglines, counts, durations, map(escape, devices), cards, strict=True)
    for side, name, how, count, duration, device, card in columns:
        timed = (
            f"Wall-clock time from the picture to its label map on this machine’s {device}, measured when the picture "
            "was first answered, in a network that had run before"
        )
        if card:
            link = f'<a class="card-link" href="{escape(card)}" target="_blank" rel="noopener">card on the Hub</a>'
        else:
            link = (
                f'<button type="button" class="card-link" data-press="card-{side}" aria-label="Card of {escape(name)}" '
                'title="What this network is, what it was trained on and how well it does">card</button>'
            )
        sides.append(
            f'<div class="network side-{side}"><h3><i></i>{escape(name)}</h3>'
            f'<p class="facts"><span title="{count:,} trained numbers"><b>{parameters(count)}</b> parameters</span>'
            f'<span class="dot"> · </span><span title="{timed}"><b>{seconds(duration)}</b> on the {device}</span>'
            f'<span class="dot"> · </span>{link}</p><p class="tagline">{escape(how)}</p></div>'
        )
    return f'<div class="networks">{"".join(sides)}</div>'


def agreement_bar(agreement: float, colors: int | None) -> str:
    """How much of the picture the two call the same; colors: how many the picture was shown to them in, if not all."""
    shown = f' <span class="aside">shown in {colors} colours</span>' if colors else ""
    return (
        '<div class="agreement"><p title="Pixels to which both give the same class, at the picture’s own size">'
        f"They agree on <b>{percent(agreement)}</b> of the picture{shown}</p>"
        f'<div class="bar" role="img" aria-label="Agreement {percent(agreement)}">'
        f'<i style="width:{100 * agreement:.2f}%"></i></div></div>'
    )


def legend(names: Sequence[str], comparison: Comparison, palette: np.ndarray) -> str:
    """Every class with its colour and the part of the picture that each network gives to it.

    Each is a button; what it does is assets/viewer.js's matter.
    """
    unpainted = unpainted_classes(comparison.class_names)
    items = []
    for i, name in enumerate(comparison.class_names):
        first, second = comparison.shares[:, i]
        swatch = "swatch clear" if i in unpainted else "swatch"
        absent = "" if first or second else " absent"
        title = (
            f"{name}: {names[0]} {percent(first)}, {names[1]} {percent(second)} of the picture. "
            "Click to hide or show it, with Shift to see it alone."
        )
        items.append(
            f'<li><button type="button" class="class{absent}" data-class="{i}" aria-pressed="true" '
            f'title="{escape(title)}">'
            f'<i class="{swatch}" style="--c:{hex_code(palette[i])}"></i><span class="name">{escape(name)}</span>'
            f'<span class="share side-a">{percent(first)}</span><span class="share side-b">{percent(second)}</span>'
            f'<span class="bars"><i class="side-a" style="width:{100 * first:.2f}%"></i>'
            f'<i class="side-b" style="width:{100 * second:.2f}%"></i></span></button></li>'
        )
    head = (
        '<p class="legend-head"><span>Class, and how much of the picture each network gives to it '
        '<button type="button" data-all hidden>show all</button></span>'
        f'<span class="key"><i class="side-a"></i>{escape(names[0])}</span>'
        f'<span class="key"><i class="side-b"></i>{escape(names[1])}</span></p>'
    )
    return f'<div class="legend">{head}<ul>{"".join(items)}</ul></div>'


def score_table(names: Sequence[str], comparison: Comparison) -> str:
    """Both networks against the ground truth; a quiet line where there is none."""
    if comparison.scores is None:
        return '<p class="no-truth">No ground truth for this picture. Add one to see who is right.</p>'
    classes = comparison.class_names
    of_what = f"of “{classes[1]}”" if len(classes) == 2 else "mean over the classes that occur"
    tolerance = comparison.scores[0].tolerance
    pixels = "pixel" if tolerance == 1 else "pixels"
    rows = (
        ("mIoU", "overlap / union, mean over the classes that occur", "miou"),
        ("Dice", f"2 × overlap / (drawn + true), {of_what}", "dice"),
        ("Pixel accuracy", "share of pixels that are right", "pixel_accuracy"),
        ("Boundary F1", f"outlines in the right place, give or take {tolerance} {pixels}", "boundary"),
    )
    body = "".join(
        f'<tr><th scope="row">{label}<small>{escape(what)}</small></th>'
        f"{_score_cells([getattr(scores, attribute) for scores in comparison.scores])}</tr>"
        for label, what, attribute in rows
    )
    return (
        '<table class="scores"><caption>Against the ground truth</caption>'
        f"<thead><tr><td></td>{_side_headers(names)}</tr></thead><tbody>{body}</tbody></table>"
    )


def iou_bars(names: Sequence[str], comparison: Comparison, palette: np.ndarray) -> str:
    """A bar a class and network, as long as its IoU; nothing where there is no ground truth.

    A table for those who hear it. Classes in neither truth nor answer have no IoU, and a dash.
    """
    if comparison.scores is None:
        return ""
    true_pixels = comparison.scores[0].confusion.counts.sum(axis=1)
    true_shares = true_pixels / max(true_pixels.sum(), 1)
    rows = []
    for i, name in enumerate(comparison.class_names):
        ious = [float(scores.iou[i]) for scores in comparison.scores]
        absent = ' class="absent"' if all(map(math.isnan, ious)) else ""
        rows.append(
            f'<tr{absent}><th scope="row"><i class="swatch" style="--c:{hex_code(palette[i])}"></i>'
            f"<span>{escape(name)}<small>{percent(true_shares[i])} of the truth</small></span></th>"
            + "".join(_bar_cell(side, iou) for side, iou in zip("ab", ious, strict=True))
            + "</tr>"
        )
    return (
        '<table class="ious"><caption>IoU, class by class <small>overlap / union, from 0 to 100 %</small></caption>'
        f'<thead><tr><th scope="col">Class</th>{_side_headers(names)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def batch_progress(done: int, total: int, said: Sequence[str], remarks: Sequence[str]) -> str:
    """How far many pictures are; said: what goes on the same line, such as "about 8 s left"."""
    line = " · ".join([f"<b>{done}</b> of {total} pictures", *map(escape, said)])
    below = "".join(f"<p>{escape(remark)}</p>" for remark in remarks)
    return (
        f'<div class="progress"><p role="status">{line}</p>'
        f'<progress max="{total}" value="{done}">{done} of {total}</progress>{below}</div>'
    )


def batch_table(
    names: Sequence[str],
    rows: Sequence[Row],
    totals: tuple[ConfusionMatrix, ConfusionMatrix] | None,
    class_names: Sequence[str],
    palette: np.ndarray,
) -> str:
    """Many pictures, a line each: agreement, mIoU where there is a truth, and what each network sees, as two strips.

    totals: the counts of all that have a ground truth, see `batch.pooled`.
    """
    sides = _side_headers([f"mIoU {name}" for name in names])
    head = f'<th scope="col">Picture</th><th scope="col">Agreement</th>{sides}<th scope="col">Classes, by network</th>'
    foot = ""
    if totals:
        label = f"All {sum(row.scores is not None for row in rows)} with a ground truth, counted as one picture"
        cells = _score_cells([total.miou() for total in totals])
        foot = f'<tfoot><tr><th scope="row">{label}</th><td></td>{cells}<td></td></tr></tfoot>'
    body = "".join(_batch_row(names, row, class_names, palette) for row in rows)
    return f'<table class="scores many"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table>'


def _batch_row(names: Sequence[str], row: Row, class_names: Sequence[str], palette: np.ndarray) -> str:
    name, note = escape(row.name), f"<small>{escape(row.note)}</small>" if row.note else ""
    if row.size is None:
        return f'<tr class="failed"><th scope="row">{name}{note}</th><td colspan="4">left out</td></tr>'
    h, w = row.size
    cells = _score_cells([scores.miou for scores in row.scores] if row.scores else [math.nan] * 2)
    strips = "".join(
        _share_strip(network, shares, class_names, palette) for network, shares in zip(names, row.shares, strict=True)
    )
    return (
        f'<tr><th scope="row">{name}<small>{w} × {h}</small>{note}</th><td>{percent(row.agreement)}</td>{cells}'
        f'<td class="strips">{strips}</td></tr>'
    )


def _share_strip(network: str, shares: np.ndarray, class_names: Sequence[str], palette: np.ndarray) -> str:
    """A strip divided among the classes, with their names for those who hear or point."""
    seen = np.flatnonzero(shares)
    said = escape(f"{network}: " + ", ".join(f"{class_names[i]} {percent(shares[i])}" for i in seen))
    unpainted = unpainted_classes(class_names)
    parts = "".join(
        f'<i class="{"clear" if i in unpainted else ""}" '
        f'style="flex-grow:{shares[i]:.6f};--c:{hex_code(palette[i])}"></i>'
        for i in seen
    )
    return f'<span class="share-strip" role="img" title="{said}" aria-label="{said}">{parts}</span>'


def truth_line(how: str, void: float) -> str:
    """How a ground truth was read, and how much of it counts; void: the share left out."""
    left_out = f"{percent(void)} of it is void and left out." if void else "All of it counts."
    return f'<p class="truth-line">Read as {escape(how)}. {left_out}</p>'


def _side_headers(names: Sequence[str]) -> str:
    return "".join(
        f'<th scope="col" class="side-{side}"><i></i>{escape(name)}</th>'
        for side, name in zip("ab", names, strict=True)
    )


def _bar_cell(side: str, share: float) -> str:
    width, text = (0.0, "–") if math.isnan(share) else (100 * share, percent(share))
    return f'<td class="side-{side}"><i style="width:{width:.2f}%"></i><span>{text}</span></td>'


def _score_cells(values: Sequence[float]) -> str:
    best = max((value for value in values if value == value), default=None)
    cells = []
    for value in values:
        text = "–" if value != value else percent(value)
        cells.append(f"<td><b>{text}</b></td>" if value == best else f"<td>{text}</td>")
    return "".join(cells)


def swatches(colors: np.ndarray, shares: np.ndarray) -> str:
    """Palette uint8 (k, 3) and the share of pixels of each, largest first: a strip to scale, and a button a colour."""
    order = np.argsort(-shares, kind="stable")
    strip = "".join(f'<i style="flex-grow:{shares[i]:.6f};background:{hex_code(colors[i])}"></i>' for i in order)
    chips = []
    for i in order:
        code = hex_code(colors[i])
        chips.append(
            f'<button type="button" class="chip" data-hex="{code}" title="Copy {code}" '
            f'aria-label="Copy {code}, {percent(shares[i])} of the picture"><i style="background:{code}"></i>'
            f"<code>{code}</code><span>{percent(shares[i])}</span></button>"
        )
    return f'<div class="strip" aria-hidden="true">{strip}</div><div class="chips">{"".join(chips)}</div>'


def palette_facts(num_colors: int, distinct: int, squared_error: float) -> str:
    """How many colours are left of how many, and what that costs.

    squared_error: mean over pixels of the squared distance, summed over the three channels, in levels of 0..255.
    """
    per_channel = squared_error / 3
    error = (
        "every pixel exact"
        if per_channel == 0
        else f"mean squared error <b>{per_channel:,.1f}</b> · PSNR <b>{10 * np.log10(255**2 / per_channel):.1f} dB</b>"
    )
    return f'<p class="palette-facts"><b>{num_colors}</b> of {distinct:,} colours · {error}</p>'
