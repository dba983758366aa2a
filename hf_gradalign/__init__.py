"""Dual-path augmented training with gradient alignment for speech deepfake detectors (arXiv 2509.20682)."""

from hf_gradalign._torchaudio import ensure_torchaudio_imports

# Before anything imports transformers or evaluate: both break on a torchaudio that does not import.
if ensure_torchaudio_imports():
    # The Auto classes of transformers know the detectors from here on.
    from hf_gradalign import models  # noqa: F401

__version__ = "0.1.0"
__all__ = ["__version__"]
