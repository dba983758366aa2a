"""Make `import torchaudio` work beside a CPU-only torch.

The only torchaudio wheel for x86-64 Linux links its compiled extension to CUDA. Beside a torch without CUDA the import
raises `OSError`, and it takes transformers' audio models and `evaluate` down with it, because both only look whether
the package is installed. Everything that they (and we) use of torchaudio is pure Python on top of torch, and torchaudio
itself knows how to live without its extension: its loader only has to answer that there is none.
"""

import sys
from types import ModuleType

import torch

_LOADER = "torchaudio._extension.utils"


def ensure_torchaudio_imports() -> bool:
    """Import torchaudio, and where its extension needs a CUDA that this torch lacks, import it without.

    Does nothing where the plain import works, where torchaudio is not installed, or where torch has CUDA (there the
    error is a real one, and it is left for whoever needs torchaudio to see).

    Returns:
        Whether transformers' audio models can be imported: torchaudio works, or is not there.
    """
    try:
        import torchaudio
    except ImportError:
        return True
    except OSError:
        if torch.version.cuda is not None:
            return False
        _forget_failed_import()
        sys.modules[_LOADER] = _loader_without_extension()
        import torchaudio  # noqa: F401
    return True


def _forget_failed_import() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        del sys.modules[name]


def _loader_without_extension() -> ModuleType:
    loader = ModuleType(_LOADER)
    loader._load_lib = lambda lib: False
    loader._check_cuda_version = lambda: None
    loader._init_dll_path = lambda: None
    return loader
