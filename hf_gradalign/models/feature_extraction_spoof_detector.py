"""Turns waveforms into a detector's input, following the scoring protocol."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import TensorType

from .configuration_spoof_detector import WINDOW_SAMPLES
from .feature_encoders import make_extractor


class SpoofDetectorFeatureExtractor(SequenceFeatureExtractor):
    """Takes the first samples of a clip, and repeats clips that are too short.

    The defaults are the protocol of the published detectors: 66,800 samples at 16 kHz (4.175 s), shorter clips repeated
    from their start, no normalization.

    Args:
        sampling_rate: Sampling rate of the waveforms in Hz.
        n_samples: Number of samples that the model sees. None for whole clips, which are padded with zeros to the
            longest in a batch and get an attention mask.
        do_normalize: Whether to normalize each clip to zero mean and unit variance, as some backbones were trained.
        normalization_epsilon: Added to the variance in that normalization; it matters for quiet clips.
        return_attention_mask: Whether to return the mask of real samples for clips that are padded with zeros.
        encoder_extractor: Settings of the encoder's own feature extractor (`feature_encoders`), which then computes
            `input_features` from the clips; None for encoders that take waveforms.
        kwargs: `feature_size` and `padding_value`, which are fixed here, and the options of every extractor.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012  (as in transformers)

    def __init__(
        self,
        sampling_rate: int = 16_000,
        n_samples: int | None = WINDOW_SAMPLES,
        do_normalize: bool = False,
        return_attention_mask: bool = True,
        *,
        normalization_epsilon: float = 1e-7,
        encoder_extractor: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if n_samples is not None and n_samples <= 0:
            raise ValueError(f"n_samples must be positive, or None for whole clips, got {n_samples}")
        kwargs = {"feature_size": 1, "padding_value": 0.0, **kwargs}
        super().__init__(sampling_rate=sampling_rate, return_attention_mask=return_attention_mask, **kwargs)
        self.n_samples = n_samples
        self.do_normalize = do_normalize
        self.normalization_epsilon = normalization_epsilon
        self.encoder_extractor = None if encoder_extractor is None else dict(encoder_extractor)
        if self.encoder_extractor is not None:
            make_extractor(self.encoder_extractor)  # raises if there is no such extractor
            self.model_input_names = ["input_features", "attention_mask"]

    def __call__(
        self,
        raw_speech: np.ndarray | Sequence[float] | Sequence[np.ndarray] | Sequence[Sequence[float]],
        sampling_rate: int | None = None,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Return the model inputs of one or more clips.

        Args:
            raw_speech: Mono waveform(s) of shape (time,), with at least one sample each.
            sampling_rate: Their sampling rate in Hz, which is checked.
            return_tensors: "pt" or "np".
            kwargs: Options of other extractors (padding, truncation, max_length), which are ignored.

        Returns:
            `input_values`, float32 of shape (B, time), and `attention_mask` for whole clips of different lengths, and
            for a whole clip that is not in a list. With an `encoder_extractor`, its `input_features` and always their
            `attention_mask`.

        Raises:
            ValueError: If the sampling rate is wrong, a clip is empty, has more than one channel, or is longer than
                what the encoder takes.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"the model takes audio at {self.sampling_rate} Hz, got {sampling_rate} Hz: resample it")
        clips = [self._prepare(clip) for clip in _as_clips(raw_speech)]
        if self.encoder_extractor is not None:
            return self._features(clips, return_tensors)
        # The transformers pipeline extracts clips one by one, and pads them when it puts them in a batch.
        may_be_padded = _is_one_clip(raw_speech) or len({len(clip) for clip in clips}) > 1
        if self.n_samples is not None or not may_be_padded:
            return BatchFeature({"input_values": np.stack(clips)}, tensor_type=return_tensors)
        return self.pad(
            BatchFeature({"input_values": clips}),
            padding=True,
            return_attention_mask=self.return_attention_mask,
            return_tensors=return_tensors or "np",
        )

    def _features(self, clips: list[np.ndarray], return_tensors: str | TensorType | None) -> BatchFeature:
        extractor = make_extractor(self.encoder_extractor or {})
        limit, longest = getattr(extractor, "n_samples", None), max(map(len, clips))  # Whisper would cut longer ones
        if limit is not None and longest > limit:
            seconds = f"{limit / self.sampling_rate:g} s, got {longest / self.sampling_rate:g} s"
            raise ValueError(
                f"the encoder takes at most {seconds}: pass windows to the model (n_samples, --windows all)"
            )
        features = extractor(
            clips, sampling_rate=self.sampling_rate, return_attention_mask=True, return_tensors=return_tensors or "np"
        )
        return BatchFeature({name: features[name] for name in self.model_input_names})

    def _prepare(self, clip: np.ndarray) -> np.ndarray:
        if clip.ndim != 1 or clip.size == 0:
            raise ValueError(
                f"a clip must be a mono waveform of shape (time,) with at least one sample, got shape {clip.shape}"
            )
        if self.n_samples is not None:
            clip = np.resize(clip, self.n_samples) if len(clip) < self.n_samples else clip[: self.n_samples]
        if self.do_normalize:
            clip = (clip - clip.mean()) / np.sqrt(clip.var() + self.normalization_epsilon)
        return clip


def _is_one_clip(raw_speech: Any) -> bool:
    several = isinstance(raw_speech, (list, tuple)) and len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
    return not several and np.ndim(raw_speech) < 2


def _as_clips(raw_speech: Any) -> list[np.ndarray]:
    """Return one waveform, or several in a list or an array, as a list of float32 waveforms."""
    clips = [raw_speech] if _is_one_clip(raw_speech) else raw_speech
    return [np.asarray(clip, dtype=np.float32) for clip in clips]


# Registered here, so that a model loaded with this code from the Hub also saves it.
SpoofDetectorFeatureExtractor.register_for_auto_class()
