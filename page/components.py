"""Gradio components as this page uses them, and HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import jinja2
import numpy as np
from gradio.data_classes import FileData, GradioRootModel, ImageData

from unet.images import hex_code
from unet.overlay import unpainted_classes

HERE = Path(__file__).parent
TRUTH_FILES = [".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jpg", ".jpeg"]

PRIVATE = {"api_visibility": "private"}
QUIET = PRIVATE | {"show_progress": "hidden"}
NEWEST = {"trigger_mode": "always_last"}  # what comes while a handler is at work is not dropped
ON_NETWORKS = PRIVATE | {"concurrency_id": "networks", "concurrency_limit": 1}


def raw(component: Any, payload: Any) -> Any:
    """What was sent: a file's path, FileData, other values."""
    # The library validates it: Gradio's own reading knows fewer formats and refuses in fewer words.
    if isinstance(payload, (FileData, ImageData)):
        return payload.path
    return payload.root if isinstance(payload, GradioRootModel) else payload


def _raw(component: type, **more: Any) -> type:
    """A subclass of a component whose preprocess is `raw`."""
    # A class, since Gradio makes a session's component anew after each update, but no class statement: for one, Gradio
    # writes a stub beside this file.
    return type.__new__(type(component), component.__name__, (component,), {"preprocess": raw} | more)


PictureBox = _raw(gr.Image)
FileBox = _raw(gr.File)
Choice = _raw(gr.Radio)
Number = _raw(gr.Number)
UploadHTML = _raw(gr.HTML, data_model=FileData)  # a script sets its value to a file that it has uploaded


def html(
    name: str, value: Any = "", *, script: str | None = None, template: str | None = None, kind: type = gr.HTML
) -> gr.HTML:
    """HTML that the page's CSS finds by its name.

    script: a file in page/scripts; the events that it triggers are the component's. template: where value is no HTML.
    """
    js = (HERE / "scripts" / script).read_text(encoding="utf-8") if script else None
    options = {"html_template": template} if template else {}
    return kind(value, elem_id=name, apply_default_css=False, js_on_load=js, **options)


# ---- HTML ------------------------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """Write a share: "30.6 %", "–" for NaN."""
    if share != share:
        return "–"
    if 0 < share < 0.0005:  # never "0.0 %" for something, nor "100.0 %" for not quite all
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def seconds(duration: float) -> str:
    """Two digits that mean something: "0.07 s", "38 s"."""
    return f"{duration:.2f} s" if duration < 0.995 else f"{duration:.1f} s" if duration < 9.95 else f"{duration:.0f} s"


def parameters(count: int) -> str:
    """Number of parameters: "0.66 M", "31.0 M"."""
    return f"{count / 1e6:.2f} M" if count < 10e6 else f"{count / 1e6:.1f} M"


def classes(names: Sequence[str], palette: np.ndarray) -> list[dict[str, Any]]:
    """Index, name, colour and painted, for each class."""
    unpainted = unpainted_classes(names)
    return [
        {"index": i, "name": name, "color": color, "painted": i not in unpainted}
        for i, (name, color) in enumerate(zip(names, palette.tolist(), strict=True))
    ]


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
