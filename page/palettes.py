"""The section *Colours*: the picture in k colours, chosen by k-means."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from page import chart
from page.components import ON_NETWORKS, PRIVATE, QUIET, html, render
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
    template = '${value.html}<p class="copied-note" role="status"></p>'
    palette = html("palette", {"html": ""}, script="palette.js", template=template)
    ask = gr.Checkbox(label="Ask the networks about it", elem_id="ask-colours", container=False)
    space = gr.Radio(
        list(COLOR_SPACES), value="RGB", label="Distance between colours", info=SPACE_INFO, elem_id="space"
    )
    with gr.Row(elem_id="downloads"):
        saves = {kind: gr.Button(kind, size="sm", min_width=48) for kind in FILES}
    measure = gr.Button("How few do they need?", size="sm", elem_id="measure")
    drawn = html("chart")
    measure.click(chart.measure, [state.answer, space], drawn, **ON_NETWORKS)
    file = gr.File(visible="hidden")
    for kind, button in saves.items():
        save_as = functools.partial(save, kind=kind)
        saved = button.click(save_as, [state.picture, colors, space], file, **QUIET)
        saved.success(None, file, js="unetPage.download", **PRIVATE)
    return Section(colors, space, ask, palette, drawn)


@requires_session
def show(picture: Picture, colors: int, space: str) -> dict[str, Any]:
    """The picture in k colours, and its palette."""
    ladder = picture.ladder(space)
    palette = ladder[int(colors)]
    label_map, error, shares = picture.live.quantize(palette)
    path = new_file("colours.png")
    indexed_picture(label_map, palette.colors).save(path, compress_level=1)
    drawn = draw(palette.colors, shares, ladder.distinct_colors, error)
    return {"key": picture.key, "k": len(palette), "picture": hand_over(path), "html": drawn}


@requires_session
def save(picture: Picture, colors: int, space: str, *, kind: str) -> str:
    """Write the palette, or the picture in it, for download -> path."""
    palette = picture.ladder(space)[int(colors)]
    content = FILES[kind](palette, picture)
    path = new_file(f"{picture.source.stem}-{len(palette)}-colours.{kind.lower()}")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def draw(colors: np.ndarray, shares: np.ndarray, distinct: int, squared_error: float) -> str:
    """A palette as HTML: its error, a strip, a button a colour.

    colors: uint8 (k, 3). shares: of the pixels, for each. distinct: colours of the picture. squared_error: mean over
    pixels of the squared distance, summed over the three channels, in levels of 0..255.
    """
    chips = [(hex_code(colors[i]), shares[i]) for i in np.argsort(-shares, kind="stable")]
    mse = squared_error / 3
    return render("palette", chips=chips, distinct=distinct, mse=mse, psnr=10 * np.log10(255**2 / mse) if mse else None)
