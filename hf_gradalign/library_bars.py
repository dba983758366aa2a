"""Progress bars of libraries, which come and go at every loading and saving."""

import datasets
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from transformers.utils import logging


def hide_library_bars(*, downloads: bool = False) -> None:
    """Hide the bars of transformers (weights, shards) and datasets (generating splits), for a command to have its own.

    Args:
        downloads: Whether to hide those of downloads and uploads, too.
    """
    were_hidden = are_progress_bars_disabled()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()  # hides those of downloads
    if not (downloads or were_hidden):
        enable_progress_bars()


__all__ = ["hide_library_bars"]
