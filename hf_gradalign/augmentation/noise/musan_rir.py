import logging
import os
from collections.abc import Sequence

import numpy as np
from audiomentations import AddBackgroundNoise, AddColorNoise, OneOf
from numpy.typing import NDArray

from hf_gradalign.augmentation.base import check_number
from hf_gradalign.augmentation.noise.babble import AddBabble
from hf_gradalign.augmentation.noise.recordings import (
    IMPULSE_RESPONSE,
    MUSIC,
    NOISE,
    SPEECH,
    find_recordings,
    without_resampling_warnings,
)
from hf_gradalign.augmentation.noise.reverberation import Reverberation

logger = logging.getLogger(__name__)

# Signal-to-noise ratios in dB.
NOISE_SNRS, MUSIC_SNRS, BABBLE_SNRS = (0.0, 15.0), (5.0, 15.0), (13.0, 20.0)
# Slope of simulated noise in dB per octave, from brown to white.
NOISE_DECAYS = (-6.0, 0.0)
_FALLBACKS = {NOISE: "simulated", MUSIC: "left out", SPEECH: "simulated", IMPULSE_RESPONSE: "simulated rooms"}
# In seconds. AddBackgroundNoise needs a few samples, and shorter clips contain no speech.
_MIN_SECONDS = 0.05


class MusanRir(OneOf):
    """Noise, music, babble or reverberation, one per clip: the standard augmentation of speaker verification.

    Source: Snyder et al., "X-vectors: robust DNN embeddings for speaker recognition", ICASSP 2018, section 3.3:

    - noise from MUSAN at 0 to 15 dB, one recording for the whole clip (the paper: one per second),
    - music from MUSAN at 5 to 15 dB,
    - babble: three to seven talkers from MUSAN's speech, at 13 to 20 dB in total,
    - reverberation: convolution with an impulse response of RIRS_NOISES' simulated small and medium rooms.

    All four are equally likely. Kinds without recordings are simulated: white to brown noise (audiomentations'
    `AddColorNoise`), talkers from the clip itself (`AddBabble`), rooms from image sources (`Reverberation`). Music is
    not simulated and is left out without recordings.

    The peak of the result may be above 1. Clips shorter than 50 ms are returned unchanged.
    """

    def __init__(self, sounds: str | os.PathLike[str] | Sequence[str] | None = None, p: float = 1.0) -> None:
        """Find the recordings.

        Args:
            sounds: Folders with MUSAN, RIRS_NOISES or similar recordings, or data sets on the Hub; see
                `find_recordings`. None simulates everything.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If `p` is outside its range, or a folder is missing or has no recordings of a known kind.
        """
        folders = [] if sounds is None else [sounds] if isinstance(sounds, str | os.PathLike) else list(sounds)
        self.sounds = [str(folder) for folder in folders] or None
        recordings = find_recordings(folders)
        for kind, fallback in _FALLBACKS.items():
            logger.info(
                "musan_rir: %s: %s", kind, f"{len(recordings[kind])} recordings" if kind in recordings else fallback
            )
        transforms = [_noise(recordings.get(NOISE))]
        if MUSIC in recordings:
            transforms.append(AddBackgroundNoise(recordings[MUSIC], *MUSIC_SNRS, p=1.0))
        transforms.append(AddBabble(recordings.get(SPEECH), min_snr_db=BABBLE_SNRS[0], max_snr_db=BABBLE_SNRS[1]))
        transforms.append(Reverberation(recordings.get(IMPULSE_RESPONSE)))
        super().__init__(transforms, check_number("p", p, 0, 1))

    def __call__(self, samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Draw one of the transforms (unless frozen) and apply it to a waveform of shape (samples,)."""
        if samples.shape[-1] < _MIN_SECONDS * sample_rate:
            return samples
        with without_resampling_warnings():
            return super().__call__(samples, sample_rate)


def _noise(recordings: Sequence[str] | None) -> AddBackgroundNoise | AddColorNoise:
    if recordings is None:
        return AddColorNoise(*NOISE_SNRS, *NOISE_DECAYS, p=1.0)
    return AddBackgroundNoise(recordings, *NOISE_SNRS, p=1.0)
