"""Lossy codecs as an augmentation."""

from hf_gradalign.augmentation.codecs.codec import Codec

__all__ = ["Codec"]
