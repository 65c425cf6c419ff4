"""The section where a picture comes in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr

from page import networks, viewer
from page.components import PictureBox, html
from page.session import MAX_PIXELS, Picture, examples, open_picture

#: How a picture is seen and judged from the first moment: (picture, viewer, ground truth, ask in k colours).
Opened = tuple[Picture, dict[str, Any], str | None, bool]

BUTTONS = f"""
<div class="ways">
  <button type="button" data-way="choose" title="Choose a picture from this device">{{file}}<span>Choose</span></button>
  <button type="button" data-way="camera" title="Take a picture">{{camera}}<span>Camera</span></button>
  <button type="button" data-way="paste" title="Paste a picture">{{paste}}<span>Paste</span></button>
  <button type="button" role="switch" aria-checked="false" data-live title="Both networks on what the camera sees">
    {{live}}<span>Live</span></button>
</div>
<p class="quiet">or drop a picture anywhere, up to {MAX_PIXELS // 10**6} million pixels.</p>
<p class="note" role="status"></p>
"""
ICONS = {
    "file": "M2 13V3h5l2 2h5v8z",
    "camera": "M2 5h3l1-2h4l1 2h3v8H2zM8 6.5a2.2 2.2 0 1 0 0 4.4 2.2 2.2 0 0 0 0-4.4",
    "live": "M1 4h9v8H1zM10 7l5-3v8l-5-3",
    "paste": "M5 3H3v11h10V3h-2M6 2h4v3H6z",
}


class Section(NamedTuple):
    box: gr.Image
    camera: gr.Image
    gallery: gr.Gallery


def build() -> Section:
    """Draw the section where it is called, inside gr.Blocks."""
    icons = {name: _icon(path) for name, path in ICONS.items()}
    buttons = html("ways", BUTTONS.format(**icons), script="picture.js")
    # Chosen, dropped and pasted files all go through this box, which is not seen; the viewer shows the picture.
    box = PictureBox(type="filepath", label="Picture", sources=["upload"], buttons=[], elem_id="picture")
    with gr.Column(visible=False, elem_id="camera") as panel:
        camera = PictureBox(type="filepath", label="Camera", sources=["webcam"], buttons=[], height=260)
        close = gr.Button("Close the camera", size="sm")
    gallery = gr.Gallery(
        label="Examples",
        type="filepath",  # the handler needs which one is chosen, never the pixels
        columns=6,
        rows=1,
        allow_preview=False,
        object_fit="cover",
        buttons=[],
        interactive=False,
        elem_id="examples",
    )
    private = {"api_visibility": "private", "show_progress": "hidden"}
    buttons.camera(lambda: gr.Column(visible=True), None, panel, **private)
    for event in (close.click, camera.input):
        event(lambda: gr.Column(visible=False), None, panel, **private)
    return Section(box, camera, gallery)


def show_examples(task: str) -> gr.Gallery:
    """The task's examples; those that are not of the task say so."""
    captions = [(str(path), None if path.parents[1].name == task else f"not {task}") for path, _ in examples(task)]
    return gr.Gallery(captions, selected_index=None)


def take_upload(path: str | None) -> tuple[Any, ...]:
    """Open an uploaded picture -> `Opened`, and the emptied box."""
    if path is None:
        return (*[gr.skip()] * 4, gr.skip())
    return *opened(open_picture(path)), None


def take_example(task: str, gallery: gr.Gallery) -> Opened:
    """An example was clicked -> `Opened`.

    Which one is read off the gallery. gr.SelectData is of the click that began a call: a click that has to wait for the
    call before would be answered with that call's example.
    """
    return open_example(task, gallery.selected_index)


def open_example(task: str, index: int) -> Opened:
    """The task's example of this number -> `Opened`."""
    return opened(open_picture(*examples(task)[index]))


def opened(picture: Picture, *, quantized: bool = False) -> Opened:
    """A picture with what follows from it."""
    return picture, viewer.waiting(picture), str(picture.truth) if picture.truth else None, quantized


def opened_for(task: str, picture: Picture | None) -> Opened:
    """The picture to ask another task about.

    A visitor's own stays, an example gives way to the task's first.
    """
    own = picture and not any(picture.source == path for name in networks.tasks() for path, _ in examples(name))
    if own:
        return opened(replace(picture, truth=None))
    offer_camera(task)
    return open_example(task, 0)


def offer_camera(task: str) -> None:
    """Say where a task has no example of its own.

    Its data set may not be redistributed.
    """
    if not any(truth for _, truth in examples(task)):
        gr.Info(f"No picture of {task} comes with this page: drop one of your own, or take one with the camera.")


def name_example(task: str, picture: Picture | None) -> str:
    """The name of an example in a link, empty for a visitor's own picture."""
    return next((path.stem for path, _ in examples(task) if picture and path == picture.source), "")


def _icon(path: str) -> str:
    return (
        '<svg viewBox="0 0 16 16" width="18" height="18" fill="none" stroke="currentColor" stroke-width="1.5" '
        f'aria-hidden="true"><path d="{path}"/></svg>'
    )
