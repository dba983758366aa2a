"""Progress bars of libraries, which come and go at every loading and saving."""

from types import ModuleType

from hf_gradalign.utils.lazy_imports import after_import


def hide_library_bars(*, downloads: bool = False) -> None:
    """Hide the bars of transformers (weights, shards) and datasets (generating splits), for a command to have its own.

    Neither library is imported for it: its bars are hidden as soon as it is.

    Args:
        downloads: Whether to hide those of downloads and uploads, too.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    def hide_bars_of_transformers(transformers: ModuleType) -> None:
        were_hidden = are_progress_bars_disabled()
        transformers.utils.logging.disable_progress_bar()  # hides those of downloads
        if not were_hidden:
            enable_progress_bars()

    if downloads:
        disable_progress_bars()
    after_import("datasets", lambda datasets: datasets.disable_progress_bars())
    after_import("transformers", hide_bars_of_transformers)


__all__ = ["hide_library_bars"]
