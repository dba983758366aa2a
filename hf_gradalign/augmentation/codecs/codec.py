import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.augmentation.base import SpeechTransform, check_number, check_ordered
from hf_gradalign.augmentation.codecs.backends import ALL_CODECS, CODECS, available_codecs, code_and_decode

# The range of bit rates of MP3 and Opus.
MIN_KBPS, MAX_KBPS = 6.0, 320.0


class Codec(SpeechTransform):
    """Encodes and decodes the clip with a lossy codec, as on the telephone, in messengers and on the Web.

    Telephone codecs, at 8 kHz: `gsm` (GSM 06.10 full rate), `mu_law` and `a_law` (G.711). Web codecs, at the sample
    rate or the next higher one they support: `mp3` (constant bit rate), `opus` and `vorbis` (variable bit rate; Vorbis
    has a quality instead of a bit rate). All of them run in memory through libsndfile, without FFmpeg.
    (audiomentations' `Mp3Compression` supports MP3 only, and needs an extra package.)

    Further codecs must be named: `g722` (wideband telephony, 16 kHz), which needs the extra `codecs`, and through the
    FFmpeg libraries in PyAV's wheels `aac`, `amr_nb` (mobile telephony, 8 kHz) and `g723_1` (Internet telephony,
    8 kHz). The draws never depend on what is installed: naming a codec that is missing is an error.

    Takes finite floating-point samples of shape (samples,) or (channels, samples) and returns float32 of the same
    shape, without delay. Channels are coded separately. A channel with a peak above 1 is scaled down to 1 for the codec
    and back up afterwards. An empty clip is returned unchanged. Integer samples are refused, because a codec's losses
    depend on the level: scale them to [-1, 1] first. Silence may not stay digital silence: A-law and GSM cannot
    represent it.

    `randomize_parameters` draws from Python's global `random`, like other audiomentations transforms. `parameters` can
    be written as JSON. Applying frozen parameters draws nothing, and gives the same samples with the same libsndfile.
    """

    def __init__(
        self,
        codecs: Sequence[str] = tuple(CODECS),
        min_kbps: float = 16.0,
        max_kbps: float = 64.0,
        min_vorbis_quality: float = 0.0,
        max_vorbis_quality: float = 1.0,
        p: float = 1.0,
    ) -> None:
        """Check and store what to draw from. First a codec is drawn, all equally likely, then its bit rate, uniformly.

        Args:
            codecs: Names of codecs, see above. A name given twice is twice as likely.
            min_kbps: Lowest bit rate of MP3, Opus and AAC in kbit/s, 6 to 320. MP3 uses the nearest one it has at the
                sample rate: 8 to 160 at 16 to 24 kHz, 8 to 64 below, 32 to 320 above. Opus has at most 256.
            max_kbps: Highest bit rate in kbit/s.
            min_vorbis_quality: Lowest quality of Vorbis, 0 to 1. At 16 kHz, 0 is about 35 and 1 about 80 kbit/s.
            max_vorbis_quality: Highest quality of Vorbis.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If a codec is unknown or cannot be used here, a number is outside its range, or a
                `min_` argument is above its `max_` argument.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.codecs = _check_codecs(codecs)
        self.min_kbps = check_number("min_kbps", min_kbps, MIN_KBPS, MAX_KBPS)
        self.max_kbps = check_number("max_kbps", max_kbps, MIN_KBPS, MAX_KBPS)
        self.min_vorbis_quality = check_number("min_vorbis_quality", min_vorbis_quality, 0, 1)
        self.max_vorbis_quality = check_number("max_vorbis_quality", max_vorbis_quality, 0, 1)
        check_ordered("min_kbps", self.min_kbps, "max_kbps", self.max_kbps)
        check_ordered("min_vorbis_quality", self.min_vorbis_quality, "max_vorbis_quality", self.max_vorbis_quality)

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, the codec and its setting, into `self.parameters`.

        Args:
            samples: Unused.
            sample_rate: Unused.
        """
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            name = random.choice(self.codecs)
            self.parameters |= {"codec": name, "setting": self._draw_setting(name)}

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.float64]:
        channels = [self._code(channel, sample_rate) for channel in np.atleast_2d(samples.astype(np.float64))]
        return np.reshape(channels, samples.shape)

    def _draw_setting(self, name: str) -> float | None:
        setting = ALL_CODECS[name].setting
        if setting == "kbps":
            return random.uniform(self.min_kbps, self.max_kbps)
        if setting == "quality":
            return random.uniform(self.min_vorbis_quality, self.max_vorbis_quality)
        if setting == "choice":
            return random.choice(ALL_CODECS[name].choices)
        return None

    def _code(self, channel: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
        scale = max(1.0, np.abs(channel).max())
        codec, setting = self.parameters["codec"], self.parameters["setting"]
        return scale * code_and_decode(channel / scale, codec, int(sample_rate), setting)


def _check_codecs(codecs: Sequence[str]) -> tuple[str, ...]:
    names = (codecs,) if isinstance(codecs, str) else tuple(codecs)
    if not names:
        raise ValueError(f"codecs must name at least one of {', '.join(ALL_CODECS)}")
    if unknown := [name for name in names if name not in ALL_CODECS]:
        raise ValueError(f"unknown codec {unknown[0]!r}; there are {', '.join(ALL_CODECS)}")
    missing = [f"{name}: {reason}" for name in dict.fromkeys(names) if (reason := ALL_CODECS[name].missing())]
    if missing:
        raise ValueError(
            f"codecs that cannot be used here: {'; '.join(missing)}. There are {', '.join(available_codecs())}"
        )
    return names
