"""A detector: a self-supervised speech encoder and a head, for `AutoModelForAudioClassification`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import FEATURE_EXTRACTOR_NAME

from .configuration_spoof_detector import SpoofDetectorConfig
from .feature_extraction_spoof_detector import SpoofDetectorFeatureExtractor
from .heads import HEADS
from .heads import head_options as complete_head_options


class SpoofDetectorPreTrainedModel(PreTrainedModel):
    """What transformers has to know of the model below."""

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
        # The backbone's modules are initialised by its own class.
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


class SpoofDetectorForAudioClassification(SpoofDetectorPreTrainedModel):
    """Waveforms to the logits of spoof (0) and bona fide (1) speech.

    A countermeasure score is the bona fide logit minus the spoof logit, or, as the published detectors are scored, the
    bona fide logit alone; higher for bona fide.

    Args:
        config: The configuration.
        backbone: An encoder to take instead of a new one; it must be of `config.backbone_config`.

    Attributes:
        backbone: The encoder.
        head: The head, one of `hf_gradalign.models.heads.HEADS`.

    Raises:
        ValueError: If there is no such head or head option.
    """

    # The loss is a mean over the batch that is given, whatever num_items_in_batch says.
    accepts_loss_kwargs = False

    def __init__(self, config: SpoofDetectorConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        config.head_options = complete_head_options(config.head, config.head_options)
        self.backbone = AutoModel.from_config(config.backbone_config) if backbone is None else backbone
        num_layers = config.backbone_config.num_hidden_layers + 1  # with what enters the first
        self.head = HEADS[config.head](config.hidden_size, num_layers, config.num_labels, **config.head_options)
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str,
        *,
        head: str = "aasist",
        head_options: dict[str, Any] | None = None,
        class_weights: list[float] | None = None,
        backbone_options: dict[str, Any] | None = None,
        **hub_options: Any,
    ) -> "SpoofDetectorForAudioClassification":
        """A new head on a pretrained encoder.

        Args:
            name_or_path: Hub id or folder of the encoder, e.g. facebook/wav2vec2-xls-r-300m.
            head: Name of the head.
            head_options: Options of the head.
            class_weights: Weight of each label in the loss.
            backbone_options: Fields of the encoder's configuration to change. Masking and layer drop are off unless
                they are turned on here: what the views of an utterance differ in is the augmentation's business.
            hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`, `attn_implementation`, ...

        Returns:
            The model, in float32 and training mode off, as `from_pretrained` gives it.

        Raises:
            OSError: If there is no such encoder.
            ValueError: If there is no such head, head option or encoder option, the encoder does not take waveforms, or
                the checkpoint has only a part of it.
        """
        complete_head_options(head, head_options)  # a wrong name or option is to be known before anything is loaded
        backbone_config = AutoConfig.from_pretrained(name_or_path, **hub_options)
        off = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "apply_spec_augment": False}
        off = {name: value for name, value in off.items() if hasattr(backbone_config, name)}
        for name, value in {**off, **(backbone_options or {})}.items():
            if not hasattr(backbone_config, name):
                raise ValueError(f"{name_or_path} ({backbone_config.model_type}) has no option {name}")
            setattr(backbone_config, name, value)
        loading = {"dtype": torch.float32, **hub_options, "config": backbone_config, "output_loading_info": True}
        backbone, info = AutoModel.from_pretrained(name_or_path, **loading)
        if backbone.main_input_name != "input_values" or not hasattr(backbone, "_get_feature_vector_attention_mask"):
            raise ValueError(f"{name_or_path} ({type(backbone).__name__}) is no encoder of raw waveforms")
        refuse_random_weights(name_or_path, info["missing_keys"])
        # A configuration hands its attention down to those it is made of, so it has to have the encoder's.
        attention = backbone.config._attn_implementation
        config = SpoofDetectorConfig(backbone.config, head, head_options, class_weights, attn_implementation=attention)
        # post_init of the whole would draw the encoder's weights anew.
        for module in backbone.modules():
            module._is_hf_initialized = True
        return cls(config, backbone).eval()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Classify waveforms.

        Args:
            input_values: Shape (B, time), as the model's feature extractor gives them.
            attention_mask: Shape (B, time), 1 for real samples, which come first, and 0 for padding.
            labels: Shape (B,), 0 for spoof and 1 for bona fide.
            output_attentions: Also give the encoder's attention maps.
            output_hidden_states: Also give the encoder's hidden states.
            return_dict: Give an object (the default) or a tuple.

        Returns:
            `loss` (with labels: cross-entropy under `config.class_weights`), `logits` of shape (B, 2), and on request
            `hidden_states` and `attentions` of the encoder.

        Raises:
            ValueError: If the head takes all layers and the encoder, in training, would drop some.
        """
        all_layers = getattr(self.head, "takes_all_layers", False)
        if all_layers and self.training and getattr(self.backbone.config, "layerdrop", 0.0) > 0:
            raise ValueError(
                f"the head {self.config.head} takes all layers: set the encoder's layerdrop to 0 to train it"
            )
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if return_dict is None:
            return_dict = self.config.return_dict
        encoded = self.backbone(
            input_values,
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states or all_layers,
            return_dict=True,
        )
        frames = encoded.last_hidden_state  # (B, T, D)
        mask = None
        if attention_mask is not None:
            mask = self.backbone._get_feature_vector_attention_mask(frames.shape[1], attention_mask).bool()
        logits = self.head(encoded.hidden_states if all_layers else frames, mask)
        loss = None
        if labels is not None:
            weights = self.config.class_weights
            weights = None if weights is None else torch.tensor(weights, device=logits.device)
            loss = cross_entropy(logits.float(), labels, weight=weights)
        output = SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states if output_hidden_states else None,
            attentions=encoded.attentions,
        )
        return output if return_dict else output.to_tuple()

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save the model as every model, with its code and, where there is none yet, its feature extractor.

        So `push_to_hub` takes all that is needed to score.

        Args:
            save_directory: The folder.
            args: As `PreTrainedModel.save_pretrained` takes them.
            kwargs: As `PreTrainedModel.save_pretrained` takes them.
        """
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True) and not Path(save_directory, FEATURE_EXTRACTOR_NAME).exists():
            self.make_feature_extractor().save_pretrained(save_directory)

    def make_feature_extractor(self) -> SpoofDetectorFeatureExtractor:
        """The feature extractor that the configuration describes."""
        config = self.config
        return SpoofDetectorFeatureExtractor(config.sampling_rate, config.n_samples, config.do_normalize)

    def freeze_feature_encoder(self) -> None:
        """Keep the encoder's convolutions as they are."""
        self.backbone.feature_extractor.requires_grad_(False)
        self.backbone.feature_extractor._requires_grad = False

    def freeze_backbone(self) -> None:
        """Keep the whole encoder as it is, and train the head alone."""
        self.freeze_feature_encoder()
        self.backbone.requires_grad_(False)

    def freeze_encoder_layers(self, count: int) -> None:
        """Keep the convolutions and the first `count` transformer layers as they are.

        Raises:
            ValueError: If there are not so many layers.
        """
        layers = self.backbone.encoder.layers
        if not 0 <= count <= len(layers):
            raise ValueError(f"the encoder has {len(layers)} layers, cannot freeze {count}")
        self.freeze_feature_encoder()
        self.backbone.feature_projection.requires_grad_(False)
        encoder, config = self.backbone.encoder, self.backbone.config
        if getattr(encoder, "pos_conv_embed", None) is not None:
            encoder.pos_conv_embed.requires_grad_(False)
        # The encoder's own norm comes after its layers in these, before them in the others.
        if not getattr(config, "do_stable_layer_norm", False) and config.model_type != "wav2vec2-conformer":
            encoder.layer_norm.requires_grad_(False)
        for layer in layers[:count]:
            layer.requires_grad_(False)


def refuse_random_weights(name_or_path: str, absent: Iterable[str]) -> None:
    """Raise ValueError if an encoder has weights that its checkpoint lacks.

    Only the stand-in for masked frames may be missing: where nothing is masked, nothing comes of it.
    """
    absent = sorted(key for key in absent if not key.endswith("masked_spec_embed"))
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise ValueError(
            f"{name_or_path} lacks {len(absent)} weights of its encoder, or has them in other shapes than its "
            f"config.json says ({shown}): they would be random. Download the model again"
        )
