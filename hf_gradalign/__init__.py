"""Dual-path augmented training with gradient alignment for speech deepfake detectors (arXiv 2509.20682)."""

from types import ModuleType
from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import after_import, lazy_names
from hf_gradalign.utils.third_party import TORCHAUDIO_LOADER, allow_missing_extension

if TYPE_CHECKING:
    from hf_gradalign.augmentation import RawBoost
    from hf_gradalign.data import load_corpus
    from hf_gradalign.scoring import SpoofScorer, load_detector
    from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer
else:
    __getattr__, __dir__ = lazy_names(__name__)


def _register_detectors(transformers: ModuleType) -> None:
    """Register the detectors with the transformers Auto classes. This runs when transformers is imported."""
    try:
        import torchaudio  # noqa: F401
    except ImportError:
        pass
    except OSError:
        return  # no transformers audio model can be imported, and importing one says why
    import hf_gradalign.models  # noqa: F401


# Nothing heavy is imported here: `hf_gradalign.alignment` needs torch alone, and `--help` of a command nothing.
after_import(TORCHAUDIO_LOADER, allow_missing_extension)
after_import("transformers", _register_detectors)

__version__ = "0.1.0"
__all__ = [
    "GradientAlignmentArguments",
    "GradientAlignmentTrainer",
    "RawBoost",
    "SpoofScorer",
    "__version__",
    "load_corpus",
    "load_detector",
]
