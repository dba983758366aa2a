"""Load a two-class audio classifier and its feature extractor, from scratch or from any checkpoint."""

from collections.abc import Collection, Mapping
from typing import Any, cast

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PretrainedConfig,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import FEATURE_EXTRACTOR_NAME, cached_file, logging

from hf_gradalign import conversion
from hf_gradalign.models.adapters import base_of_adapter, load_classifier, load_config
from hf_gradalign.models.architectures import architecture_config, is_architecture
from hf_gradalign.models.configuration_spoof_detector import ID2LABEL, LABEL2ID, WINDOW_SAMPLES, SpoofDetectorConfig
from hf_gradalign.models.encoder_layers import count_frames
from hf_gradalign.models.feature_encoders import default_extractor
from hf_gradalign.models.heads import head_options as complete_head_options
from hf_gradalign.models.label_order import layers_of_rows, output_labels, put_in_order
from hf_gradalign.models.losses import CROSS_ENTROPY
from hf_gradalign.models.losses import loss_options as complete_loss_options
from hf_gradalign.models.model_files import loading_model
from hf_gradalign.models.modeling_spoof_detector import SpoofDetectorForAudioClassification, refuse_random_weights
from hf_gradalign.models.score_calibration import drop_calibration

logger = logging.get_logger(__name__)


