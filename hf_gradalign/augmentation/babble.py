import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.augmentation.checks import check_integer, check_number, check_ordered
from hf_gradalign.augmentation.sound_files import list_recordings, read_stretch
from hf_gradalign.augmentation.speech_transform import SpeechTransform

MAX_DB = 200.0
# Of a talker's speed where the clip's own voice is made into others: as far as voices lie apart.
_MIN_SPEED, _MAX_SPEED = 0.8, 1.25


class AddBabble(SpeechTransform):
    """Babble: several people who talk in the background, added at a signal-to-noise ratio.

    Talkers are brought to the same level, summed, and brought to the ratio. Source: Snyder et al., "X-vectors: robust
    DNN embeddings for speaker recognition", ICASSP 2018, section 3.3: three to seven speakers of MUSAN, 13 to 20 dB.

    Without recordings of speech the talkers are simulated from the clip itself: played backwards from a random place,
    at 0.8 to 1.25 of its speed. Nothing can be understood, and no other clip's voice or artefacts come in.

    `randomize_parameters` draws from Python's global `random`; `parameters` can be written as JSON.
    """

    def __init__(
        self,
        sounds_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        min_talkers: int = 3,
        max_talkers: int = 7,
        min_snr_db: float = 13.0,
        max_snr_db: float = 20.0,
        p: float = 1.0,
    ) -> None:
        """Check and keep what to draw from.

        Args:
            sounds_path: Recordings of speech, in an order that stays, or folders of them, one or several; None to
                simulate talkers.
            min_talkers: Least number of talkers, >= 1; they may come from the same recording.
            max_talkers: Greatest number.
            min_snr_db: Least ratio of the energies of clip and babble in dB, -200 to 200.
            max_snr_db: Greatest ratio.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If a number is outside its range, a `min_` argument is above its `max_` argument, or there are
                no such recordings.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.sounds_path = [] if sounds_path is None else list_recordings(sounds_path, "sounds_path")
        if sounds_path is not None and not self.sounds_path:
            raise ValueError("sounds_path has no recordings; leave it out to simulate talkers")
        self.min_talkers = check_integer("min_talkers", min_talkers, 1)
        self.max_talkers = check_integer("max_talkers", max_talkers, 1)
        self.min_snr_db = check_number("min_snr_db", min_snr_db, -MAX_DB, MAX_DB)
        self.max_snr_db = check_number("max_snr_db", max_snr_db, -MAX_DB, MAX_DB)
        check_ordered("min_talkers", self.min_talkers, "max_talkers", self.max_talkers)
        check_ordered("min_snr_db", self.min_snr_db, "max_snr_db", self.max_snr_db)

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, and if so the ratio and the talkers, into `self.parameters`."""
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            talkers = range(random.randint(self.min_talkers, self.max_talkers))
            self.parameters |= {
                "snr_db": random.uniform(self.min_snr_db, self.max_snr_db),
                "talkers": [self._draw_talker() for _ in talkers],
            }

    def _draw_talker(self) -> dict[str, Any]:
        if not self.sounds_path:
            return {"position": random.random(), "speed": random.uniform(_MIN_SPEED, _MAX_SPEED)}
        return {"position": random.random(), "file": random.choice(self.sounds_path)}

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        channels = [self._add(channel, sample_rate) for channel in np.atleast_2d(samples.astype(np.float64))]
        return np.reshape(channels, samples.shape)

    def _add(self, channel: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
        babble = np.zeros(len(channel))
        for talker in self.parameters["talkers"]:
            voice: NDArray[np.floating]
            if "file" in talker:
                voice = read_stretch(talker["file"], sample_rate, talker["position"], len(channel))
            else:
                voice = _other_voice(channel, talker["position"], talker["speed"])
            level = np.sqrt(np.mean(np.square(voice)))
            if level > 0:
                babble += voice / level
        level = np.sqrt(np.mean(np.square(babble)))
        if level == 0:
            return channel
        wanted = np.sqrt(np.mean(np.square(channel))) / 10 ** (self.parameters["snr_db"] / 20)
        return channel + babble * (wanted / level)


def _other_voice(samples: NDArray[np.float64], position: float, speed: float) -> NDArray[np.float64]:
    """The clip backwards in a circle, from `position` in [0, 1), at `speed`, between samples on straight lines."""
    times = position * len(samples) + speed * np.arange(len(samples))
    before = times.astype(np.int64)
    laps = int(position + speed) + 2
    circle = np.tile(samples[::-1], laps)
    left = circle[before]
    return left + (circle[before + 1] - left) * (times - before)
