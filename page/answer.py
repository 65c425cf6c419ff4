"""What the page says about an answer, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from page.formatting import hex_code, parameters, percent, seconds
from unet.compare import Comparison
from unet.model import UNetConfig
from unet.overlay import unpainted_classes


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
