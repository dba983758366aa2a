"""Convert the checkpoints of published detectors to models of this package, and back."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.conversion.card import (
        PUBLISHED_DETECTORS,
        ConversionCardFacts,
        save_converted,
        write_conversion_card,
    )
    from hf_gradalign.conversion.converting import convert_state_dict, largest_difference, published_state_dict
    from hf_gradalign.conversion.reading import ConversionError, locate_checkpoint, read_state_dict
    from hf_gradalign.conversion.report import ConversionReport
    from hf_gradalign.utils.files import sha256_of

__getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "PUBLISHED_DETECTORS",
    "ConversionCardFacts",
    "ConversionError",
    "ConversionReport",
    "convert_state_dict",
    "largest_difference",
    "locate_checkpoint",
    "published_state_dict",
    "read_state_dict",
    "save_converted",
    "sha256_of",
    "write_conversion_card",
]
