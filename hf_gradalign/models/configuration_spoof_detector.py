"""Configuration of a detector: a front end, which is a self-supervised speech encoder or fixed filters, and a head."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from .score_calibration import check_calibration

ID2LABEL = {0: "spoof", 1: "bonafide"}
"""The classes of every model in this package."""
LABEL2ID = {name: index for index, name in ID2LABEL.items()}

WINDOW_SAMPLES = 66_800
"""The window of the published detectors in samples at 16 kHz."""
WINDOW_SECONDS = WINDOW_SAMPLES / 16_000
RAW_WINDOW_SAMPLES = 64_600
"""The window of AASIST on raw waveforms, and of most other published detectors, in samples at 16 kHz."""


class SincConfig(PretrainedConfig):
    """Configuration of a `SincFrontEnd`, the fixed band-pass filters in front of AASIST on raw waveforms.

    Args:
        num_filters: Number of filters, at least 3. Their bands have equal widths on the mel scale.
        kernel_size: Taps of each filter, at least 3. An even number is raised by one, as in the published code.
        sampling_rate: Sampling rate of the waveforms in Hz. The bands cover 0 Hz to half of it.
        kwargs: Options of every configuration.

    Raises:
        ValueError: If a number is too small.
    """

    model_type = "sinc"
    attribute_map = {"hidden_size": "num_filters"}  # noqa: RUF012  (as in transformers)

    def __init__(
        self, num_filters: int = 70, kernel_size: int = 129, sampling_rate: int = 16_000, **kwargs: Any
    ) -> None:
        if min(num_filters, kernel_size) < 3:
            raise ValueError(
                f"the sinc front end needs at least 3 filters of 3 taps, got {num_filters} filters of {kernel_size}"
            )
        self.num_filters = num_filters
        self.kernel_size = kernel_size + 1 - kernel_size % 2
        self.sampling_rate = sampling_rate
        super().__init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """The number of transformer layers: none."""
        return 0


class SpoofDetectorConfig(PretrainedConfig):
    """Configuration of a `SpoofDetectorForAudioClassification`.

    Args:
        backbone_config: Configuration of the encoder, or its fields with `model_type`: wav2vec 2.0 (XLS-R), HuBERT,
            WavLM, data2vec-audio, wav2vec 2.0 Conformer, UniSpeech-SAT or any other model of `AutoModel` that takes raw
            waveforms as `input_values`; or w2v-BERT 2.0 (wav2vec2-bert) or the encoder of Whisper, with features that
            the feature extractor computes. By default a wav2vec 2.0 with the sizes of XLS-R 300M, without the masking
            and layer drop of pre-training. With a `SincConfig` (model_type sinc) there is no encoder: the head `aasist`
            is then AASIST on raw waveforms.
        head: Name of the head: aasist, conformer_tcm, linear, mamba, mhfa, nes2net or sls.
        head_options: Options of the head (`hf_gradalign.models.heads`). Missing ones take their defaults.
        class_weights: Weight of each label in the loss, in the order of labels; equal by default.
        sampling_rate: Sampling rate of the waveforms in Hz.
        n_samples: Number of samples of a clip that the model sees; None for whole clips. Used by the feature extractor
            that is saved with the model (`SpoofDetectorFeatureExtractor`).
        do_normalize: Whether the feature extractor normalizes clips to zero mean and unit variance.
        normalization_epsilon: Added to the variance in that normalization; it matters for quiet clips. 1e-7 in
            transformers, 1e-5 in most published detectors.
        layer_merging: How to merge all layers of the encoder for a head that takes one layer: sea, weighted_sum or attm
            (`hf_gradalign.models.layer_merging`). None gives the head its last layer.
        encoder_extractor: Settings of the encoder's own feature extractor, for an encoder that does not take waveforms.
            By default, the settings of its class.
        loss: cross_entropy, am_softmax or oc_softmax (`hf_gradalign.models.losses`). The latter two replace the head's
            output layer.
        loss_options: Options of the loss. Missing ones have the published values.
        calibration: From scores to log-likelihood ratios, as `hf-gradalign calibrate` stores it
            (`hf_gradalign.models.score_calibration`). None if the model is not calibrated.
        kwargs: Options of every configuration. By default, the labels are spoof (0) and bonafide (1). With
            `num_labels=1`, the only output is bonafide.

    Raises:
        ValueError: If a sinc front end has another sampling rate, or the calibration is damaged.
    """

    model_type = "spoof_detector"
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012  (as in transformers)
    loss = "cross_entropy"
    loss_options = None
    calibration = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # transformers would make an __init__ of the annotations, which does not call the one below.
        if "__init__" not in cls.__dict__:
            cls.__init__ = cls.__init__
        super().__init_subclass__(**kwargs)

    def __init__(
        self,
        backbone_config: PretrainedConfig | Mapping[str, Any] | None = None,
        head: str = "aasist",
        head_options: Mapping[str, Any] | None = None,
        class_weights: Sequence[float] | None = None,
        sampling_rate: int = 16_000,
        n_samples: int | None = WINDOW_SAMPLES,
        do_normalize: bool = False,
        normalization_epsilon: float = 1e-7,
        layer_merging: str | None = None,
        encoder_extractor: Mapping[str, Any] | None = None,
        loss: str = "cross_entropy",
        loss_options: Mapping[str, float] | None = None,
        calibration: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(backbone_config, PretrainedConfig):
            fields = dict(XLS_R_300M if backbone_config is None else backbone_config)
            kind = fields.pop("model_type", "wav2vec2")
            # This does not use AutoConfig, where a detector that comes with its own code may not be registered.
            backbone_config = (
                SincConfig(**fields) if kind == SincConfig.model_type else AutoConfig.for_model(kind, **fields)
            )
        if backbone_config.model_type == SincConfig.model_type and backbone_config.sampling_rate != sampling_rate:
            raise ValueError(
                f"the sinc front end is for {backbone_config.sampling_rate} Hz, and the detector for {sampling_rate} Hz"
            )
        self.backbone_config = backbone_config
        self.head = head
        self.head_options = dict(head_options or {})
        self.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]
        self.sampling_rate = sampling_rate
        self.n_samples = n_samples
        self.do_normalize = do_normalize
        self.normalization_epsilon = normalization_epsilon
        self.layer_merging = layer_merging
        self.encoder_extractor = None if encoder_extractor is None else dict(encoder_extractor)
        if loss != "cross_entropy" or loss_options:  # without them, config.json is as in earlier versions
            self.loss = loss
            self.loss_options = dict(loss_options or {})
        if calibration is not None:
            self.calibration = check_calibration(calibration)
        if kwargs.get("id2label") is None and kwargs.get("num_labels") is None:
            kwargs["id2label"] = {index: name for name, index in (kwargs.get("label2id") or LABEL2ID).items()}
        if kwargs.get("id2label") is None and kwargs.get("num_labels") == 1:
            kwargs["id2label"] = {0: "bonafide"}
        if kwargs.get("id2label") is not None and kwargs.get("label2id") is None:
            kwargs["label2id"] = {name: int(index) for index, name in kwargs["id2label"].items()}
        if len(kwargs.get("id2label") or ()) == 1:
            # For the transformers pipeline: a sigmoid, since the softmax of a single output is always 1.
            kwargs.setdefault("problem_type", "multi_label_classification")
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """The width of the backbone's frames. In some encoders, an adapter changes the width after the layers."""
        if getattr(self.backbone_config, "add_adapter", False):
            return self.backbone_config.output_hidden_size
        return self.backbone_config.hidden_size


XLS_R_300M: dict[str, Any] = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
}
