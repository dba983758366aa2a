"""Sound files, read to their end: by libsndfile, and by FFmpeg's libraries (PyAV) what libsndfile cannot read."""

from hf_gradalign.audio.arrays import sound_of_array
from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.reading import Sound, read_sound, unheard_by_libsndfile
from hf_gradalign.audio.resampling import resample_clip

__all__ = ["AudioDecodingError", "Sound", "read_sound", "resample_clip", "sound_of_array", "unheard_by_libsndfile"]
