"""Expected errors are shown, unexpected ones only logged."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from typing import Any

import gradio as gr
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from gradio.context import LocalContext
from gradio_client.exceptions import AppError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unet.bundle import BundleError
from unet.images import ImageError

EXPECTED = (BundleError, ImageError)  # sentences for whoever sent the picture or named the network
FILE_EXAMPLE = '{"path": "…", "meta": {"_type": "gradio.FileData"}}'
NOT_UPLOADED = f"Files are uploaded first: send the path that the upload returned, as {FILE_EXAMPLE}."
MAX_VALUES = 2000  # in a request's JSON; two hundred files with their names take 1,600
MAX_TEXT = 4000  # characters of a name, or of any other text
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no file or answer can hold
_FOLDERS = re.compile(r"(?<![\w:/.…-])/(?:[^\s/'\"]+/)+(?=[^\s/'\"])")  # of an absolute path, all but its last name
JSON_BYTES = 250_000  # a hundred files with their names take 40,000
TOOL_BYTES = 20_000_000  # of an MCP tool's call, which holds its pictures
UPLOAD_BYTES = 1_000_000_000  # of all files of one upload; Gradio bounds the size of each, and their number
OUR_MISTAKE = "Something went wrong here that should not have: try it again, or with another picture."


def refusal(sentence: str) -> gr.Error:
    """An expected error, without this machine's folders."""
    sentence = _FOLDERS.sub("", sentence)
    begins_with_a_name = "/" in sentence.partition(" ")[0]
    return gr.Error(sentence if begins_with_a_name else sentence[:1].upper() + sentence[1:], print_exception=False)


class ClientDisconnected(gr.Error):
    """The client hung up; only Gradio's queue sees it."""

    def __init__(self) -> None:
        super().__init__("The client disconnected.", print_exception=False)


def raise_if_disconnected() -> None:
    """Raise ClientDisconnected if the client has left."""
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks and event_id:  # not outside of a handler, nor in ZeroGPU's process: the work goes on
        event = blocks._queue.event_ids_to_events.get(event_id)
        if event is None or not event.alive:
            raise ClientDisconnected


def check_files(inputs: Any) -> None:
    """Raise unless a request's files were uploaded here.

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
    """Every "path" in nested values; refuses unusable ones."""
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
    """Answer a request for an unknown function."""
    return JSONResponse(
        {"error": "This cannot be asked here: /gradio_api/info lists what can, and what each needs."}, 500
    )


def limit_body(app: ASGIApp) -> ASGIApp:
    """ASGI middleware: 413 for a body too large.

    Gradio goes over the JSON of a request on the event loop, which serves everybody: 2.7 MB that name 20,000 files
    stopped the page for 11 seconds.
    """

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        path, size = scope.get("path", "").rstrip("/"), 0
        limit = TOOL_BYTES if "/gradio_api/mcp" in path else JSON_BYTES
        limit = UPLOAD_BYTES if path.endswith("/upload") else limit

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise HTTPException(413, f"This request may have {limit:,} bytes: send less at a time.")
            return message

        await app(scope, bounded, send)

    return limited
