import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.augmentation.base import SpeechTransform, check_integer, check_number, check_ordered
from hf_gradalign.augmentation.noise.recordings import list_recordings, read_segment

MAX_DB = 200.0
# The range of a simulated talker's speed covers about as much as voices differ.
_MIN_SPEED, _MAX_SPEED = 0.8, 1.25


class AddBabble(SpeechTransform):
    """Adds babble: several people talking in the background, at a signal-to-noise ratio.

    Talkers are scaled to the same level and summed, and the sum is scaled to the ratio.

    Source: Snyder et al., "X-vectors: robust DNN embeddings for speaker recognition", ICASSP 2018, section 3.3: three
    to seven speakers of MUSAN, 13 to 20 dB.

    Without recordings of speech, talkers are simulated from the clip itself: played backward from a random position, at
    0.8 to 1.25 times its speed. Such talkers are unintelligible, and do not add another clip's voice or artifacts.

    `randomize_parameters` draws from Python's global `random`. `parameters` can be written as JSON.
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
        """Check and store the ranges to draw from.

        Args:
            sounds_path: One or more recordings of speech, or folders of them. The draws depend on their order. None
                simulates talkers.
            min_talkers: Smallest number of talkers, >= 1. Several may come from the same recording.
            max_talkers: Largest number.
            min_snr_db: Lowest ratio of the energies of clip and babble in dB, -200 to 200.
            max_snr_db: Highest ratio in dB.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If a number is outside its range, a `min_` argument is above its `max_` argument, or there are
                no recordings.
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
        """Draw whether to apply the transform, the ratio and the talkers, into `self.parameters`."""
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
                voice = read_segment(talker["file"], sample_rate, talker["position"], len(channel))
            else:
                voice = _other_voice(channel, talker["position"], talker["speed"])
            rms = np.sqrt(np.mean(np.square(voice)))
            if rms > 0:
                babble += voice / rms
        rms = np.sqrt(np.mean(np.square(babble)))
        if rms == 0:
            return channel
        target = np.sqrt(np.mean(np.square(channel))) / 10 ** (self.parameters["snr_db"] / 20)
        return channel + babble * (target / rms)


def _other_voice(samples: NDArray[np.float64], position: float, speed: float) -> NDArray[np.float64]:
    """Return the clip, looped and backward, from `position` in [0, 1), at `speed`, linearly interpolated."""
    times = position * len(samples) + speed * np.arange(len(samples))
    before = times.astype(np.int64)
    laps = int(position + speed) + 2
    circle = np.tile(samples[::-1], laps)
    left = circle[before]
    return left + (circle[before + 1] - left) * (times - before)