def load_audio_classifier(
    model_name_or_path: str | None = None,
    *,
    class_weights: Mapping[str, float] | None = None,
    bonafide_label: str | None = None,
    attention_implementation: str | None = None,
    loss: str | None = None,
    loss_options: Mapping[str, float] | None = None,
    random_config: PretrainedConfig | None = None,
    **hub_options: Any,
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Load a classifier of spoof (0) against bona fide (1) speech, to train it.

    It has no calibration, because training changes its scores.

    Args:
        model_name_or_path: Hub id or folder of any model for `AutoModelForAudioClassification`, or a published
            checkpoint, which is converted on first use (`hf_gradalign.load_detector`); None for the small wav2vec 2.0,
            or a name in `ARCHITECTURES`, both randomly initialized. A checkpoint without a trained head of one or two
            outputs gets a new one. A trained head is kept, and its rows are swapped if bona fide comes first, so its
            scores do not change.
        class_weights: Weight of each class in the loss, by name. Stored as `class_weights` in the configuration, in the
            order of the labels, so that training continues with the same loss after reloading the model.
        bonafide_label: Name or number of the trained head's bona fide label, if its names do not say which one it is;
            "none" for a head with one output that is higher for spoof.
        attention_implementation: "eager", "sdpa" or another implementation in transformers.
        loss: Name of the loss of a model in `ARCHITECTURES`, as in `SpoofDetectorConfig`. Others keep their own.
        loss_options: Options of the loss.
        random_config: Without a name, a configuration to initialize randomly instead of the small one.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`; `conversion_options` of published
            checkpoints.

    Returns:
        The model, in float32 for any type of the checkpoint, and its feature extractor.

    Raises:
        OSError: If there is no such model (the message from transformers says where it looked).
        ValueError: If the labels of a trained head do not say which one is bona fide, the checkpoint lacks a part of
            its encoder or head, a loss is passed for a model that is not in `ARCHITECTURES`, or an architecture's name
            is also a folder with a model.
    """
    extra: dict[str, Any] = {"attn_implementation": attention_implementation} if attention_implementation else {}
    if model_name_or_path is not None and is_architecture(model_name_or_path):
        random_config = architecture_config(model_name_or_path)
        if loss not in (None, CROSS_ENTROPY):
            random_config.loss, random_config.loss_options = loss, complete_loss_options(loss, loss_options)
        model_name_or_path = None
    elif loss is not None:
        raise ValueError(f"--loss {loss} needs a new head: also pass --head, or remove it to keep the model's own loss")
    if model_name_or_path is None:
        config = small_wav2vec2_config() if random_config is None else random_config
        config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)
        model = AutoModelForAudioClassification.from_config(config, **extra)
        is_detector = isinstance(model, SpoofDetectorForAudioClassification)
        feature_extractor = model.make_feature_extractor() if is_detector else small_feature_extractor()
        has_new_head = True
    else:
        model, feature_extractor, has_new_head = _load_in_order(model_name_or_path, bonafide_label, extra, hub_options)
    if has_new_head and bonafide_label is not None:
        raise ValueError(
            f"--bonafide_label {bonafide_label}: {model_name_or_path or 'the small model'} has no trained head of "
            "one or two outputs, and gets a new one with the labels spoof and bonafide. Remove the option"
        )
    _store_class_weights(model, class_weights)
    return model, feature_extractor


def create_detector(
    backbone_name_or_path: str | None = None,
    *,
    head: str,
    head_options: Mapping[str, Any] | None = None,
    layer_merging: str | None = None,
    loss: str = CROSS_ENTROPY,
    loss_options: Mapping[str, float] | None = None,
    n_samples: int = WINDOW_SAMPLES,
    do_normalize: bool = False,
    class_weights: Mapping[str, float] | None = None,
    attention_implementation: str | None = None,
    random_config: PretrainedConfig | None = None,
    **hub_options: Any,
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Create a detector with a new, randomly initialized head on an encoder.

    Args:
        backbone_name_or_path: Hub id or folder of the encoder; None for the small wav2vec 2.0, randomly initialized.
        head: Name of the head.
        head_options: Options of the head. By default, `n_frames` of `sls` follows from `n_samples`.
        layer_merging: How to merge all layers of the encoder for the head, as in `SpoofDetectorConfig`.
        loss: Name of the loss, as in `SpoofDetectorConfig`.
        loss_options: Options of the loss.
        n_samples: Number of samples of a clip that the model sees.
        do_normalize: Whether clips are normalized to zero mean and unit variance.
        class_weights: As in `load_audio_classifier`.
        attention_implementation: As in `load_audio_classifier`.
        random_config: Without a name, an encoder's configuration to initialize randomly instead of the small one.
        hub_options: As in `load_audio_classifier`.

    Returns:
        The model, in float32, and its feature extractor.

    Raises:
        OSError: If there is no such encoder.
        ValueError: If there is no such head, option, loss or layer merging, or the name stands for a detector.
    """
    options = complete_head_options(head, head_options)
    with_loss: dict[str, Any] = {"loss": loss, "loss_options": complete_loss_options(loss, loss_options)}
    extra: dict[str, Any] = {"attn_implementation": attention_implementation} if attention_implementation else {}
    if backbone_name_or_path is not None:
        backbone_name_or_path, hub_options = conversion.model_folder(backbone_name_or_path, hub_options)
    if backbone_name_or_path is None:
        backbone_config: PretrainedConfig = small_wav2vec2_config() if random_config is None else random_config
    else:
        with loading_model(backbone_name_or_path, hub_options):
            backbone_config = AutoConfig.from_pretrained(backbone_name_or_path, **hub_options)
        if isinstance(backbone_config, SpoofDetectorConfig):
            raise ValueError(
                f"{backbone_name_or_path} is a detector with the head {backbone_config.head}: remove --head to "
                "train it further, or name an encoder for a new head"
            )
    if head == "sls" and "n_frames" not in (head_options or {}):
        if default_extractor(backbone_config) is not None:
            raise ValueError(
                f"--head sls needs the number of frames of {backbone_config.model_type} in a window: pass it as "
                """--head_options '{"n_frames": N}'"""
            )
        options["n_frames"] = count_frames(backbone_config, n_samples)
    if backbone_name_or_path is None:
        config = SpoofDetectorConfig(backbone_config, head, options, layer_merging=layer_merging, **with_loss)
        model = AutoModelForAudioClassification.from_config(config, **extra)
    else:
        with loading_model(backbone_name_or_path, hub_options):
            model = SpoofDetectorForAudioClassification.from_backbone(
                backbone_name_or_path,
                head=head,
                head_options=options,
                layer_merging=layer_merging,
                **with_loss,
                **extra,
                **hub_options,
            )
    drop_calibration(model.config)  # if a transformers classifier provides the encoder
    _store_class_weights(model, class_weights)
    model.config.n_samples, model.config.do_normalize = n_samples, do_normalize
    return model, model.make_feature_extractor()


def _store_class_weights(model: PreTrainedModel, class_weights: Mapping[str, float] | None) -> None:
    if class_weights is not None:
        model.config.class_weights = [float(class_weights[ID2LABEL[index]]) for index in range(len(ID2LABEL))]


def _load_in_order(
    name: str, bonafide_label: str | None, loading: Mapping[str, Any], hub_options: Mapping[str, Any]
) -> tuple[PreTrainedModel, FeatureExtractionMixin, bool]:
    """Return a model with the outputs spoof and bona fide, its feature extractor, and whether its head is new."""
    config = load_config(name, hub_options)
    drop_calibration(config)
    id2label = dict(cast(dict[int, str], config.id2label))
    label2id = dict(cast(dict[str, int], config.label2id or {}))
    if len(id2label) != 1:
        config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)
    model, has_new_head = _load_weights(name, config, loading, hub_options, len(id2label))
    if has_new_head and len(id2label) == 1:
        config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)
        model, _ = _load_weights(name, config, loading, hub_options, len(id2label))
    feature_extractor = load_feature_extractor(name, hub_options)
    if has_new_head:
        saved_as = (config.architectures or [""])[0]
        if "Classification" in saved_as and saved_as != type(model).__name__:
            logger.warning(
                f"{name} was saved as a {saved_as}, whose head does not fit a {type(model).__name__}: it gets a new "
                "head with the labels spoof and bonafide, and training does not start from its own scores."
            )
        elif len(id2label) > 2:
            logger.warning(f"{name} has {len(id2label)} labels: it gets a new head with the labels spoof and bonafide.")
        return model, feature_extractor, True
    try:
        order = output_labels(id2label, label2id, bonafide_label)
    except ValueError as error:
        raise ValueError(
            f"{name}: {error}. If it does not detect spoofed speech, put a new head on its encoder with --head linear"
        ) from error
    layer = put_in_order(model, feature_extractor, order)
    if layer:
        # Adapters trained from now on belong to this model, not to the one with that name.
        model.name_or_path = model.config.name_or_path = ""
        were = ", ".join(f"{number}: {name}" for number, name in sorted(id2label.items()))
        how = "the rows are swapped" if len(order) == 2 else "one row becomes two"
        logger.warning(f"{name} has the labels {were}: {how} in {layer}, and the labels are now 0: spoof, 1: bonafide.")
    return model, feature_extractor, False


def _load_weights(
    name: str, config: PretrainedConfig, loading: Mapping[str, Any], hub_options: Mapping[str, Any], n_trained: int
) -> tuple[PreTrainedModel, bool]:
    """Return the model, in float32, and whether its head is new. `n_trained` is the checkpoint's number of outputs."""
    model, absent = load_classifier(name, hub_options, config=config, ignore_mismatched_sizes=True, **loading)
    if n_trained > len(ID2LABEL):  # the layer of the outputs is replaced
        of_head = {key for key in absent if not key.startswith(f"{model.base_model_prefix}.")}
        layers = [layer for layer, _ in layers_of_rows(model, len(ID2LABEL))]
        if of_head and any(all(key.startswith(f"{layer}.") for key in of_head) for layer in layers):
            lacks_head(name, model, absent - of_head)
            return model, True
    return model, lacks_head(name, model, absent)


def lacks_head(name: str, model: PreTrainedModel, absent: Collection[str]) -> bool:
    """Return whether a checkpoint has no trained head: it has none of the head's weights, or belongs to another class.

    Args:
        name: The checkpoint's name, for messages.
        model: The classifier that was made from it.
        absent: The model's weights and buffers that it lacks, from `load_classifier`.

    Raises:
        ValueError: If it lacks a part of its encoder or of its head.
    """
    encoder = f"{model.base_model_prefix}."
    refuse_random_weights(name, [key for key in absent if key.startswith(encoder)])
    of_head = sorted(key for key in absent if not key.startswith(encoder))
    weights = {key for key, _ in model.named_parameters() if not key.startswith(encoder)}
    # A checkpoint of another class may have a weight of the same name and shape, such as the bias of two outputs.
    is_of_this_class = type(model).__name__ in (model.config.architectures or [type(model).__name__])
    if of_head and is_of_this_class and not weights <= set(of_head):
        raise ValueError(
            f"{name} lacks {len(of_head)} weights or buffers of its head, or their shapes differ from its config.json "
            f"({', '.join(of_head[:3])}{', ...' if len(of_head) > 3 else ''}): they would not be the trained ones. "
            "Save or download the model again"
        )
    return bool(of_head)


def load_feature_extractor(name: str, hub_options: Mapping[str, Any]) -> FeatureExtractionMixin:
    """Load a model's feature extractor. If it has none, use a plain wav2vec 2.0's, with a warning.

    Args:
        name: A Hub id or a folder.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`.

    Raises:
        OSError: If there is no such model.
    """
    name, hub_options = conversion.model_folder(name, hub_options)
    with loading_model(name, hub_options):
        try:
            return AutoFeatureExtractor.from_pretrained(name, **hub_options)
        except OSError:
            where = {key: value for key, value in hub_options.items() if key != "trust_remote_code"}
            if cached_file(name, FEATURE_EXTRACTOR_NAME, _raise_exceptions_for_missing_entries=False, **where):
                raise
    base = base_of_adapter(name, hub_options)
    if base is not None:
        return load_feature_extractor(*base)
    load_config(name, hub_options)  # raises if there is no such model
    logger.warning(f"{name} has no {FEATURE_EXTRACTOR_NAME}: using 16 kHz waveforms with zero mean and unit variance.")
    return Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=False)


def small_wav2vec2_config(**overrides: Any) -> Wav2Vec2Config:
    """Return the configuration of a wav2vec 2.0 classifier with 0.68M parameters, for the demo corpus on two CPU cores.

    It has five convolutions (stride 320, one frame every 20 ms at 16 kHz) and four transformer layers of width 128.
    SpecAugment and layer drop are off, because the views of an utterance should differ only by augmentation.

    Args:
        overrides: Any field of `transformers.Wav2Vec2Config`.
    """
    settings: dict[str, Any] = {
        "conv_dim": (32, 64, 64, 64, 64),
        "conv_stride": (5, 4, 4, 2, 2),
        "conv_kernel": (10, 8, 4, 4, 4),
        "feat_extract_norm": "group",
        "conv_bias": False,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 8,
        "classifier_proj_size": 128,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.1,
        "feat_proj_dropout": 0.1,
        "final_dropout": 0.1,
        "layerdrop": 0.0,
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
        "id2label": ID2LABEL,
        "label2id": LABEL2ID,
    }
    return Wav2Vec2Config(**{**settings, **overrides})


def small_feature_extractor() -> Wav2Vec2FeatureExtractor:
    """Return the feature extractor of the small model: 16 kHz, zero mean and unit variance, no attention mask."""
    return Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=False)
