"""Sound files, read to their end: by libsndfile, and by FFmpeg's libraries (PyAV) what libsndfile cannot read."""

from hf_gradalign.audio.arrays import sound_of_array
from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.reading import SteadyBlocks, open_sound, read_sound, unheard_by_libsndfile
from hf_gradalign.audio.resampling import resample_blocks, resample_clip
from hf_gradalign.audio.sound import Sound

__all__ = [
    "AudioDecodingError",
    "Sound",
    "SteadyBlocks",
    "open_sound",
    "read_sound",
    "resample_blocks",
    "resample_clip",
    "sound_of_array",
    "unheard_by_libsndfile",
]
