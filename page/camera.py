"""Both networks, or k colours, on a live camera.

A frame is an event of its own, not a gr.Image stream: the browser sends the next one when the answer to the last one is
drawn, so none waits, and visitors take turns frame by frame. Nothing of a frame is kept but its k colours, in the
visitor's own session.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from page import networks
from page.components import PRIVATE, QUIET, html, render
from page.errors import refusal
from page.networks import Sides
from page.session import COLOR_SPACES, known
from page.views import data_uri
from unet.images import ImageError, read_image
from unet.overlay import OPACITY, unpainted_classes
from unet.palette import Palette, PaletteLadder

JPEG = "data:image/jpeg;base64,"
FRAME_BYTES = 200_000  # of a frame as text; the browser sends about 10,000
FRAME_PIXELS = 640 * 480  # the browser sends 320 x 240
REFRESH = 1.0  # seconds for which k colours serve, or more where fitting them takes more than a tenth of it


class Fitted(NamedTuple):
    """A palette for several frames, so that none flickers."""

    palette: Palette
    asked: tuple[int, str]  # k and space
    until: float  # of time.monotonic()


def build(sides: gr.State, colors: gr.Slider, space: gr.Radio) -> gr.HTML:
    """Draw the panes; elements with data-live switch them."""
    live = html("live", None, script="camera.js", template=render("live"))
    fitted = gr.State(time_to_live=60)
    answered = live.frame(
        answer,
        [sides, colors, space, fitted],
        [live, fitted],
        concurrency_id="camera",
        concurrency_limit=1,
        trigger_mode="multiple",  # the browser keeps count itself
        **QUIET,
    )
    answered.failure(None, js="() => unetLive.stop()", **PRIVATE)
    return live


def answer(
    sides: Sides | None, colors: int, space: str, fitted: Fitted | None, event: gr.EventData
) -> tuple[dict[str, Any], Fitted | None]:
    """Answer one frame {picture, number, view} -> (panes, palette).

    Of each pane its name, and the layer to draw over the frame. The palette serves the next frames.
    """
    frame = read_frame(getattr(event, "picture", None))
    if getattr(event, "view", None) == "Colours":
        fitted = fit(frame, int(colors), COLOR_SPACES[space], fitted)
        solid = np.full(len(fitted.palette), 255)
        layer = _layer(fitted.palette.encode(frame), fitted.palette.colors, solid)
        count = len(fitted.palette)
        panes = [{"name": "Camera", "layer": None}, {"name": f"{count} colour{'s' * (count > 1)}", "layer": layer}]
    else:
        panes = [{"name": side.name, "layer": _overlay(side.location, frame)} for side in known(sides)]
    return {"number": getattr(event, "number", None), "panes": panes}, fitted


def read_frame(sent: Any) -> np.ndarray:
    """Decode a small JPEG in a data URL, or refuse."""
    # Decoded here, in milliseconds: the processes that decode files are not kept from them.
    if not isinstance(sent, str) or not sent.startswith(JPEG) or len(sent) > FRAME_BYTES:
        raise refusal(f"A frame is a JPEG in a data URL of at most {FRAME_BYTES:,} characters.")
    try:
        content = base64.b64decode(sent[len(JPEG) :], validate=True)
        if not content.startswith(b"\xff\xd8\xff"):
            raise ImageError("it is no JPEG.")
        return read_image(content, max_pixels=FRAME_PIXELS, notify=lambda note: None)
    except (binascii.Error, ImageError) as error:
        raise refusal(f"The frame cannot be read: {error}") from error


def fit(frame: np.ndarray, colors: int, space: str, last: Fitted | None) -> Fitted:
    """Keep a fresh palette, or fit a new one."""
    asked, start = (colors, space), time.monotonic()
    if last and last.asked == asked and start < last.until:
        return last
    palette = PaletteLadder(frame[::4, ::4], max_colors=colors, space=space)[colors]
    end = time.monotonic()
    return Fitted(palette, asked, end + max(REFRESH, 10 * (end - start)))


def _overlay(location: str, frame: np.ndarray) -> str:
    # On ZeroGPU the processor answers: a stream would use a visitor's minutes up at once.
    network = networks.segmenter(location, "cpu" if os.environ.get("SPACES_ZERO_GPU") else None)
    found = network(frame)
    opacity = np.full(len(found.class_names), round(255 * OPACITY))
    opacity[list(unpainted_classes(found.class_names))] = 0
    return _layer(found.label_map, found.palette, opacity)


def _layer(label_map: np.ndarray, colors: np.ndarray, opacity: np.ndarray) -> str:
    """Labels uint8 (h, w) as an indexed PNG."""
    picture = Image.fromarray(label_map)
    picture.putpalette(np.column_stack([colors, opacity]).astype(np.uint8).tobytes(), "RGBA")
    return data_uri(picture, "png", compress_level=1)
