"""A detector for `AutoModelForAudioClassification`: a speech encoder, or filters of the waveform, and a head."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import FEATURE_EXTRACTOR_NAME

from .configuration_spoof_detector import ID2LABEL, SincConfig, SpoofDetectorConfig
from .encoder_layers import freeze_layers
from .feature_encoders import FEATURE_EXTRACTORS, default_extractor, encoder_alone, frame_mask, without_padding
from .feature_extraction_spoof_detector import SpoofDetectorFeatureExtractor
from .front_end_sinc import SincFrontEnd
from .heads import head_options as complete_head_options
from .heads import heads_for
from .layer_merging import make_layer_merging
from .losses import CROSS_ENTROPY, detection_loss, make_output_layer
from .losses import loss_options as complete_loss_options
from .score_calibration import calibrated_logits, drop_calibration

_WHERE = (
    "revision",
    "token",
    "cache_dir",
    "subfolder",
    "trust_remote_code",
    "local_files_only",
)  # of a model on the Hub


class SpoofDetectorPreTrainedModel(PreTrainedModel):
    """Settings for transformers."""

    config_class = SpoofDetectorConfig
    base_model_prefix = "backbone"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The backbone's class initializes its own modules.
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()


class SpoofDetectorForAudioClassification(SpoofDetectorPreTrainedModel):
    """Maps waveforms to the logits of spoof (0) and bona fide (1) speech.

    The countermeasure score is the bona fide logit minus the spoof logit or, as for the published detectors, only the
    bona fide logit. Both are higher for bona fide speech. Some published detectors have a single output z, which is
    the score itself. In the loss, it stands for the logits (-z / 2, z / 2). With the loss oc_softmax, the score is the
    cosine between the clip's embedding and the direction of bona fide speech. With a calibration in the configuration,
    the score is a log-likelihood ratio r, and the logits are (-r / 2, r / 2).

    Args:
        config: The configuration.
        backbone: An encoder to use instead of a new one. It must match `config.backbone_config`.

    Attributes:
        backbone: The encoder, or a `SincFrontEnd`.
        head: The head, one of `hf_gradalign.models.heads`.
        layer_merging: One of `hf_gradalign.models.layer_merging.LAYER_MERGING`, or None.

    Raises:
        ValueError: If there is no such head, layer merging, loss or option, or they do not fit each other, the front
            end or the labels.
    """

    # The loss is the mean over the batch; num_items_in_batch is ignored.
    accepts_loss_kwargs = False

    # transformers has no common class for speech encoders.
    backbone: Any

    def __init__(self, config: SpoofDetectorConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        front_end = config.backbone_config.model_type
        config.head_options = complete_head_options(config.head, config.head_options, front_end)
        if backbone is not None:
            self.backbone = backbone
        elif front_end == SincConfig.model_type:
            # Do not ask for its class, because transformers may load the code of a saved detector twice.
            self.backbone = SincFrontEnd(cast(SincConfig, config.backbone_config))
        else:
            self.backbone = encoder_alone(AutoModel.from_config(config.backbone_config))
        if config.encoder_extractor is None:
            config.encoder_extractor = default_extractor(config.backbone_config)
        self.main_input_name = "input_values" if config.encoder_extractor is None else "input_features"
        self.supports_gradient_checkpointing = self.backbone.supports_gradient_checkpointing
        num_layers = config.backbone_config.num_hidden_layers
        num_states = num_layers + 1  # including the input of the first layer
        make_head = heads_for(front_end)[config.head]
        self._takes_all_layers = getattr(make_head, "takes_all_layers", False)
        width = config.backbone_config.hidden_size if self._takes_all_layers else config.hidden_size
        self.head = make_head(width, num_states, config.num_labels, **config.head_options)
        self._use_loss(config)
        self.layer_merging = None
        if config.layer_merging is not None:
            encoder = config.backbone_config
            if getattr(encoder, "add_adapter", False) or getattr(encoder, "squeeze_factor", 1) > 1:
                raise ValueError(
                    f"layer_merging {config.layer_merging} needs layers with the same frames as the encoder's output, "
                    f"but the layers of {encoder.model_type} have others (add_adapter or squeeze_factor): remove it, "
                    "or use a head that takes all layers, such as mhfa"
                )
            self.layer_merging = make_layer_merging(
                config.layer_merging, config.hidden_size, num_layers, self._takes_all_layers
            )
        self.post_init()

    def _use_loss(self, config: SpoofDetectorConfig) -> None:
        """Replace the head's output layer by the loss's output layer."""
        options = complete_loss_options(config.loss, config.loss_options)
        if config.loss == CROSS_ENTROPY:
            return
        config.loss_options = options
        if getattr(self.head, "log_probabilities", False):
            raise ValueError(f"the loss {config.loss} does not fit a head that returns log-probabilities")
        if config.loss == "oc_softmax" and dict(cast(dict[int, str], config.id2label)) != ID2LABEL:
            raise ValueError(f"the loss oc_softmax needs the labels spoof (0) and bonafide (1), got {config.id2label}")
        self.head.classifier = make_output_layer(config.loss, options, getattr(self.head, "classifier", None))

    @property
    def has_margin_loss(self) -> bool:
        """Whether only the model can compute the loss, because it is not a cross-entropy of the logits."""
        return self.config.loss != CROSS_ENTROPY

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str,
        *,
        head: str = "aasist",
        head_options: dict[str, Any] | None = None,
        layer_merging: str | None = None,
        class_weights: list[float] | None = None,
        loss: str = CROSS_ENTROPY,
        loss_options: dict[str, float] | None = None,
        backbone_options: dict[str, Any] | None = None,
        **hub_options: Any,
    ) -> "SpoofDetectorForAudioClassification":
        """Create a detector with a new head on a pretrained encoder.

        Args:
            name_or_path: Hub id or folder of the encoder, e.g. facebook/wav2vec2-xls-r-300m.
            head: Name of the head.
            head_options: Options of the head.
            layer_merging: How to merge all layers of the encoder for the head, as in `SpoofDetectorConfig`.
            class_weights: Weight of each label in the loss.
            loss: Name of the loss, as in `SpoofDetectorConfig`.
            loss_options: Options of the loss.
            backbone_options: Fields of the encoder's configuration to change. Masking and layer drop are off by
                default, because the views of an utterance should only differ by augmentation.
            hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`, `attn_implementation`, ...

        Returns:
            The model, in float32 and evaluation mode, as from `from_pretrained`.

        Raises:
            OSError: If there is no such encoder.
            ValueError: If there is no such head, loss, option, merging or encoder option, the encoder takes neither
                waveforms nor features that are known here, or the checkpoint is incomplete.
        """
        complete_head_options(head, head_options)  # fail before anything is loaded
        complete_loss_options(loss, loss_options)
        backbone_config = AutoConfig.from_pretrained(name_or_path, **hub_options)
        off = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "apply_spec_augment": False}
        off["encoder_layerdrop"] = 0.0
        off = {name: value for name, value in off.items() if hasattr(backbone_config, name)}
        for name, value in {**off, **(backbone_options or {})}.items():
            if not hasattr(backbone_config, name):
                raise ValueError(f"{name_or_path} ({backbone_config.model_type}) has no option {name}")
            setattr(backbone_config, name, value)
        loading = {"dtype": torch.float32, **hub_options, "config": backbone_config, "output_loading_info": True}
        backbone, info = AutoModel.from_pretrained(name_or_path, **loading)
        extractor = None
        if backbone_config.model_type in FEATURE_EXTRACTORS:
            where = {name: value for name, value in hub_options.items() if name in _WHERE}
            extractor = AutoFeatureExtractor.from_pretrained(name_or_path, **where).to_dict()
        elif backbone.main_input_name != "input_values" or not hasattr(backbone, "_get_feature_vector_attention_mask"):
            raise ValueError(
                f"{name_or_path} ({type(backbone).__name__}) is not an encoder of raw waveforms, nor one of "
                f"{', '.join(FEATURE_EXTRACTORS)}"
            )
        backbone = encoder_alone(backbone)
        refuse_random_weights(name_or_path, [key for key in info["missing_keys"] if not key.startswith("decoder.")])
        # A configuration sets the attention of its parts, so it needs the encoder's setting.
        attention = backbone.config._attn_implementation
        config = SpoofDetectorConfig(
            backbone.config,
            head,
            head_options,
            class_weights,
            layer_merging=layer_merging,
            encoder_extractor=extractor,
            loss=loss,
            loss_options=loss_options,
            attn_implementation=attention,
        )
        # Otherwise post_init of the detector would reinitialize the encoder.
        for module in backbone.modules():
            cast(Any, module)._is_hf_initialized = True
        return cls(config, backbone).eval()

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        input_features: Tensor | None = None,
        raw_logits: bool = False,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Classify waveforms.

        Args:
            input_values: Shape (B, time), from the model's feature extractor.
            attention_mask: Shape (B, time), 1 for real samples (or features), which come first, and 0 for padding.
            labels: Shape (B,), 0 for spoof and 1 for bona fide. In training, with gradients, they drop the model's
                calibration, which training makes wrong.
            output_attentions: Whether to return the encoder's attention maps.
            output_hidden_states: Whether to return the encoder's hidden states.
            return_dict: Whether to return an object (the default) instead of a tuple.
            input_features: Instead of `input_values`, for encoders that take features, from the feature extractor.
            raw_logits: Whether to return the logits before calibration, if the model is calibrated.

        Returns:
            `loss` (only with labels: the configuration's loss of the logits before calibration, weighted by
            `config.class_weights`), `logits` of shape (B, 2), or (B, 1) for a detector with a single output, and on
            request `hidden_states` and `attentions` of the encoder.

        Raises:
            ValueError: If the detector takes the other kind of input, if it uses all layers and the encoder would drop
                some in training, if a loss is requested for a single output other than bonafide, or if the outputs of a
                calibrated model have other names than spoof and bonafide.
        """
        takes_features = self.config.encoder_extractor is not None
        inputs = input_features if takes_features else input_values
        if inputs is None:
            raise ValueError(f"the detector takes {self.main_input_name}: prepare clips with its feature extractor")
        all_layers = self._takes_all_layers or self.layer_merging is not None
        drops = any(getattr(self.backbone.config, name, 0.0) > 0 for name in ("layerdrop", "encoder_layerdrop"))
        if all_layers and self.training and drops:
            user = f"the head {self.config.head}" if self._takes_all_layers else self.config.layer_merging
            raise ValueError(f"{user} uses all layers: set the encoder's layerdrop to 0 to train it")
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if return_dict is None:
            return_dict = self.config.return_dict
        encoded = self.backbone(
            inputs,
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states or all_layers,
            return_dict=True,
        )
        if self._takes_all_layers:
            states = encoded.hidden_states  # (B, T, D) each
        elif self.layer_merging is not None:
            # The last hidden state from transformers lacks the encoder's final layer norm.
            states = (*encoded.hidden_states[:-1], encoded.last_hidden_state)
        else:
            states = (encoded.last_hidden_state,)
        mask = None
        if attention_mask is not None:
            mask = frame_mask(self.backbone, states[-1].shape[1], attention_mask, self._takes_all_layers)
            if takes_features:
                states, mask = without_padding(states, mask)
        if self.layer_merging is not None:
            states = (self.layer_merging(states, mask),)
        logits = self.head(states if self._takes_all_layers else states[-1], mask)
        loss = None
        if labels is not None and self.training and torch.is_grad_enabled():
            drop_calibration(self.config)  # any trainer and any loop may be training the model
        if labels is not None:
            weights = self.config.class_weights
            if weights is not None:  # filled on the device: copying them would wait for it
                weights = torch.stack([logits.new_full((), weight, dtype=torch.float32) for weight in weights])
            logits_of_classes = self._of_two_classes(logits).float()
            loss = detection_loss(logits_of_classes, labels, self.config.loss, self.config.loss_options, weights)
        if self.config.calibration is not None and not raw_logits:
            logits = calibrated_logits(logits, self.config.calibration, cast(dict[int, str], self.config.id2label))
        output = SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states if output_hidden_states else None,
            attentions=encoded.attentions,
        )
        return output if return_dict else output.to_tuple()

    def _of_two_classes(self, logits: Tensor) -> Tensor:
        """Return the logits (B, 2) that a single output stands for. Return other logits unchanged."""
        if logits.shape[1] != 1:
            return logits
        label = cast(dict[int, str], self.config.id2label)[0]
        if label != "bonafide":
            raise ValueError(
                f"the detector's only output is {label}, but must be bonafide for a loss: set id2label, or load it "
                "with hf_gradalign.models.load_audio_classifier, which turns it into two outputs"
            )
        return torch.cat([-logits / 2, logits / 2], 1)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save the model with its code and, if the folder has none yet, its feature extractor.

        So `push_to_hub` uploads everything that is needed for scoring.

        Args:
            save_directory: The folder.
            args: As for `PreTrainedModel.save_pretrained`.
            kwargs: As for `PreTrainedModel.save_pretrained`.
        """
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True) and not Path(save_directory, FEATURE_EXTRACTOR_NAME).exists():
            self.make_feature_extractor().save_pretrained(save_directory)

    def make_feature_extractor(self) -> SpoofDetectorFeatureExtractor:
        """Create the feature extractor that the configuration describes."""
        config = self.config
        return SpoofDetectorFeatureExtractor(
            config.sampling_rate,
            config.n_samples,
            config.do_normalize,
            normalization_epsilon=config.normalization_epsilon,
            encoder_extractor=config.encoder_extractor,
        )

    def freeze_feature_encoder(self) -> None:
        """Freeze the encoder's convolutions.

        Raises:
            ValueError: If there are no convolutions to train, as in the front end sinc, or they are not a separate
                module.
        """
        if isinstance(self.backbone, SincFrontEnd):
            raise ValueError("the front end sinc has no weights to freeze: its filters are fixed")
        if self.config.encoder_extractor is not None:
            raise ValueError(
                f"{type(self.backbone).__name__} has no convolutional feature encoder: freeze what comes before its "
                "layers with --freeze_layers 0 (freeze_encoder_layers in Python)"
            )
        self.backbone.feature_extractor.requires_grad_(False)
        self.backbone.feature_extractor._requires_grad = False

    def freeze_backbone(self) -> None:
        """Freeze the whole encoder, so that only the head is trained.

        Raises:
            ValueError: If there is nothing to freeze, as with the front end sinc.
        """
        if self.config.encoder_extractor is None:
            self.freeze_feature_encoder()
        self.backbone.requires_grad_(False)

    def freeze_encoder_layers(self, count: int) -> None:
        """Freeze the convolutions and the first `count` transformer layers.

        Raises:
            ValueError: If there are no or fewer layers.
        """
        freeze_layers(self.backbone, count)


def refuse_random_weights(name_or_path: str, absent: Iterable[str]) -> None:
    """Check that a checkpoint has all weights of its encoder.

    Only the embedding of masked frames may be missing, because nothing is masked.

    Raises:
        ValueError: If other weights are missing.
    """
    absent = sorted(key for key in absent if not key.endswith("masked_spec_embed"))
    if absent:
        listing = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise ValueError(
            f"{name_or_path} lacks {len(absent)} weights of its encoder, or their shapes differ from its config.json "
            f"({listing}): they would be random. Download the model again"
        )
