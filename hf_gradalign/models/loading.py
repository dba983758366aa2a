"""A two-class audio classifier and its feature extractor, from scratch or from any wav2vec2-family checkpoint."""

from collections.abc import Mapping
from typing import Any

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PretrainedConfig,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import FEATURE_EXTRACTOR_NAME, cached_file, logging

from hf_gradalign.models.adapters import base_of_adapter, load_classifier, load_config
from hf_gradalign.models.configuration_spoof_detector import SpoofDetectorConfig
from hf_gradalign.models.heads import head_options as complete_head_options
from hf_gradalign.models.label_names import ID2LABEL, LABEL2ID
from hf_gradalign.models.label_order import output_labels, put_in_order
from hf_gradalign.models.model_files import loading_model
from hf_gradalign.models.modeling_spoof_detector import SpoofDetectorForAudioClassification, refuse_random_weights
from hf_gradalign.models.small import small_feature_extractor, small_wav2vec2_config

logger = logging.get_logger(__name__)


def load_audio_classifier(
    model_name_or_path: str | None = None,
    *,
    class_weights: Mapping[str, float] | None = None,
    bonafide_label: str | None = None,
    attention_implementation: str | None = None,
    random_config: PretrainedConfig | None = None,
    **hub_options: Any,
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Load a classifier of spoof (0) against bona fide (1) speech.

    Args:
        model_name_or_path: A Hub id or a folder with any model of `AutoModelForAudioClassification`; None for the
            small wav2vec 2.0, randomly initialised. A checkpoint without a trained head of one output or two gets a
            new one. A trained head is kept, and its outputs are put in order: rows are swapped where bona fide comes
            first, so that its scores are what they were.
        class_weights: Weight of each class in the loss, by name; stored in the configuration as `class_weights`, a
            list in the order of the labels, so that training goes on with the same loss after a reload.
        bonafide_label: Name (or number) of the trained head's bona fide label, where its names do not say which one it
            is; "none" for a head of one output that is higher for spoof.
        attention_implementation: "eager", "sdpa" or another that transformers knows.
        random_config: Without a name: another configuration than the small one's to initialise randomly.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`.

    Returns:
        The model, in float32 whatever the checkpoint's type, and the feature extractor that makes its inputs from
        waveforms.

    Raises:
        OSError: If there is no such model (transformers' message says where it looked).
        ValueError: If the labels of a trained head do not say which is bona fide.
    """
    extra = {"attn_implementation": attention_implementation} if attention_implementation else {}
    if model_name_or_path is None:
        config = small_wav2vec2_config() if random_config is None else random_config
        config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)
        model = AutoModelForAudioClassification.from_config(config, **extra)
        feature_extractor = small_feature_extractor()
        has_new_head = True
    else:
        model, feature_extractor, has_new_head = _load_in_order(model_name_or_path, bonafide_label, extra, hub_options)
    if has_new_head and bonafide_label is not None:
        raise ValueError(
            f"--bonafide_label {bonafide_label}: {model_name_or_path or 'the small model'} has no trained head of one "
            "output or two, and gets a new one, spoof and bonafide. Leave the option out"
        )
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
        with loading_model(backbone_name_or_path, hub_options):
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
        with loading_model(backbone_name_or_path, hub_options):
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


def _load_in_order(
    name: str, bonafide_label: str | None, loading: Mapping[str, Any], hub_options: Mapping[str, Any]
) -> tuple[PreTrainedModel, FeatureExtractionMixin, bool]:
    """A model with the outputs spoof and bona fide, its feature extractor, and whether its head is new."""
    config = load_config(name, hub_options)
    id2label, label2id = dict(config.id2label), dict(config.label2id or {})
    if len(id2label) != 1:
        config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)
    model, has_new_head = _load_weights(name, config, loading, hub_options)
    if has_new_head and len(id2label) == 1:
        config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)
        model, _ = _load_weights(name, config, loading, hub_options)
    feature_extractor = load_feature_extractor(name, hub_options)
    if has_new_head:
        if len(id2label) > 2:
            logger.warning(f"{name} has {len(id2label)} labels: it gets a new head for two, spoof and bonafide.")
        return model, feature_extractor, True
    try:
        order = output_labels(id2label, label2id, bonafide_label)
    except ValueError as error:
        raise ValueError(
            f"{name}: {error}. If it is no detector of spoofed speech, put a new head on its encoder with --head linear"
        ) from error
    layer = put_in_order(model, feature_extractor, order)
    if layer:
        # Adapters that are trained now are of this model, not of the one of that name.
        model.name_or_path = model.config.name_or_path = ""
        were = ", ".join(f"{number}: {name}" for number, name in sorted(id2label.items()))
        how = "the rows are swapped" if len(order) == 2 else "one row is made two"
        logger.warning(f"{name} has the labels {were}: {how} in {layer}, and the labels are 0: spoof, 1: bonafide.")
    return model, feature_extractor, False


def _load_weights(
    name: str, config: PretrainedConfig, loading: Mapping[str, Any], hub_options: Mapping[str, Any]
) -> tuple[PreTrainedModel, bool]:
    """The model, in float32, and whether its head is not, or not whole, in the checkpoint."""
    model, absent = load_classifier(name, hub_options, config=config, ignore_mismatched_sizes=True, **loading)
    encoder = f"{model.base_model_prefix}."
    refuse_random_weights(name, [key for key in absent if key.startswith(encoder)])
    return model, any(not key.startswith(encoder) for key in absent)


def load_feature_extractor(name: str, hub_options: Mapping[str, Any]) -> FeatureExtractionMixin:
    """A model's feature extractor; that of a plain wav2vec 2.0 where it has none, with a warning.

    Args:
        name: A Hub id or a folder.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`.

    Raises:
        OSError: If there is no such model.
    """
    with loading_model(name, hub_options):
        try:
            return AutoFeatureExtractor.from_pretrained(name, **hub_options)
        except OSError:
            where = {key: value for key, value in hub_options.items() if key != "trust_remote_code"}
            if cached_file(name, FEATURE_EXTRACTOR_NAME, _raise_exceptions_for_missing_entries=False, **where):
                raise
    base = base_of_adapter(name, hub_options)
    if base is not None:
        return load_feature_extractor(base, {key: value for key, value in hub_options.items() if key != "revision"})
    load_config(name, hub_options)  # raises if there is no such model
    logger.warning(f"{name} has no {FEATURE_EXTRACTOR_NAME}: taking 16 kHz waveforms of zero mean and unit variance.")
    return Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=False)
