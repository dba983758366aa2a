"""From waveforms to a detector's input, by the protocol that its scores are taken with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import TensorType


class SpoofDetectorFeatureExtractor(SequenceFeatureExtractor):
    """The first samples of a clip, repeated where it is shorter, as they are.

    This is the protocol of the published detectors: no normalisation, 66,800 samples at 16 kHz (4.175 s), shorter
    clips repeated from their start.

    Args:
        sampling_rate: Of the waveforms, in Hz.
        n_samples: How many samples the model hears; None for whole clips, which are then padded with zeros to the
            longest of a batch and come with an attention mask.
        do_normalize: Bring each clip to zero mean and unit variance, as some backbones were trained.
        return_attention_mask: Give the mask of the real samples, where clips are padded with zeros.
        kwargs: `feature_size` and `padding_value`, which have one value here, and what every extractor takes.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012  (transformers' own form)

    def __init__(
        self,
        sampling_rate: int = 16_000,
        n_samples: int | None = 66_800,
        do_normalize: bool = False,
        return_attention_mask: bool = True,
        **kwargs: Any,
    ) -> None:
        if n_samples is not None and n_samples <= 0:
            raise ValueError(f"n_samples must be positive, or None for whole clips, got {n_samples}")
        kwargs = {"feature_size": 1, "padding_value": 0.0, **kwargs}
        super().__init__(sampling_rate=sampling_rate, return_attention_mask=return_attention_mask, **kwargs)
        self.n_samples = n_samples
        self.do_normalize = do_normalize

    def __call__(
        self,
        raw_speech: np.ndarray | Sequence[float] | Sequence[np.ndarray] | Sequence[Sequence[float]],
        sampling_rate: int | None = None,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Model inputs of one clip or several.

        Args:
            raw_speech: Mono waveform(s) of shape (time,), at least one sample each.
            sampling_rate: Their sampling rate in Hz, to be sure that it is the right one.
            return_tensors: "pt" or "np".
            kwargs: What other extractors take (padding, truncation, max_length) and this one settles by itself.

        Returns:
            `input_values`, float32 of shape (B, time), and with whole clips of different lengths `attention_mask`.

        Raises:
            ValueError: If the sampling rate is another, a clip is empty, or it has more than one channel.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"the model takes audio at {self.sampling_rate} Hz, got {sampling_rate} Hz: resample it")
        clips = [self._prepare(clip) for clip in _as_clips(raw_speech)]
        whole = self.n_samples is None and len({len(clip) for clip in clips}) > 1
        if not whole:
            return BatchFeature({"input_values": np.stack(clips)}, tensor_type=return_tensors)
        return self.pad(
            BatchFeature({"input_values": clips}),
            padding=True,
            return_attention_mask=self.return_attention_mask,
            return_tensors=return_tensors,
        )

    def _prepare(self, clip: np.ndarray) -> np.ndarray:
        if clip.ndim != 1 or clip.size == 0:
            raise ValueError(f"a clip is a mono waveform of shape (time,) with samples, got shape {clip.shape}")
        if self.n_samples is not None:
            clip = np.resize(clip, self.n_samples) if len(clip) < self.n_samples else clip[: self.n_samples]
        if self.do_normalize:
            clip = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        return clip


def _as_clips(raw_speech: Any) -> list[np.ndarray]:
    """One waveform, or several in a list or in the rows of an array, as float32 waveforms."""
    several = isinstance(raw_speech, (list, tuple)) and len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
    if not several and np.ndim(raw_speech) < 2:
        raw_speech = [raw_speech]
    return [np.asarray(clip, dtype=np.float32) for clip in raw_speech]


# Here, so that also a model that was loaded with this code from the Hub saves it on.
SpoofDetectorFeatureExtractor.register_for_auto_class()
