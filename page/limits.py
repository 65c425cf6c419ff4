"""Bound a request's body before anything parses it.

Gradio goes over the JSON of a request on the event loop, which serves everybody: 2.7 MB that name 20,000 files stopped
the page for 11 seconds.
"""

from __future__ import annotations

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON_BYTES = 250_000  # a hundred files with their names take 40,000
TOOL_BYTES = 20_000_000  # of an MCP tool's call, which holds its pictures
UPLOAD_BYTES = 1_000_000_000  # of all files of one upload; Gradio bounds the size of each, and their number


class BodyLimit:
    """ASGI middleware that answers 413 to a body too large."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = _limit(scope.get("path", "").rstrip("/"))
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise HTTPException(413, f"This request may have {limit:,} bytes: send less at a time.")
            return message

        await self.app(scope, bounded, send)


def _limit(path: str) -> int:
    """Bytes that a request to this path may have."""
    if path.endswith("/upload"):
        return UPLOAD_BYTES
    return TOOL_BYTES if "/gradio_api/mcp" in path else JSON_BYTES
