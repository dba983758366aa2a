"""Model cards, uploads to the Hugging Face Hub, calibration of saved models, and the Arena."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.hub.model_calibration import CalibratedFolder, scoring_settings, windowing_of
    from hf_gradalign.hub.model_card import ModelCardFacts, SplitResult, write_model_card
    from hf_gradalign.hub.publishing import IGNORED_PATTERNS, PublishingError, check_access, publish, push_command
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "IGNORED_PATTERNS",
    "CalibratedFolder",
    "ModelCardFacts",
    "PublishingError",
    "SplitResult",
    "check_access",
    "publish",
    "push_command",
    "scoring_settings",
    "windowing_of",
    "write_model_card",
]
