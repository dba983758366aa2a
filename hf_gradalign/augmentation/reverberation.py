import os
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

from hf_gradalign.augmentation.checks import check_number
from hf_gradalign.augmentation.simulated_room import draw_room, room_impulse_response
from hf_gradalign.augmentation.sound_files import list_recordings, read_impulse_response
from hf_gradalign.augmentation.speech_transform import SpeechTransform


class Reverberation(SpeechTransform):
    """The clip as it sounds in a room: convolved with a recorded impulse response or with a simulated room's.

    In time with what went in (the direct sound stays where it is), of the same length and of the same root mean square.
    (audiomentations' `ApplyImpulseResponse` leaves the delay in and brings every clip to a peak of 0.5, on which
    RawBoost's distortion after it would depend; its `RoomSimulator` needs pyroomacoustics, and 70 ms a clip.)

    `randomize_parameters` draws from Python's global `random`; `parameters` can be written as JSON.
    """

    def __init__(
        self, ir_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None, p: float = 1.0
    ) -> None:
        """Check and keep what to draw from.

        Args:
            ir_path: Impulse responses, in an order that stays, or folders of them, one or several; each response is
                equally likely, and of several channels the first is taken. None to simulate rooms (`simulated_room`).
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If `p` is outside its range or there are no such impulse responses.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.ir_path = [] if ir_path is None else list_recordings(ir_path, "ir_path")
        if ir_path is not None and not self.ir_path:
            raise ValueError("ir_path has no impulse responses; leave it out to simulate rooms")

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, and if so the room, into `self.parameters`."""
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            self.parameters |= {"file": random.choice(self.ir_path)} if self.ir_path else {"room": draw_room()}

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        if "room" in self.parameters:
            response, direct = room_impulse_response(self.parameters["room"], sample_rate), 0
        else:
            response = read_impulse_response(self.parameters["file"], sample_rate).astype(np.float64)
            direct = int(np.argmax(np.abs(response)))
        channels = np.atleast_2d(samples.astype(np.float64))
        wet = oaconvolve(channels, response[None], axes=-1)[:, direct : direct + samples.shape[-1]]
        levels, wet_levels = (np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True)) for x in (channels, wet))
        gains = np.divide(levels, wet_levels, out=np.ones_like(levels), where=wet_levels > 0)
        return (wet * gains).reshape(samples.shape)
