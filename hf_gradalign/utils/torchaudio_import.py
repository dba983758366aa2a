"""Make `import torchaudio` work beside a CPU-only torch.

The only torchaudio wheel for x86-64 Linux links its compiled extension to CUDA. Beside a torch without CUDA the import
raises `OSError`, and it takes transformers' audio models and `evaluate` down with it, because both only look whether
the package is installed. Everything that they (and we) use of torchaudio is pure Python on top of torch, and torchaudio
itself knows how to live without its extension: its loader only has to answer that there is none.
"""

from types import ModuleType

LOADER = "torchaudio._extension.utils"
"""The module that loads the extension."""


def live_without_extension(loader: ModuleType) -> None:
    """Let torchaudio be imported without its extension where that needs a CUDA that this torch lacks.

    An extension that can be loaded is loaded. Where torch has CUDA, the error is a real one, and whoever imports
    torchaudio sees it.

    Args:
        loader: The module `LOADER`.
    """
    load = loader._load_lib

    def load_if_possible(lib: str) -> bool:
        import torch

        try:
            return load(lib)
        except OSError:
            if torch.version.cuda is not None:
                raise
            return False

    loader._load_lib = load_if_possible


__all__ = ["LOADER", "live_without_extension"]
