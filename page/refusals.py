"""Whatever cannot be done is refused in a sentence; what goes wrong here is in the log, which no visitor is shown."""

from __future__ import annotations

import traceback
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio_client.exceptions import AppError

FILE_EXAMPLE = '{"path": "…", "meta": {"_type": "gradio.FileData"}}'
OUR_MISTAKE = "Something went wrong here that should not have: try it again, or with another picture."


def refusal(sentence: str) -> gr.Error:
    """What a person reads; the log stays free of it."""
    begins_with_a_name = "/" in sentence.partition(" ")[0]
    return gr.Error(sentence if begins_with_a_name else sentence[:1].upper() + sentence[1:], print_exception=False)


class Page(gr.Blocks):
    """gr.Blocks that answers in a sentence where Gradio says nothing: what was sent does not fit, or we made a mistake.

    Why a mistake was one is in the log, which nobody is shown: it names files and lines of this machine.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **options: Any) -> list[Any]:
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
        except Exception as error:
            traceback.print_exc()
            raise refusal(OUR_MISTAKE) from error


def say_what_there_is(request: Request, error: Exception) -> JSONResponse:
    """To a request for what is no function of the page, or without what it needs."""
    return JSONResponse(
        {"error": "This cannot be asked here: /gradio_api/info lists what can, and what each needs."}, 500
    )
