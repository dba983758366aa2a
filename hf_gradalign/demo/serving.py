"""Run the page until it is stopped."""

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

from hf_gradalign.demo.page import make_demo

_HIGHEST_PORT = 65_535


def serve(
    models: Sequence[str | os.PathLike[str]],
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    **options: Any,
) -> None:
    """Run the page until Ctrl-C or SIGTERM. Then its uploads are deleted.

    Args:
        models: Names or folders of models.
        host: Address to listen on. None for 127.0.0.1, or for what a Space asks for.
        port: Port to listen on. None for the first free one from 7860 on, or for what a Space asks for.
        share: Whether to make a public link through Gradio's servers.
        options: Options of `make_demo`.

    Raises:
        OSError: If the port is taken, or there is no such model.
        ValueError: If there is no such port; like `make_demo`.
    """
    if port is not None and not 1 <= port <= _HIGHEST_PORT:
        raise ValueError(f"port must be from 1 to {_HIGHEST_PORT}, not {port}")
    page = make_demo(models, **options)
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            page.launch(server_name=host, server_port=port, share=share, prevent_thread_lock=True, quiet=True)
        except OSError as error:
            if port is None or "port" not in str(error):
                raise
            raise OSError(f"port {port} cannot be used, perhaps because something else does: choose another") from error
        print(f"The page is at {page.local_url} (Ctrl-C stops it)", flush=True)  # noqa: T201
        stopped.wait()
    finally:
        page.close(verbose=False)
        for number, handler in before.items():
            signal.signal(number, handler)
