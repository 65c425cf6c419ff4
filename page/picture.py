"""The section where a picture comes in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from page import networks, viewer
from page.components import QUIET, PictureBox, UploadHTML, html, render
from page.session import MAX_PIXELS, Picture, examples, open_picture

#: How a picture is seen and judged from the first moment: (picture, viewer, ground truth, ask in k colours).
Opened = tuple[Picture, dict[str, Any], str | None, bool]


def build() -> tuple[gr.HTML, gr.Image, gr.Gallery]:
    """Draw the section inside gr.Blocks -> (ways, camera, gallery)."""
    # Chosen, dropped and pasted files become the value of these buttons; the viewer shows the picture.
    template = render("ways", megapixels=MAX_PIXELS // 10**6)
    ways = html("ways", None, script="picture.js", template=template, kind=UploadHTML)
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
    ways.camera(lambda: (gr.Column(visible=True), None), None, [panel, camera], **QUIET)  # without the last photo
    for event in (close.click, camera.input):
        event(lambda: gr.Column(visible=False), None, panel, **QUIET)
    return ways, camera, gallery


def show_examples(task: str) -> gr.Gallery:
    """The examples, captioned where of another task."""
    captions = [(str(path), None if path.parents[1].name == task else f"not {task}") for path, _ in examples(task)]
    return gr.Gallery(captions, selected_index=None)


def take_upload(path: str | None) -> Opened:
    """Open an upload, or a photo -> `Opened`."""
    return opened(open_picture(path))


def take_example(task: str, gallery: gr.Gallery) -> Opened:
    """An example was clicked -> `Opened`."""
    # gr.SelectData is of the click that began a call: a click that has to wait for the call before would be answered
    # with that call's example.
    return open_example(task, gallery.selected_index)


def open_example(task: str, index: int) -> Opened:
    """The task's example of this number -> `Opened`."""
    return opened(open_picture(*examples(task)[index]))


def opened(picture: Picture) -> Opened:
    """A picture with what follows from it."""
    return picture, viewer.waiting(picture), str(picture.truth) if picture.truth else None, False


def opened_for(task: str, picture: Picture | None) -> Opened:
    """The visitor's own picture, or the task's first example."""
    own = picture and not any(picture.source == path for name in networks.tasks() for path, _ in examples(name))
    if own:
        return opened(replace(picture, truth=None))
    offer_camera(task)
    return open_example(task, 0)


def offer_camera(task: str) -> None:
    """Say why a task has no example."""
    if not any(truth for _, truth in examples(task)):
        gr.Info(f"No picture of {task} comes with this page: drop one of your own, or take one with the camera.")


def name_example(task: str, picture: Picture | None) -> str:
    """An example's name in a link, or ""."""
    return next((path.stem for path, _ in examples(task) if picture and path == picture.source), "")
