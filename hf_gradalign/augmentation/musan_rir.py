import logging
import os
from collections.abc import Sequence

import numpy as np
from audiomentations import AddBackgroundNoise, AddColorNoise, OneOf
from numpy.typing import NDArray

from hf_gradalign.augmentation.babble import AddBabble
from hf_gradalign.augmentation.checks import check_number
from hf_gradalign.augmentation.reverberation import Reverberation
from hf_gradalign.augmentation.sound_files import without_resampling_warnings
from hf_gradalign.augmentation.sound_folders import IMPULSE_RESPONSE, MUSIC, NOISE, SPEECH, find_sounds

logger = logging.getLogger(__name__)

# Signal-to-noise ratios in dB.
NOISE_SNRS, MUSIC_SNRS, BABBLE_SNRS = (0.0, 15.0), (5.0, 15.0), (13.0, 20.0)
# Of simulated noise: falling with the frequency, from brown to white, in dB an octave.
NOISE_DECAYS = (-6.0, 0.0)
_OTHERWISE = {NOISE: "simulated", MUSIC: "left out", SPEECH: "simulated", IMPULSE_RESPONSE: "simulated rooms"}
# What is shorter than this share of a second is no speech, and AddBackgroundNoise needs a few samples.
_SHORTEST = 0.05


class MusanRir(OneOf):
    """Noise, music, babble or reverberation: the augmentation of speaker verification, one of the four a clip.

    Source: Snyder et al., "X-vectors: robust DNN embeddings for speaker recognition", ICASSP 2018, section 3.3:

    - noise of MUSAN at 0 to 15 dB, one recording throughout the clip (there: one a second),
    - music of MUSAN at 5 to 15 dB,
    - babble: three to seven talkers of MUSAN's speech, together at 13 to 20 dB,
    - reverberation: convolution with an impulse response of RIRS_NOISES' simulated small and medium rooms.

    Each is equally likely. What there are no recordings of is simulated: noise is white to brown noise
    (audiomentations' `AddColorNoise`), talkers are made from the clip itself (`AddBabble`) and rooms from image sources
    (`Reverberation`); music is not, and is then left out.

    The clip may come out with a peak above 1. Clips of less than 50 ms are returned as they are.
    """

    def __init__(self, sounds: str | os.PathLike[str] | Sequence[str] | None = None, p: float = 1.0) -> None:
        """Find the recordings.

        Args:
            sounds: Folders with MUSAN, RIRS_NOISES or their like, or data sets on the Hub (`find_sounds` says what is
                looked for); None to simulate all.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If `p` is outside its range, or a folder is not found or has no recordings of known kind.
        """
        folders = [] if sounds is None else [sounds] if isinstance(sounds, str | os.PathLike) else list(sounds)
        self.sounds = [str(folder) for folder in folders] or None
        found = find_sounds(folders)
        for kind, otherwise in _OTHERWISE.items():
            there = f"{len(found[kind])} recordings" if kind in found else otherwise
            logger.info("musan_rir: %s: %s", kind, there)
        transforms = [_noise(found.get(NOISE))]
        if MUSIC in found:
            transforms.append(AddBackgroundNoise(found[MUSIC], *MUSIC_SNRS, p=1.0))
        transforms.append(AddBabble(found.get(SPEECH), min_snr_db=BABBLE_SNRS[0], max_snr_db=BABBLE_SNRS[1]))
        transforms.append(Reverberation(found.get(IMPULSE_RESPONSE)))
        super().__init__(transforms, check_number("p", p, 0, 1))

    def __call__(self, samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Draw one of the four, unless it is frozen, and apply it to a waveform of shape (samples,)."""
        if samples.shape[-1] < _SHORTEST * sample_rate:
            return samples
        with without_resampling_warnings():
            return super().__call__(samples, sample_rate)


def _noise(recordings: Sequence[str] | None) -> AddBackgroundNoise | AddColorNoise:
    if recordings is None:
        return AddColorNoise(*NOISE_SNRS, *NOISE_DECAYS, p=1.0)
    return AddBackgroundNoise(recordings, *NOISE_SNRS, p=1.0)
