import random

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.augmentation.checks import check_number
from hf_gradalign.augmentation.speech_transform import SpeechTransform

PACKET_SECONDS = 0.02


class PacketLoss(SpeechTransform):
    """Packets of a call that get lost: stretches of 20 ms are silent, at random.

    20 ms is what RTP puts into a packet of speech unless agreed otherwise (RFC 3551, section 4.2). Every packet is lost
    by itself with the same probability, and nothing conceals the gap.

    `randomize_parameters` draws from Python's global `random`; `parameters` can be written as JSON: which packets are
    lost is in it as a seed.
    """

    def __init__(self, max_percent: float = 5.0, p: float = 1.0) -> None:
        """Check and keep what to draw from.

        Args:
            max_percent: Greatest probability of a packet's loss in per cent, 0 to 100; the least is 0.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If an argument is outside its range.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.max_percent = check_number("max_percent", max_percent, 0, 100)

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, and if so how much is lost, into `self.parameters`."""
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            self.parameters |= {"percent": random.uniform(0, self.max_percent), "seed": random.getrandbits(53)}

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        length = max(1, round(PACKET_SECONDS * sample_rate))
        n_packets = -(-samples.shape[-1] // length)
        arrives = np.random.default_rng(self.parameters["seed"]).random(n_packets) >= self.parameters["percent"] / 100
        return samples * np.repeat(arrives, length)[: samples.shape[-1]].astype(samples.dtype)
