"""The longest clip that a feature extractor takes, and which models padding affects."""

import json
from copy import copy
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.models.configuration_spoof_detector import SincConfig
from hf_gradalign.models.feature_encoders import make_extractor
from hf_gradalign.models.feature_extraction_spoof_detector import SpoofDetectorFeatureExtractor

# At least a frame and a step between frames. Extractors may ignore that much at the end of a clip.
_END_SECONDS = 0.05
# Their own convolutions, or the squeezing of frames, see padding in spite of the mask.
_READ_PADDING = ("data2vec-audio", "wav2vec2-conformer", "sew", "sew-d")
_SPARE_PADDED_CLIPS = ("wav2vec2", "hubert", "wavlm", "unispeech-sat")


def without_cropping(feature_extractor: FeatureExtractionMixin) -> FeatureExtractionMixin:
    """Return the feature extractor for windows that are already cut, of any length."""
    if isinstance(feature_extractor, SpoofDetectorFeatureExtractor):
        feature_extractor = copy(feature_extractor)
        feature_extractor.n_samples = None
    return feature_extractor


def samples_taken(feature_extractor: FeatureExtractionMixin, n_samples: int) -> int:
    """Return how many of a clip's samples reach the model. Whisper's and AST's extractors cut long clips silently.

    The window of a detector's extractor (`n_samples`) is ignored; see `without_cropping`.

    Args:
        feature_extractor: The model's feature extractor.
        n_samples: Length of the clip.

    Returns:
        `n_samples`, or how many samples from the start are taken if the extractor cuts the clip.
    """
    if isinstance(feature_extractor, SpoofDetectorFeatureExtractor):
        settings = feature_extractor.encoder_extractor
        limit = None if settings is None else getattr(make_extractor(settings), "n_samples", None)
        return n_samples if limit is None else min(n_samples, limit)
    if type(feature_extractor) is Wav2Vec2FeatureExtractor:  # the most common one, and it cuts nothing
        return n_samples
    return _samples_taken(_Extractor(feature_extractor), n_samples)


class _Extractor:
    """A feature extractor that is equal to others with the same settings, as a key for a cache."""

    def __init__(self, feature_extractor: FeatureExtractionMixin) -> None:
        self.extract = cast(Any, feature_extractor)
        self._key = (type(feature_extractor), json.dumps(feature_extractor.to_dict(), sort_keys=True, default=str))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Extractor) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=256)
def _samples_taken(extractor: _Extractor, n_samples: int) -> int:
    """Find this out by trial: changing samples that are not taken has no effect."""
    rate = extractor.extract.sampling_rate
    end = max(round(_END_SECONDS * rate), 1)
    noise = np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32)

    def takes_end(length: int) -> bool:
        clip, changed = noise[:length], noise[:length].copy()
        changed[-end:] = 0
        one, other = (extractor.extract([each], sampling_rate=rate, return_tensors="pt") for each in (clip, changed))
        return not all(torch.equal(value, other[name]) for name, value in one.items())

    if takes_end(n_samples):
        return n_samples
    taken, cut = end, n_samples  # bisection: `cut` is too long
    while cut - taken > 1:
        middle = (taken + cut) // 2
        taken, cut = (middle, cut) if takes_end(middle) else (taken, middle)
    return max(cut - end, 1)  # at `cut`, the end begins where nothing is taken any more


@torch.no_grad()
def refuse_discarding(model: PreTrainedModel, feature_extractor: FeatureExtractionMixin, n_samples: int) -> None:
    """Check that a detector's head takes all frames of training clips of this length, as `sls` may not.

    Raises:
        ValueError: If it would discard some.
    """
    head = getattr(model, "head", None)
    if not hasattr(head, "refuse_longer"):
        return
    head = cast(Any, head)
    extract, silence = cast(Any, without_cropping(feature_extractor)), np.zeros(n_samples, np.float32)
    hook = head.register_forward_pre_hook(lambda _, inputs: head.refuse_longer(inputs[0][0].shape[1]))
    was_training = model.training
    try:
        with torch.random.fork_rng(devices=[]):  # some encoders draw random numbers for layer drop even in evaluation
            inputs = extract([silence], sampling_rate=extract.sampling_rate, return_tensors="pt")
            model.eval()(**inputs.to(model.device))
    finally:
        hook.remove()
        model.train(was_training)


def padding_is_harmless(model: PreTrainedModel, feature_extractor: FeatureExtractionMixin) -> bool:
    """Return whether a clip is known to get the same score in a padded batch as alone.

    This needs an attention mask, and a front end whose convolutions do not spread padding into the clip. A group norm
    over time spreads it. So do the convolutions between the layers of some encoders, and in an adapter after them.
    """
    config = _front_end(model)
    spares_clips = config.model_type == SincConfig.model_type or (
        getattr(config, "feat_extract_norm", None) == "layer"
        and config.model_type in _SPARE_PADDED_CLIPS
        and not getattr(config, "add_adapter", False)
    )
    return spares_clips and getattr(feature_extractor, "return_attention_mask", False)


def spreads_padding(model: Any) -> bool:
    """Return whether padding is known to change the output of a model (any module) in spite of a mask."""
    config = _front_end(model)
    is_group = getattr(config, "feat_extract_norm", None) == "group"
    reads_it = getattr(config, "model_type", None) in _READ_PADDING or getattr(config, "add_adapter", False)
    return is_group or reads_it


def _front_end(model: Any) -> Any:
    """Return the configuration of a model's front end; None for modules without one."""
    config = getattr(model, "config", None)
    return getattr(config, "backbone_config", None) or config
