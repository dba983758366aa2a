"""Reads sound files completely: with libsndfile, or with FFmpeg's libraries (PyAV) if libsndfile cannot."""

from hf_gradalign.audio.reading import SteadyBlocks, open_sound, read_sound, unread_by_libsndfile
from hf_gradalign.audio.resampling import resample_blocks, resample_clip
from hf_gradalign.audio.sound import AudioDecodingError, Sound, sound_of_array

__all__ = [
    "AudioDecodingError",
    "Sound",
    "SteadyBlocks",
    "open_sound",
    "read_sound",
    "resample_blocks",
    "resample_clip",
    "sound_of_array",
    "unread_by_libsndfile",
]
