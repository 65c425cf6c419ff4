"""Gradio components as this page uses them, and the HTML that fills them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import gradio as gr
import jinja2
from gradio.data_classes import FileData, GradioRootModel, ImageData

from page.formatting import percent
from unet.images import hex_code

HERE = Path(__file__).parent
TRUTH_FILES = [".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jpg", ".jpeg"]

PRIVATE = {"api_visibility": "private"}
QUIET = PRIVATE | {"show_progress": "hidden"}
NEWEST = {"trigger_mode": "always_last"}  # what comes while a handler is at work is not dropped
ON_NETWORKS = PRIVATE | {"concurrency_id": "networks", "concurrency_limit": 1}


def raw(component: Any, payload: Any) -> Any:
    """What was sent: a file as its path, several as FileData, other values unchanged.

    The library validates it: Gradio's own reading knows fewer formats and refuses in fewer words. `errors.check_files`
    has seen every path.
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


def html(name: str, value: Any = "", *, script: str | None = None, template: str | None = None) -> gr.HTML:
    """HTML that the page's CSS finds by its name, and that nothing else styles.

    script: a file in page/scripts that runs with it; the events that it triggers are the component's. template: of
    Gradio's, where the value is no HTML.
    """
    js = (HERE / "scripts" / script).read_text(encoding="utf-8") if script else None
    options = {"html_template": template} if template else {}
    return gr.HTML(value, elem_id=name, apply_default_css=False, js_on_load=js, **options)


def _template(name: str) -> str:
    """A file of page/html on one line."""
    text = (HERE / "html" / f"{name}.html").read_text(encoding="utf-8").strip()
    return re.sub(r"\s*\n\s*", " ", re.sub(r"(?<=[>}])\s*\n\s*|\s*\n\s*(?=[<{])", "", text))


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined
)
_TEMPLATES.filters |= {"percent": percent, "hex": hex_code}
_TEMPLATES.globals["nan"] = math.nan


def render(template: str, /, **values: Any) -> str:
    """Fill a template of page/html, escaping every value."""
    return str(_TEMPLATES.get_template(template).render(values))
