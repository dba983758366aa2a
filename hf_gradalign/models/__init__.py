"""Models: what is trained where no model is named, and how any other is loaded."""

from hf_gradalign.models.label_names import ID2LABEL, LABEL2ID
from hf_gradalign.models.loading import load_audio_classifier
from hf_gradalign.models.small import small_feature_extractor, small_wav2vec2_config

__all__ = ["ID2LABEL", "LABEL2ID", "load_audio_classifier", "small_feature_extractor", "small_wav2vec2_config"]
