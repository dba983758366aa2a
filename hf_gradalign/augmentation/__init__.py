"""Waveform augmentation: RawBoost and codecs as audiomentations transforms, and recipes by name or from a file."""

from hf_gradalign.augmentation.codec import Codec
from hf_gradalign.augmentation.rawboost import RawBoost
from hf_gradalign.augmentation.recipes import available_augmentations, get_augmentation

__all__ = ["Codec", "RawBoost", "available_augmentations", "get_augmentation"]
