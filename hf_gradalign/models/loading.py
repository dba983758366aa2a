"""A two-class audio classifier and its feature extractor, from scratch or from any wav2vec2-family checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PretrainedConfig,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_gradalign.models.configuration_spoof_detector import SpoofDetectorConfig
from hf_gradalign.models.heads import head_options as complete_head_options
from hf_gradalign.models.label_names import ID2LABEL, LABEL2ID
from hf_gradalign.models.modeling_spoof_detector import SpoofDetectorForAudioClassification
from hf_gradalign.models.small import small_feature_extractor, small_wav2vec2_config

logger = logging.get_logger(__name__)


def load_audio_classifier(
    model_name_or_path: str | None = None,
    *,
    class_weights: Mapping[str, float] | None = None,
    attention_implementation: str | None = None,
    random_config: PretrainedConfig | None = None,
    **hub_options: Any,
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Load a classifier of spoof (0) against bona fide (1) speech.

    Args:
        model_name_or_path: A Hub id or a folder with any model of `AutoModelForAudioClassification`; None for the
            small wav2vec 2.0, randomly initialised. A checkpoint without a two-class head gets a new one.
        class_weights: Weight of each class in the loss, by name; stored in the configuration as `class_weights`, a
            list in the order of the labels, so that training goes on with the same loss after a reload.
        attention_implementation: "eager", "sdpa" or another that transformers knows.
        random_config: Without a name: another configuration than the small one's to initialise randomly.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`.

    Returns:
        The model, in float32 whatever the checkpoint's type, and the feature extractor that makes its inputs from
        waveforms.

    Raises:
        OSError: If there is no such model (transformers' message says where it looked).
        ValueError: If the model is a two-class classifier whose labels are the other way round.
    """
    extra = {"attn_implementation": attention_implementation} if attention_implementation else {}
    if model_name_or_path is None:
        config = small_wav2vec2_config() if random_config is None else random_config
        config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)
        model = AutoModelForAudioClassification.from_config(config, **extra)
        feature_extractor = small_feature_extractor()
    else:
        config = AutoConfig.from_pretrained(model_name_or_path, **hub_options)
        _check_label_order(model_name_or_path, config.id2label)
        config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)
        model = AutoModelForAudioClassification.from_pretrained(
            model_name_or_path, config=config, ignore_mismatched_sizes=True, dtype=torch.float32, **extra, **hub_options
        )
        feature_extractor = load_feature_extractor(model_name_or_path, hub_options)
    _store_class_weights(model, class_weights)
    return model, feature_extractor


def load_detector(
    backbone_name_or_path: str | None = None,
    *,
    head: str,
    head_options: Mapping[str, Any] | None = None,
    n_samples: int = 66_800,
    do_normalize: bool = False,
    class_weights: Mapping[str, float] | None = None,
    attention_implementation: str | None = None,
    random_config: PretrainedConfig | None = None,
    **hub_options: Any,
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """A new detector: a head, randomly initialised, on an encoder.

    Args:
        backbone_name_or_path: A Hub id or a folder with the encoder; None for the small wav2vec 2.0, randomly
            initialised.
        head: Name of the head.
        head_options: Options of the head. `n_frames` of `sls` is by default what `n_samples` give.
        n_samples: Samples that the model is to hear of a clip.
        do_normalize: Whether it is to hear them with zero mean and unit variance.
        class_weights: As in `load_audio_classifier`.
        attention_implementation: As in `load_audio_classifier`.
        random_config: Without a name: another encoder's configuration than the small one's to initialise randomly.
        hub_options: As in `load_audio_classifier`.

    Returns:
        The model, in float32, and its feature extractor.

    Raises:
        OSError: If there is no such encoder.
        ValueError: If there is no such head or option, or the name is that of a whole detector.
    """
    options = complete_head_options(head, head_options)
    extra = {"attn_implementation": attention_implementation} if attention_implementation else {}
    if backbone_name_or_path is None:
        backbone_config: PretrainedConfig = small_wav2vec2_config() if random_config is None else random_config
    else:
        backbone_config = AutoConfig.from_pretrained(backbone_name_or_path, **hub_options)
        if isinstance(backbone_config, SpoofDetectorConfig):
            raise ValueError(
                f"{backbone_name_or_path} is a detector with the head {backbone_config.head}: leave --head out to "
                "train it further, or name an encoder to put a new head on"
            )
    if head == "sls" and "n_frames" not in (head_options or {}):
        options["n_frames"] = _count_frames(backbone_config, n_samples)
    if backbone_name_or_path is None:
        config = SpoofDetectorConfig(backbone_config, head, options)
        model = AutoModelForAudioClassification.from_config(config, **extra)
    else:
        model = SpoofDetectorForAudioClassification.from_backbone(
            backbone_name_or_path, head=head, head_options=options, **extra, **hub_options
        )
    _store_class_weights(model, class_weights)
    model.config.n_samples, model.config.do_normalize = n_samples, do_normalize
    return model, model.make_feature_extractor()


def _store_class_weights(model: PreTrainedModel, class_weights: Mapping[str, float] | None) -> None:
    if class_weights is not None:
        model.config.class_weights = [float(class_weights[ID2LABEL[index]]) for index in range(len(ID2LABEL))]


def _count_frames(config: PretrainedConfig, n_samples: int) -> int:
    """Frames that the encoder's convolutions make of so many samples."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def _check_label_order(name: str, id2label: Mapping[int, str]) -> None:
    names = [str(id2label[index]).lower() for index in sorted(id2label)]
    genuine = ("bonafide", "bona-fide", "bona_fide", "genuine", "real", "human")
    if len(names) == 2 and names[0] in genuine and names[1] not in genuine:
        raise ValueError(
            f"{name} is a detector whose labels are {names}, and here spoof is 0 and bonafide is 1: training would "
            "start from an inverted head. Swap the rows of its classifier and its id2label first."
        )


def load_feature_extractor(name: str, hub_options: Mapping[str, Any]) -> FeatureExtractionMixin:
    """A model's feature extractor; that of a plain wav2vec 2.0 where it has none, with a warning.

    Args:
        name: A Hub id or a folder.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`.

    Raises:
        OSError: If there is no such model.
    """
    try:
        return AutoFeatureExtractor.from_pretrained(name, **hub_options)
    except OSError as error:
        if "preprocessor_config.json" not in str(error):
            raise
    logger.warning(f"{name} has no preprocessor_config.json: taking 16 kHz waveforms of zero mean and unit variance.")
    return Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=False)
