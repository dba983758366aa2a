"""Adds to Gradio's server a limit on the size of requests, and rules for the browser."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from transformers.utils import logging

from hf_gradalign.utils.messages import is_disk_full

logger = logging.get_logger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# In addition to the file itself, a request contains its name and the boundaries of its parts.
_OVERHEAD = 100_000
# Gradio's frontend has styles and scripts in the page itself, and compiles templates.
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    ]
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class PageGuard:
    """Middleware that refuses large requests, and forbids browsers to load anything from elsewhere.

    Gradio limits the size of each file. This class limits the sum of all files of a request. Gradio would also fetch
    files from other machines for anyone who asks (`/gradio_api/file=https://...`). Such requests are refused.

    Args:
        app: The app.
        max_bytes: The largest upload.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], max_bytes: int) -> None:
        self._app = app
        self._most = max_bytes + _OVERHEAD

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "://" in scope["path"]:
            await _refuse(send, 403, b"This page loads nothing from other machines.")
            return
        n_received = 0
        has_started = False

        async def receive_limited() -> Message:
            nonlocal n_received
            message = await receive()
            n_received += len(message.get("body", b""))
            if n_received > self._most:
                raise _TooLargeError
            return message

        async def send_guarded(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        try:
            await self._app(scope, receive_limited, send_guarded)
        except _TooLargeError:
            if has_started:
                raise
            await _refuse(send_guarded, 413, b"This request is too large.")
        except ClientDisconnect:  # a visitor who left during an upload
            pass
        except OSError as error:
            if has_started or not is_disk_full(error):
                raise
            logger.error(f"An upload was refused: {os.environ['GRADIO_TEMP_DIR']}: {error.strerror}")
            await _refuse(send_guarded, 507, b"The disk of the page is full. Please tell those who run it.")


async def _refuse(send: Send, status: int, reason: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": reason})


class _TooLargeError(Exception):
    pass
