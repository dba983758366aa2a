import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.augmentation.checks import check_number, check_ordered
from hf_gradalign.augmentation.lossy_coding import ALL_CODECS, CODECS, available_codecs, code_and_decode
from hf_gradalign.augmentation.speech_transform import SpeechTransform

# The ends of what MP3 and Opus can be set to.
MIN_KBPS, MAX_KBPS = 6.0, 320.0


class Codec(SpeechTransform):
    """A lossy codec and back: what speech goes through on the telephone, in messengers and on the Web.

    Codecs of the telephone, at 8 kHz: `gsm` (GSM 06.10 full rate), `mu_law` and `a_law` (G.711). Codecs of the Web, at
    the sample rate or the next that they take: `mp3` (constant bit rate), `opus` and `vorbis` (variable bit rate; for
    Vorbis a quality is drawn in place of a bit rate). All of them run in memory through libsndfile, without FFmpeg.
    (audiomentations' `Mp3Compression` needs a package of its own for MP3 and has none of the others.)

    More have to be named: `g722` (wideband telephony, 16 kHz), which needs the extra `codecs`, and by FFmpeg's
    libraries in PyAV's wheels `aac`, `amr_nb` (mobile telephony, 8 kHz) and `g723_1` (Internet telephony, 8 kHz).
    What is drawn from never depends on what is installed: a codec that is named and missing is an error.

    Takes finite floating-point samples of shape (samples,) or (channels, samples) and gives float32 of that shape, in
    time with what went in; channels are coded apart, each as it would be alone. A channel whose peak is above 1 is
    scaled down to it for the codec and up again afterwards. An empty clip is returned as it is. Scale integer samples
    to [-1, 1] first: they are refused, since what a codec loses depends on the level. Silence need not stay digital
    silence: A-law and GSM have no code for it.

    `randomize_parameters` draws from Python's global `random`, as other audiomentations transforms do. `parameters` can
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
        """Check and keep what to draw from; a codec is drawn first, each equally likely, then its bit rate, uniformly.

        Args:
            codecs: Names of codecs, see above; a name that comes twice is twice as likely.
            min_kbps: Least bit rate of MP3, Opus and AAC in kbit/s, 6 to 320. MP3 takes the nearest that it has at
                the sample rate: 8 to 160 at 16 to 24 kHz, 8 to 64 below, 32 to 320 above. Opus ends at 256.
            max_kbps: Greatest bit rate in kbit/s.
            min_vorbis_quality: Least quality of Vorbis, 0 to 1. At 16 kHz, 0 is about 35 and 1 about 80 kbit/s.
            max_vorbis_quality: Greatest quality of Vorbis.
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
        """Draw whether to apply the transform, and if so the codec and its setting, into `self.parameters`.

        Args:
            samples: Not looked at.
            sample_rate: Not looked at.
        """
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            name = random.choice(self.codecs)
            self.parameters |= {"codec": name, "setting": self._draw_setting(name)}

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.float64]:
        channels = [self._pass(channel, sample_rate) for channel in np.atleast_2d(samples.astype(np.float64))]
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

    def _pass(self, channel: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
        scale = max(1.0, np.abs(channel).max())
        drawn: dict[str, Any] = self.parameters
        return scale * code_and_decode(channel / scale, drawn["codec"], int(sample_rate), drawn["setting"])


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
