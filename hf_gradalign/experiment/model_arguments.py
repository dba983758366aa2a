"""The arguments of a run that concern its model."""

import importlib.util
import math
from dataclasses import dataclass, field
from typing import Any

from hf_gradalign.utils.settings_files import read_json_object

# Options that are JSON objects, with the option that they need and an example.
_JSON_OPTIONS = (
    ("head_options", "head", '{"num_blocks": 2}'),
    ("loss_options", "loss", '{"margin": 0.2}'),
    ("conversion_options", "model_name_or_path", '{"num_attention_heads": 8}'),
)


@dataclass
class ModelArguments:
    """The model to train."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Hub id or folder of any wav2vec2-family model (facebook/wav2vec2-xls-r-300m, "
            "microsoft/wavlm-base, your own), a published detector (see hf-gradalign detectors; or "
            "the path of its file), or aasist or aasist_l: AASIST on raw waveforms, trained from scratch. By "
            "default, a small wav2vec 2.0 that suits two CPU cores is trained from scratch."
        },
    )
    head: str | None = field(
        default=None,
        metadata={
            "help": "Put a new head on the encoder: aasist, conformer_tcm, linear, mamba, mhfa, nes2net or sls. By "
            "default, the model's own head is trained, or transformers' standard head."
        },
    )
    head_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": """Options for the head as JSON: '{"num_blocks": 2}'."""}
    )
    layer_merging: str | None = field(
        default=None,
        metadata={
            "help": "With --head: merge all layers of the encoder for a head that takes one: sea, weighted_sum or attm."
        },
    )
    bonafide_label: str | None = field(
        default=None,
        metadata={
            "help": "Bona fide label (name or number) of a detector that is trained further, if its label names do not "
            "tell; none for a detector with one output that is higher for spoof."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    conversion_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "For a published detector whose settings are not the published ones, options of its conversion as "
            """JSON: '{"num_attention_heads": 8}'."""
        },
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run modeling code that comes with the model on the Hub."}
    )
    attention_implementation: str | None = field(
        default=None, metadata={"help": "eager, sdpa, flash_attention_2, ...; by default transformers chooses."}
    )
    freeze_feature_encoder: bool = field(default=False, metadata={"help": "Freeze the convolutional feature encoder."})
    freeze_backbone: bool = field(
        default=False, metadata={"help": "Freeze the whole encoder of a detector and train only its head."}
    )
    freeze_layers: int | None = field(
        default=None,
        metadata={
            "help": "Freeze the first N transformer layers and everything before them, such as convolutions; 0 freezes "
            "only what comes before them."
        },
    )
    lora_r: int | None = field(
        default=None,
        metadata={
            "help": "Train LoRA adapters of this rank on the encoder instead of its own weights, and the whole head. "
            "Needs PEFT (pip install peft)."
        },
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": "Scale of the adapters, divided by their rank; by default twice the rank."}
    )
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "Linear layers of the encoder with adapters, by the ends of their names, such as q_proj k_proj or "
            "layers.3.attention.q_proj; all-linear for all. By default the queries and values of attention, and in "
            "WavLM the feed-forward layers."
        },
    )
    loss: str | None = field(
        default=None,
        metadata={
            "choices": ["cross_entropy", "am_softmax", "oc_softmax"],
            "help": "Loss of a new head: cross_entropy (the default), or with margins on cosines, am_softmax or "
            "oc_softmax. Stored in the model's config.",
        },
    )
    loss_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": """Margins and scale of the loss as JSON: '{"margin": 0.2}'."""}
    )
    class_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "Weights of spoof and bona fide in the loss, such as 0.1 0.9 as in the paper. "
            "Stored in the model's config. By default equal, or those in the config of a reloaded model."
        },
    )

    model_license: str | None = field(
        default=None,
        metadata={
            "help": "License of the trained weights for the model card; by default apache-2.0 if "
            "trained from scratch, and that of a published detector (hf-gradalign detectors) that is trained further."
        },
    )

    def __post_init__(self) -> None:
        """Check the options, and read those of the head."""
        for name, needed, example in _JSON_OPTIONS:
            value = getattr(self, name)
            if isinstance(value, str):
                setattr(self, name, read_json_object(value, f"--{name}", example))
            if value is not None and getattr(self, needed) is None:
                raise ValueError(f"--{name} takes a JSON object and needs --{needed}: '{example}'")
        if self.layer_merging is not None and self.head is None:
            raise ValueError(f"--layer_merging {self.layer_merging} needs --head: a trained detector keeps its own")
        if self.head is not None and self.bonafide_label is not None:
            raise ValueError("--bonafide_label describes a trained head, but --head adds a new one: remove one of them")
        if self.freeze_layers is not None:
            if self.freeze_layers < 0:
                raise ValueError(f"--freeze_layers must be 0 or more, got {self.freeze_layers}")
            if self.freeze_backbone:
                raise ValueError("--freeze_backbone freezes all layers: remove it or --freeze_layers")
        self._check_lora()
        weights = self.class_weights
        if weights is not None and (len(weights) != 2 or min(weights) <= 0):
            raise ValueError(f"--class_weights takes two positive numbers, for spoof and bona fide, got {weights}")

    def _check_lora(self) -> None:
        if self.lora_r is None:
            for name in ("lora_alpha", "lora_target_modules"):
                if getattr(self, name) is not None:
                    raise ValueError(f"--{name} is an option of LoRA: also pass --lora_r, such as --lora_r 16")
            return
        if self.lora_r < 1:
            raise ValueError(f"--lora_r must be 1 or more, got {self.lora_r}")
        if self.lora_alpha is not None and not 0 < self.lora_alpha < math.inf:
            raise ValueError(f"--lora_alpha must be a positive number, got {self.lora_alpha}")
        for name in ("freeze_feature_encoder", "freeze_backbone", "freeze_layers"):
            if getattr(self, name) is not getattr(type(self), name):  # 0 is a valid number of layers
                raise ValueError(
                    f"--lora_r freezes the encoder's own weights: remove --{name} (--lora_target_modules chooses the "
                    "layers with adapters)"
                )
        if importlib.util.find_spec("peft") is None:
            raise ImportError("--lora_r needs PEFT, which is not installed: pip install peft")
