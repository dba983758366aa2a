"""The protocol that a model was saved with: what it is to hear of a clip."""

import math
from copy import copy

from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.scoring.windowing import Combination, Windowing, WindowMode

# What the published detectors hear: 66,800 samples at 16 kHz.
_PROTOCOL_SECONDS = 66_800 / 16_000
# Several times what an encoder's convolutions need for a frame.
_LEAST_SECONDS = 0.1


def settle_windowing(
    feature_extractor: FeatureExtractionMixin,
    mode: WindowMode | None = None,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    combine: Combination = "mean",
) -> Windowing:
    """What a model hears of a clip, as far as it is not said here by its feature extractor.

    Those of detectors say it by `n_samples` (None for whole clips), others that a training run saved by
    `n_scored_samples`. A model of someone else's is given the leading 4.175 s.

    Raises:
        ValueError: If an argument is out of its range, or has no meaning for these windows.
    """
    rate = feature_extractor.sampling_rate
    is_detectors = isinstance(feature_extractor, SpoofDetectorFeatureExtractor)
    # Not `n_samples` of any: Whisper's means something else by it.
    saved = getattr(feature_extractor, "n_samples" if is_detectors else "n_scored_samples", None)
    if window_seconds is not None and not _LEAST_SECONDS <= window_seconds < math.inf:
        raise ValueError(f"window_seconds must be at least {_LEAST_SECONDS}, not {window_seconds}")
    if hop_seconds is not None and not 0 < hop_seconds < math.inf:
        raise ValueError(f"hop_seconds must be positive, not {hop_seconds}")
    mode = mode or ("whole" if is_detectors and saved is None and window_seconds is None else "first")
    if mode != "all" and (hop_seconds is not None or combine != "mean"):
        raise ValueError(f"hop_seconds and combine are for windows 'all' (--windows all), and windows are {mode!r}")
    if mode == "whole" and window_seconds is not None:
        raise ValueError("window_seconds has no meaning for windows 'whole': a clip is heard in one piece")
    return Windowing(
        (saved or round(_PROTOCOL_SECONDS * rate)) if window_seconds is None else round(window_seconds * rate),
        mode,
        None if hop_seconds is None else round(hop_seconds * rate),
        combine,
        round(_LEAST_SECONDS * rate),
    )


def padding_is_harmless(model: PreTrainedModel, feature_extractor: FeatureExtractionMixin) -> bool:
    """Whether a clip gets the same score in a padded batch as alone.

    It takes an attention mask, and an encoder whose convolutions do not carry padding into the clip: a group norm over
    time does, and so do the convolutions between the layers of some.
    """
    config = getattr(model.config, "backbone_config", None) or model.config
    return (
        getattr(feature_extractor, "return_attention_mask", False)
        and getattr(config, "feat_extract_norm", None) == "layer"
        and config.model_type in ("wav2vec2", "hubert", "wavlm", "unispeech-sat")
    )


def taking_windows_as_they_are(feature_extractor: FeatureExtractionMixin) -> FeatureExtractionMixin:
    """The feature extractor for clips that have been cut and repeated already, to whatever length."""
    if isinstance(feature_extractor, SpoofDetectorFeatureExtractor):
        feature_extractor = copy(feature_extractor)
        feature_extractor.n_samples = None
    return feature_extractor
