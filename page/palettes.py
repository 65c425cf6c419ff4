"""The section *Colours*: k-means chooses k of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
import numpy as np

from page.components import ON_NETWORKS, PRIVATE, QUIET, html, render
from page.networks import segmentations
from page.session import (
    COLOR_SPACES,
    DEFAULT_COLORS,
    MIN_COLORS,
    Answer,
    Picture,
    State,
    hand_over,
    new_file,
    requires_session,
)
from unet.images import hex_code, indexed_picture, sample
from unet.metrics import ConfusionMatrix
from unet.palette import MAX_COLORS

TITLE = """
<h2>Colours</h2>
<p>k-means picks the k colours that replace all others with a small error. At how few do you, or the networks, start to
see something else?</p>
"""
SPACE_INFO = "RGB: smallest error in the numbers. OKLab: closest to what the eye sees; keeps rare hues longer."

MEASURED = (2, 3, 4, 6, 8, 12, 16, 24, 32, MAX_COLORS)  # numbers of colours; each is one question to both networks

#: The files that a palette, or the whole picture in it, can be saved as.
FILES: dict[str, Callable[[Any, Picture], str | bytes]] = {
    "PNG": lambda palette, picture: palette.palette_png(picture.pixels()),
    "GPL": lambda palette, _: palette.to_gpl(),
    "ASE": lambda palette, _: palette.to_ase(),
    "JSON": lambda palette, _: palette.to_json(),
    "CSS": lambda palette, _: palette.to_css(),
}


def build(state: State) -> tuple[list[Any], gr.Checkbox, gr.HTML]:
    """Draw the section -> (settings, ask, palette)."""
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
    measure_button = gr.Button("How few do they need?", size="sm", elem_id="measure")
    drawn = html("chart")
    measured = measure_button.click(measure, [state.answer, space], drawn, **ON_NETWORKS)
    # Another picture, ground truth, network or space: the chart is of the one before, also while it is being made.
    changed = [state.picture.change, state.sides.change, space.change]
    gr.on(changed, None, cancels=measured, **PRIVATE)
    gr.on(changed, lambda: "", None, drawn, **QUIET)  # after what was on its way from the server
    file = gr.File(visible="hidden")
    for kind, button in saves.items():
        save_as = functools.partial(save, kind=kind)
        saved = button.click(save_as, [state.picture, colors, space], file, **QUIET)
        saved.success(None, file, js="unetPage.download", **PRIVATE)
    return [colors, space], ask, palette


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
    """Write the palette, or picture, for download -> path."""
    palette = picture.ladder(space)[int(colors)]
    content = FILES[kind](palette, picture)
    path = new_file(f"{picture.source.stem}-{len(palette)}-colours.{kind.lower()}")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def draw(colors: np.ndarray, shares: np.ndarray, distinct: int, squared_error: float) -> str:
    """A palette uint8 (k, 3) as HTML.

    squared_error: mean over pixels, summed over the three channels, in levels of 0..255.
    """
    chips = [(hex_code(colors[i]), shares[i]) for i in np.argsort(-shares, kind="stable")]
    mse = squared_error / 3
    return render("palette", chips=chips, distinct=distinct, mse=mse, psnr=10 * np.log10(255**2 / mse) if mse else None)


# ---- how few the networks need ---------------------------------------------------------------------------------------


def measure(answer: Answer | None, space: str) -> Iterator[str]:
    """Stream the chart: Gradio wants a generator function, undecorated."""
    yield from _measure(answer, space)


@requires_session
def _measure(answer: Answer, space: str) -> Iterator[str]:
    """Ask both networks in ever more colours."""
    view, size, classes = answer.picture.view, answer.picture.view.shape[:2], len(answer.comparison.class_names)
    truth = None if answer.truth is None else sample(answer.truth.labels, size)
    full = segmentations(answer.sides, view)
    lines: list[list[float]] = [[], [], []]
    for k in MEASURED:
        found = segmentations(answer.sides, answer.picture.in_colors(view, k, space))
        lines[2].append((found[0].label_map == found[1].label_map).mean())
        for line, segmentation, whole in zip(lines, found, full, strict=False):
            if truth is None:
                line.append((segmentation.label_map == whole.label_map).mean())
            else:
                counts = ConfusionMatrix(classes)
                counts.update(truth, segmentation.label_map)
                line.append(counts.miou())
        yield draw_chart(lines, answer.names, scored=truth is not None)


def draw_chart(lines: Sequence[Sequence[float]], names: Sequence[str], *, scored: bool) -> str:
    """Draw a line a network and their agreement.

    scored: the networks' are mIoU; else the share of the picture that keeps the class that it has in all colours.
    """
    what = "mIoU" if scored else "same class as in all colours"
    labels = [f"{names[0]}: {what}", f"{names[1]}: {what}", "both agree"]
    return render(
        "chart",
        ticks=(*MEASURED[:-1:2], MEASURED[-1]),
        lines=[
            {"label": label, "kind": kind, "points": list(zip(MEASURED, line, strict=False))}
            for label, kind, line in zip(labels, ("side-a", "side-b", "both"), lines, strict=True)
        ],
        x=lambda k: f"{40 + 272 * math.log2(k / MEASURED[0]) / math.log2(MEASURED[-1] / MEASURED[0]):.1f}",
        y=lambda share, below=0: f"{10 + 156 * (1 - share) + below:.1f}",
    )
