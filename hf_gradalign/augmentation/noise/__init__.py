"""Noise, babble and reverberation, recorded or simulated."""

from hf_gradalign.augmentation.noise.babble import AddBabble
from hf_gradalign.augmentation.noise.musan_rir import MusanRir
from hf_gradalign.augmentation.noise.reverberation import Reverberation

__all__ = ["AddBabble", "MusanRir", "Reverberation"]
