"""Waveform augmentation: audiomentations transforms of speech's channels and surroundings, and recipes of them.

RawBoost, also for batches on an accelerator; lossy codecs; noise, babble and rooms; masks. By name or from a file.
"""

from hf_gradalign.augmentation.babble import AddBabble
from hf_gradalign.augmentation.batched_rawboost import BatchedRawBoost
from hf_gradalign.augmentation.codec import Codec
from hf_gradalign.augmentation.frequency_mask import FrequencyMask
from hf_gradalign.augmentation.musan_rir import MusanRir
from hf_gradalign.augmentation.packet_loss import PacketLoss
from hf_gradalign.augmentation.rawboost import RawBoost
from hf_gradalign.augmentation.recipes import available_augmentations, get_augmentation, recipe_name
from hf_gradalign.augmentation.reverberation import Reverberation

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
