"""The section *Colours*: the picture in k colours, chosen by k-means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from page import chart
from page.components import SCRIPTS, html
from page.formatting import percent
from page.session import (
    COLOR_SPACES,
    DEFAULT_COLORS,
    MIN_COLORS,
    Picture,
    State,
    hand_over,
    new_file,
    requires_session,
)
from unet.images import hex_code, indexed_picture
from unet.palette import MAX_COLORS

TITLE = """
<h2>Colours</h2>
<p>k-means picks the k colours that replace all others with a small error. At how few do you, or the networks, start to
see something else?</p>
"""
SPACE_INFO = "RGB: smallest error in the numbers. OKLab: closest to what the eye sees; keeps rare hues longer."

#: The files that a palette, or the whole picture in it, can be saved as.
FILES: dict[str, Callable[[Any, Picture], str | bytes]] = {
    "PNG": lambda palette, picture: palette.palette_png(picture.pixels()),
    "GPL": lambda palette, _: palette.to_gpl(),
    "ASE": lambda palette, _: palette.to_ase(),
    "JSON": lambda palette, _: palette.to_json(),
    "CSS": lambda palette, _: palette.to_css(),
}


class Section(NamedTuple):
    colors: gr.Slider
    space: gr.Radio
    ask: gr.Checkbox
    palette: gr.HTML
    chart: gr.HTML

    @property
    def settings(self) -> list[Any]:
        """In how many colours of which space."""
        return [self.colors, self.space]


def build(state: State) -> Section:
    """Draw the section where it is called, inside gr.Blocks."""
    html("palette-title", TITLE)
    colors = gr.Slider(
        MIN_COLORS, MAX_COLORS, value=DEFAULT_COLORS, step=1, label="Colours", show_label=False, elem_id="colours"
    )
    palette = gr.HTML(
        {"html": ""},
        html_template='${value.html}<p class="copied-note" role="status"></p>',
        js_on_load=(SCRIPTS / "palette.js").read_text(encoding="utf-8"),
        elem_id="palette",
        apply_default_css=False,
    )
    ask = gr.Checkbox(label="Ask the networks about it", elem_id="ask-colours", container=False)
    space = gr.Radio(
        list(COLOR_SPACES), value="RGB", label="Distance between colours", info=SPACE_INFO, elem_id="space"
    )
    with gr.Row(elem_id="downloads"):
        saves = {kind: gr.Button(kind, size="sm", min_width=48) for kind in FILES}
    measure = gr.Button("How few do they need?", size="sm", elem_id="measure")
    drawn = html("chart")
    measure.click(
        chart.measure,
        [state.answer, space],
        drawn,
        concurrency_id="networks",
        concurrency_limit=1,
        api_visibility="private",
    )
    file = gr.File(visible="hidden")

    def save_as(kind: str) -> Callable[[Picture, int, str], str]:
        return lambda picture, colors, space: save(picture, colors, space, kind=kind)

    for kind, button in saves.items():
        saved = button.click(
            save_as(kind), [state.picture, colors, space], file, api_visibility="private", show_progress="hidden"
        )
        saved.success(None, file, js="unetPage.download", api_visibility="private")
    return Section(colors, space, ask, palette, drawn)


@requires_session
def show(picture: Picture, colors: int, space: str) -> dict[str, Any]:
    """The picture in k colours, and its palette.

    No network runs, and no GPU is used.
    """
    ladder = picture.ladder(space)
    palette = ladder[int(colors)]
    label_map, error, shares = picture.live.quantize(palette)
    path = new_file("colours.png")
    indexed_picture(label_map, palette.colors).save(path, compress_level=1)
    facts = palette_facts(len(palette), ladder.distinct_colors, error)
    return {
        "key": picture.key,
        "k": len(palette),
        "picture": hand_over(path),
        "html": facts + swatches(palette.colors, shares),
    }


@requires_session
def save(picture: Picture, colors: int, space: str, *, kind: str) -> str:
    """Write the palette, or the picture in it, for download -> path."""
    palette = picture.ladder(space)[int(colors)]
    content = FILES[kind](palette, picture)
    path = new_file(f"{picture.source.stem}-{len(palette)}-colours.{kind.lower()}")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def swatches(colors: np.ndarray, shares: np.ndarray) -> str:
    """A palette as a strip to scale and a button a colour.

    colors: uint8 (k, 3). shares: of the pixels, for each.

    Largest share first.
    """
    order = np.argsort(-shares, kind="stable")
    strip = "".join(f'<i style="flex-grow:{shares[i]:.6f};background:{hex_code(colors[i])}"></i>' for i in order)
    chips = []
    for i in order:
        code = hex_code(colors[i])
        words = f"Copy {code}, {percent(shares[i])} of the picture"
        chips.append(
            f'<button type="button" class="chip" data-hex="{code}" title="{words}" aria-label="{words}" '
            f'style="background:{code}"></button>'
        )
    return f'<div class="strip" aria-hidden="true">{strip}</div><div class="chips">{"".join(chips)}</div>'


def palette_facts(num_colors: int, distinct: int, squared_error: float) -> str:
    """How many colours are left of how many, and what that costs.

    squared_error: mean over pixels of the squared distance, summed over the three channels, in levels of 0..255.
    """
    per_channel = squared_error / 3
    if per_channel == 0:
        error = "every pixel exact"
    else:
        psnr = 10 * np.log10(255**2 / per_channel)
        error = f'<span title="Mean squared error {per_channel:,.1f}">PSNR <b>{psnr:.1f} dB</b></span>'
    return f'<p class="palette-facts"><b>{num_colors}</b> colours instead of {distinct:,} · {error}</p>'
