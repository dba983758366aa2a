"""What this package's transforms of waveforms have in common."""

from abc import abstractmethod
from typing import Any

import numpy as np
from audiomentations.core.transforms_interface import BaseWaveformTransform
from numpy.typing import NDArray

from hf_gradalign.augmentation.checks import check_samples


class SpeechTransform(BaseWaveformTransform):
    """A transform of checked samples that gives float32 within its range.

    Subclasses draw in `randomize_parameters` and transform in `_transform`, without chance.
    """

    supports_multichannel = True

    def __call__(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        """Draw parameters, unless they are frozen, and apply them."""
        if samples.size == 0:  # the base class takes (channels, 0) for a clip with its axes swapped
            return samples
        return super().__call__(samples, sample_rate)

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, into a new `self.parameters`: earlier ones may be kept."""
        self.parameters: dict[str, Any] = {}
        super().randomize_parameters(samples, sample_rate)

    def apply(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.float32]:
        """Apply the drawn parameters: a function of the samples and of `self.parameters`, without chance.

        Args:
            samples: Finite floating-point waveform of shape (samples,) or (channels, samples).
            sample_rate: In Hz.

        Returns:
            A new float32 array of the same shape, finite. Empty samples are returned as they are.

        Raises:
            ValueError: If the samples are not floating-point, not finite, or have more than two axes.
        """
        if samples.size == 0:
            return samples
        check_samples(type(self).__name__, samples)
        transformed = self._transform(samples, sample_rate)
        if transformed.dtype == np.float32:
            return transformed
        limits = np.finfo(np.float32)
        return np.clip(transformed, limits.min, limits.max).astype(np.float32)

    @abstractmethod
    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        """The transformed samples, of the same shape, finite in the type that they have; `samples` stay as they are."""


__all__ = ["SpeechTransform"]
