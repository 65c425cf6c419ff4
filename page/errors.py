"""Expected errors are shown to the visitor, others only logged."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio_client.exceptions import AppError

from unet.bundle import BundleError
from unet.images import ImageError

EXPECTED = (BundleError, ImageError)  # sentences for whoever sent the picture or named the network
FILE_EXAMPLE = '{"path": "…", "meta": {"_type": "gradio.FileData"}}'
NOT_UPLOADED = f"Files are uploaded first: send the path that the upload returned, as {FILE_EXAMPLE}."
MAX_VALUES = 2000  # in a request's JSON; two hundred files with their names take 1,600
MAX_TEXT = 4000  # characters of a name, or of any other text
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no file or answer can hold
_FOLDERS = re.compile(r"(?<![\w:/.…-])/(?:[^\s/'\"]+/)+(?=[^\s/'\"])")  # of an absolute path, all but its last name
OUR_MISTAKE = "Something went wrong here that should not have: try it again, or with another picture."


def refusal(sentence: str) -> gr.Error:
    """An expected error, shown and not logged, without this machine's folders."""
    sentence = _FOLDERS.sub("", sentence)
    begins_with_a_name = "/" in sentence.partition(" ")[0]
    return gr.Error(sentence if begins_with_a_name else sentence[:1].upper() + sentence[1:], print_exception=False)


def check_files(inputs: Any) -> None:
    """Raise unless every file of a request was uploaded here.

    Gradio checks only what says of itself that it is a file, and an image is read without saying so. Here every "path"
    counts, wherever it stands. It must be a regular file whose real path lies in the upload cache, where names hold a
    salted hash: nobody guesses another visitor's. Any other path gets the same answer, whether it exists or not. Too
    many values are refused first: Gradio goes over them on the event loop, which serves everybody.
    """
    cache = os.path.realpath(gr.utils.get_upload_folder())
    for path in list(_paths(inputs)):
        try:
            real = os.path.realpath(path)
            if os.path.commonpath([cache, real]) == cache and os.path.isfile(real):
                continue
        except (TypeError, ValueError, OSError):  # not a string; a null character or a lone surrogate in it; too long
            pass
        raise refusal(NOT_UPLOADED)


def _paths(inputs: Any) -> Iterator[Any]:
    """Every "path" in nested lists and dicts.

    Raises for too many values and for unusable text.
    """
    waiting, values = [inputs], 0
    while waiting:
        value = waiting.pop()
        values += 1
        if values > MAX_VALUES:
            raise refusal(f"A request may have {MAX_VALUES:,} values: send fewer files at a time.")
        if isinstance(value, dict):
            if value.get("path") is not None:
                yield value["path"]
            waiting.extend(value[key] for key in value if key != "path")
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and (len(value) > MAX_TEXT or _SURROGATE.search(value)):
            raise refusal("A name in this request is too long, or has characters that are none: rename the file.")


class Page(gr.Blocks):
    """gr.Blocks that checks every file and explains every refusal.

    The traceback of an unexpected error goes to the log alone: it names files and lines of this machine.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **options: Any) -> list[Any]:
        check_files(inputs)
        try:
            return await super().preprocess_data(block_fn, inputs, *rest, **options)
        except AppError:
            raise
        except Exception as error:  # each component has its own for a value of another type
            names = [block.label or type(block).__name__.lower() for block in block_fn.inputs]
            raise refusal(
                f"What was sent does not fit: needed are {', '.join(names)}, in this order; a file as "
                f"{FILE_EXAMPLE}, with the path that its upload returned."
            ) from error

    async def process_api(self, *inputs: Any, **options: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*inputs, **options)
        except AppError:
            raise
        except EXPECTED as error:
            raise refusal(str(error)) from error
        except Exception as error:
            traceback.print_exc()
            raise refusal(OUR_MISTAKE) from error


def not_found(request: Request, error: Exception) -> JSONResponse:
    """Answer a request for an unknown function or without fields."""
    return JSONResponse(
        {"error": "This cannot be asked here: /gradio_api/info lists what can, and what each needs."}, 500
    )
