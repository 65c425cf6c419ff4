"""Gradio's components as the page wants them: what was sent comes as it is, for the library to read or to refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio import FileData

TRUTH_FILES = [".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jpg", ".jpeg"]


def as_it_is(box: Any, payload: Any) -> str | None:
    """What a box hands over -> the file's path. The library reads more formats, and says why it refuses one."""
    return None if payload is None else payload.path


def as_sent(control: Any, payload: Any) -> Any:
    """What a program sends for a choice or a number: the function knows what it takes, and says what it is not."""
    return payload


def as_they_are(box: Any, payload: Any) -> list[FileData] | None:
    """What a box for many files hands over -> the files, which still know the names that they had with their owner."""
    return None if payload is None else payload.root


def _handing_over(box: type, preprocess: Callable[[Any, Any], Any]) -> type:
    """A kind of box that leaves the reading of files to the library.

    It has to be a class, since Gradio makes a session's box anew after each update, but no class statement: for one,
    Gradio writes a stub beside this file.
    """
    return type.__new__(type(box), box.__name__, (box,), {"preprocess": preprocess})


PictureBox = _handing_over(gr.Image, as_it_is)
FileBox = _handing_over(gr.File, as_it_is)
FilesBox = _handing_over(gr.File, as_they_are)
Choice = _handing_over(gr.Radio, as_sent)
Number = _handing_over(gr.Number, as_sent)


def html(name: str, value: str = "") -> gr.HTML:
    """HTML that assets/*.css finds by its name, and that nothing else styles."""
    return gr.HTML(value, elem_id=name, apply_default_css=False)
