"""The picture in k colours: what the slider shows of it, and what can be saved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from page.formatting import hex_code, percent
from page.session import Picture, needs_what_is_shown, new_file

FILES = ("PNG", "GPL", "ASE", "JSON", "CSS")


@needs_what_is_shown
def show(picture: Picture, colors: int, space: str) -> tuple[Image.Image, str, str]:
    """The slider moved -> (picture in k colours, facts, swatches). No network runs and no GPU is asked for."""
    ladder = picture.ladder(space)
    palette = ladder[colors]
    labels = picture.live.encode(palette)
    return (
        paint(labels, palette.colors),
        palette_facts(len(palette), ladder.distinct_colors, picture.live.mean_squared_error(palette)),
        swatches(palette.colors, palette.shares(labels)),
    )


@needs_what_is_shown
def save(picture: Picture, colors: int, space: str, *, kind: str) -> str:
    """Write the palette, or the whole picture in it, for download -> path."""
    palette = picture.ladder(space)[colors]
    write: dict[str, Callable[[], str | bytes]] = {
        "PNG": lambda: palette.palette_png(picture.pixels()),
        "GPL": palette.to_gpl,
        "ASE": palette.to_ase,
        "JSON": palette.to_json,
        "CSS": palette.to_css,
    }
    content = write[kind]()
    path = new_file(f"{picture.source.stem}-{len(palette)}-colours.{kind.lower()}")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def paint(label_map: np.ndarray, palette: np.ndarray) -> Image.Image:
    """uint8 (H, W), labels below k, and uint8 (k, 3) -> a Pillow picture of k colours, quick to write as PNG."""
    picture = Image.fromarray(label_map)
    picture.putpalette(palette.astype(np.uint8).tobytes())
    return picture


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
