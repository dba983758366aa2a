"""Adjusts other libraries: lets torchaudio be imported next to a CPU-only torch, and hides progress bars.

The only torchaudio wheel for x86-64 Linux links its compiled extension to CUDA. Next to a torch without CUDA, importing
it raises `OSError`. That also breaks transformers' audio models and `evaluate`, because both only check whether the
package is installed. The parts of torchaudio that they (and this package) use are pure Python on top of torch.
torchaudio also works without its extension if its loader reports that there is none.
"""

from types import ModuleType

from hf_gradalign.utils.lazy_imports import after_import

TORCHAUDIO_LOADER = "torchaudio._extension.utils"
"""The module that loads torchaudio's extension."""


def allow_missing_extension(loader: ModuleType) -> None:
    """Let torchaudio be imported without its extension if that needs CUDA and this torch has none.

    If the extension can be loaded, it is. If torch has CUDA, errors are raised as usual.

    Args:
        loader: The module `TORCHAUDIO_LOADER`.
    """
    load = vars(loader)["_load_lib"]

    def load_if_possible(lib: str) -> bool:
        import torch

        try:
            return load(lib)
        except OSError:
            if torch.version.cuda is not None:
                raise
            return False

    vars(loader)["_load_lib"] = load_if_possible


def hide_library_bars(*, downloads: bool = False) -> None:
    """Hide the progress bars of transformers (weights, shards) and datasets (splits), so that a command shows its own.

    This does not import the libraries. Their bars are hidden once they are imported.

    Args:
        downloads: Whether to also hide the bars of downloads and uploads.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    def hide_bars_of_transformers(transformers: ModuleType) -> None:
        were_hidden = are_progress_bars_disabled()
        transformers.utils.logging.disable_progress_bar()  # also hides the bars of downloads
        if not were_hidden:
            enable_progress_bars()

    if downloads:
        disable_progress_bars()
    after_import("datasets", lambda datasets: datasets.disable_progress_bars())
    after_import("transformers", hide_bars_of_transformers)
