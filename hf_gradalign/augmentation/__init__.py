"""Waveform augmentation: RawBoost as an audiomentations transform, and recipes by name or from a file."""

from hf_gradalign.augmentation.rawboost import RawBoost
from hf_gradalign.augmentation.recipes import available_augmentations, get_augmentation

__all__ = ["RawBoost", "available_augmentations", "get_augmentation"]
