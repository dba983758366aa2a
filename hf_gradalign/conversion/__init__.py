"""Published detectors' checkpoints into models of this package, and back."""

from hf_gradalign.conversion.converting import ConversionReport, convert_state_dict, published_state_dict
from hf_gradalign.conversion.errors import ConversionError
from hf_gradalign.conversion.reading import locate_checkpoint, read_state_dict, sha256_of

__all__ = [
    "ConversionError",
    "ConversionReport",
    "convert_state_dict",
    "locate_checkpoint",
    "published_state_dict",
    "read_state_dict",
    "sha256_of",
]
