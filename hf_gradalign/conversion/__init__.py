"""Converts the checkpoints of published detectors to models of this package, and back."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.conversion.by_name import cache_folder, identify, model_folder
    from hf_gradalign.conversion.card import (
        CONVERTED_BY,
        GIVEN_LICENSE,
        ConversionCardFacts,
        conversion_facts,
        save_converted,
        write_conversion_card,
    )
    from hf_gradalign.conversion.converting import (
        ConversionReport,
        conversion_arguments,
        convert_state_dict,
        largest_difference,
        published_state_dict,
    )
    from hf_gradalign.conversion.finding import Checkpoint, locate_checkpoint
    from hf_gradalign.conversion.published import PublishedDetector, card_facts, find_by_repo, published_detectors
    from hf_gradalign.conversion.reading import ConversionError, read_state_dict
    from hf_gradalign.utils.files import sha256_of
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "CONVERTED_BY",
    "GIVEN_LICENSE",
    "Checkpoint",
    "ConversionCardFacts",
    "ConversionError",
    "ConversionReport",
    "PublishedDetector",
    "cache_folder",
    "card_facts",
    "conversion_arguments",
    "conversion_facts",
    "convert_state_dict",
    "find_by_repo",
    "identify",
    "largest_difference",
    "locate_checkpoint",
    "model_folder",
    "published_detectors",
    "published_state_dict",
    "read_state_dict",
    "save_converted",
    "sha256_of",
    "write_conversion_card",
]
