"""Models: detectors and their heads, the small default model, and loading of any other classifier."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification

from hf_gradalign.models.adapters import load_classifier, load_config
from hf_gradalign.models.architectures import ARCHITECTURES, architecture_config, is_architecture
from hf_gradalign.models.configuration_spoof_detector import (
    ID2LABEL,
    LABEL2ID,
    RAW_WINDOW_SAMPLES,
    WINDOW_SAMPLES,
    WINDOW_SECONDS,
    SincConfig,
    SpoofDetectorConfig,
)
from hf_gradalign.models.feature_extraction_spoof_detector import SpoofDetectorFeatureExtractor
from hf_gradalign.models.heads import HEADS
from hf_gradalign.models.label_order import output_labels, put_in_order
from hf_gradalign.models.loading import (
    create_detector,
    lacks_head,
    load_audio_classifier,
    load_feature_extractor,
    small_feature_extractor,
    small_wav2vec2_config,
)
from hf_gradalign.models.modeling_spoof_detector import SpoofDetectorForAudioClassification

# For `from_pretrained` of the Auto classes, and to save models with their code.
AutoConfig.register(SpoofDetectorConfig.model_type, SpoofDetectorConfig)
AutoModelForAudioClassification.register(SpoofDetectorConfig, SpoofDetectorForAudioClassification)
AutoFeatureExtractor.register(SpoofDetectorConfig, SpoofDetectorFeatureExtractor)
SpoofDetectorConfig.register_for_auto_class()
SpoofDetectorForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")

__all__ = [
    "ARCHITECTURES",
    "HEADS",
    "ID2LABEL",
    "LABEL2ID",
    "RAW_WINDOW_SAMPLES",
    "WINDOW_SAMPLES",
    "WINDOW_SECONDS",
    "SincConfig",
    "SpoofDetectorConfig",
    "SpoofDetectorFeatureExtractor",
    "SpoofDetectorForAudioClassification",
    "architecture_config",
    "create_detector",
    "is_architecture",
    "lacks_head",
    "load_audio_classifier",
    "load_classifier",
    "load_config",
    "load_feature_extractor",
    "output_labels",
    "put_in_order",
    "small_feature_extractor",
    "small_wav2vec2_config",
]
