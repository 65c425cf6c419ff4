"""Components that hand on what was sent unchanged; the library validates it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioRootModel, ImageData

SCRIPTS = Path(__file__).parent / "scripts"
TRUTH_FILES = [".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jpg", ".jpeg"]


def raw(component: Any, payload: Any) -> Any:
    """What was sent: a file as its path, several as FileData, other values unchanged.

    Gradio's own reading knows fewer formats and refuses in fewer words. `errors.check_files` has seen every path.
    """
    if isinstance(payload, (FileData, ImageData)):
        return payload.path
    return payload.root if isinstance(payload, GradioRootModel) else payload


def _raw(component: type) -> type:
    """A subclass of a component whose preprocess is `raw`.

    It has to be a class, since Gradio makes a session's component anew after each update, but no class statement: for
    one, Gradio writes a stub beside this file.
    """
    return type.__new__(type(component), component.__name__, (component,), {"preprocess": raw})


PictureBox = _raw(gr.Image)
FileBox = _raw(gr.File)
Choice = _raw(gr.Radio)
Number = _raw(gr.Number)


def html(name: str, value: str = "", *, script: str | None = None) -> gr.HTML:
    """HTML that the page's CSS finds by its name, and that nothing else styles.

    script: a file in page/scripts that runs with it; the events that it triggers are the component's.
    """
    js = (SCRIPTS / script).read_text(encoding="utf-8") if script else None
    return gr.HTML(value, elem_id=name, apply_default_css=False, js_on_load=js)
