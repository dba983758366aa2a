"""Waveform augmentation: audiomentations transforms for speech, and recipes by name or from a file.

RawBoost for single clips and for batches on an accelerator; lossy codecs; noise, babble and rooms; masks.
"""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.augmentation.codecs import Codec
    from hf_gradalign.augmentation.masks import FrequencyMask, PacketLoss
    from hf_gradalign.augmentation.noise import AddBabble, MusanRir, Reverberation
    from hf_gradalign.augmentation.rawboost import BatchedRawBoost, RawBoost
    from hf_gradalign.augmentation.recipes import available_augmentations, get_augmentation, recipe_name
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "AddBabble",
    "BatchedRawBoost",
    "Codec",
    "FrequencyMask",
    "MusanRir",
    "PacketLoss",
    "RawBoost",
    "Reverberation",
    "available_augmentations",
    "get_augmentation",
    "recipe_name",
]
