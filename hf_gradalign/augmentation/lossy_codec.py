"""What every lossy codec has to say of itself."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LossyCodec(ABC):
    """A codec that waveforms are passed through.

    Attributes:
        sample_rates: The rates in Hz that the codec takes, in rising order.
        setting: What there is to set: a bit rate in kbit/s, a quality in [0, 1], one of `choices`, or nothing.
        choices: The bit rates in kbit/s that there are, where one of them is chosen.
    """

    sample_rates: tuple[int, ...]
    setting: Literal["kbps", "quality", "choice"] | None = None
    choices: tuple[float, ...] = ()

    def coding_rate(self, sample_rate: int) -> int:
        """The lowest of the codec's rates that holds all of the band, or else the highest there is."""
        return min((rate for rate in self.sample_rates if rate >= sample_rate), default=self.sample_rates[-1])

    @abstractmethod
    def missing(self) -> str | None:
        """What has to be done before the codec can be used; None if nothing."""

    @abstractmethod
    def code(self, samples: NDArray[np.float64], rate: int, setting: float | None) -> NDArray[np.float64]:
        """Code and decode a waveform.

        Args:
            samples: Shape (samples,), at least one, within [-1, 1].
            rate: One of `sample_rates`.
            setting: As `setting` says; what is beyond the codec's ends is taken to the end.

        Returns:
            Samples in time with what went in; a few may be missing at the end, or too many be there.
        """
