"""Convert a published checkpoint, with a report of all assumptions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from hf_gradalign.conversion import wav2vec2_layout
from hf_gradalign.conversion.head_layouts import HEAD_LAYOUTS, detect_head
from hf_gradalign.conversion.reading import ConversionError
from hf_gradalign.models import SpoofDetectorConfig, SpoofDetectorForAudioClassification
from hf_gradalign.utils.plain_text import plain_text


@dataclass
class ConversionReport:
    """Report of what was done with a checkpoint's entries.

    Attributes:
        head: Name of the head.
        converted: Number of entries that were converted.
        n_parameters: Number of values in them, without counters.
        ignored: Entries that are only used in pre-training, by their published names.
        filled_in: Missing entries that can only have one value: counters (0), and the projection between convolutions
            and transformer if fairseq has none (the identity).
        casted: Types that were cast to float32, with the number of entries.
        settings: Settings that the shapes do not determine.
        prefix: Prefix that was removed from the keys.
        beside: Entries without that prefix, which are left out.
    """

    head: str
    converted: int
    n_parameters: int
    ignored: list[str] = field(default_factory=list)
    filled_in: list[str] = field(default_factory=list)
    casted: dict[str, int] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    prefix: str = ""
    beside: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"head                 {self.head}",
            f"entries converted    {self.converted} ({self.n_parameters / 1e6:.4f}M values)",
            f"entries ignored      {len(self.ignored)}{_listed(self.ignored)}",
        ]
        if self.prefix:
            lines.append(f"prefix taken off     {plain_text(self.prefix)}")
        if self.beside:
            lines.append(f"not of the detector  {len(self.beside)}{_listed(self.beside)}")
        if self.filled_in:
            lines.append(f"entries filled in    {len(self.filled_in)}{_listed(self.filled_in)}")
        if self.casted:
            lines.append("cast to float32      " + ", ".join(f"{n} of {kind}" for kind, n in self.casted.items()))
        lines.append("taken as given       " + ", ".join(f"{name} {value}" for name, value in self.settings.items()))
        return "\n".join(lines)


def _listed(names: list[str]) -> str:
    return f": {plain_text(', '.join(names))}" if names else ""


_COUNTER = "num_batches_tracked"


def convert_state_dict(
    state: Mapping[str, Tensor],
    *,
    head: str = "auto",
    num_attention_heads: int = 16,
    conv_stride: Sequence[int] | None = None,
    do_stable_layer_norm: bool | None = None,
    head_options: Mapping[str, Any] | None = None,
    class_weights: Sequence[float] | None = None,
    prefix: str | None = None,
) -> tuple[SpoofDetectorForAudioClassification, ConversionReport]:
    """Convert a published state dict (DPDA-GA, SSL_Anti-spoofing, TCM, XLSR-Mamba) to a detector.

    Args:
        state: The state dict, e.g. from `read_state_dict`. A common prefix of its keys (Lightning's `model.`) is
            removed. Entries without it (a loss's class weights, metrics) are left out and reported.
        head: aasist, conformer_tcm or mamba; "auto" to detect it from the keys.
        num_attention_heads: Attention heads of the backbone, which shapes do not determine; the published value by
            default.
        conv_stride: Strides of the feature extractor, which shapes do not determine; those of wav2vec 2.0 by default.
        do_stable_layer_norm: Position of the backbone's layer norms, which shapes do not determine; derived from its
            feature extractor by default.
        head_options: Options of the head that shapes do not determine (AASIST's `pool_ratios`).
        class_weights: Weights of spoof and bona fide in the loss, stored in the configuration.
        prefix: Prefix of the detector's keys, if the checkpoint has several detectors.

    Returns:
        The detector, in float32 and evaluation mode, and the report.

    Raises:
        ConversionError: If the head is unknown, sizes cannot be read, or keys are unknown, missing or have wrong
            shapes. One message lists all of them by their published names.
    """
    if head != "auto" and head not in HEAD_LAYOUTS:
        raise ConversionError(f"there is no published layout {head!r}; available: auto, {', '.join(HEAD_LAYOUTS)}")
    head, prefix = detect_head(state, head, prefix)
    beside = [key for key in state if not key.startswith(prefix)]
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    backbone_state = wav2vec2_layout.normalize_keys(state)
    identity = wav2vec2_layout.identity_projection(backbone_state)
    backbone_state |= identity
    head_state = {key: value for key, value in state.items() if not key.startswith(wav2vec2_layout.PREFIX)}
    backbone_config = wav2vec2_layout.config_from_shapes(
        backbone_state,
        num_attention_heads=num_attention_heads,
        conv_stride=conv_stride,
        do_stable_layer_norm=do_stable_layer_norm,
    )
    options = {**_read_options(head, head_state), **(head_options or {})}
    config = SpoofDetectorConfig(backbone_config, head, options, class_weights)
    try:
        with torch.device("meta"):
            model = SpoofDetectorForAudioClassification(config)
    except (ValueError, RuntimeError) as error:
        raise ConversionError(f"the checkpoint's sizes do not fit a {head} detector: {error}") from error

    ignored = [key for key in backbone_state if wav2vec2_layout.is_ignored(key)]
    values = {f"{wav2vec2_layout.PREFIX}{key}": value for key, value in backbone_state.items() if key not in ignored}
    values |= head_state
    ours = {key: _our_name(config, key) for key in values}

    expected = model.state_dict()
    found = {name: values[key] for key, name in ours.items() if name in expected}
    counters = [name for name in expected if name not in found and name.endswith(_COUNTER)]
    found |= {name: torch.zeros_like(expected[name], device="cpu") for name in counters}
    _check(expected, found, [key for key, name in ours.items() if name not in expected], config)

    casted: dict[str, int] = {}
    for name, value in found.items():
        if value.is_floating_point() and value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            casted[kind] = casted.get(kind, 0) + 1
        # Copied, because mapped files may disappear and entries may share memory.
        found[name] = value.float().clone() if value.is_floating_point() else value.clone()
    model.load_state_dict(found, assign=True)
    report = ConversionReport(
        head=head,
        converted=len(found) - len(counters) - len(identity),
        n_parameters=sum(value.numel() for name, value in found.items() if not name.endswith(_COUNTER)),
        ignored=[wav2vec2_layout.PREFIX + key for key in ignored],
        filled_in=[*counters, *(wav2vec2_layout.PREFIX + key for key in identity)],
        casted=casted,
        prefix=prefix,
        beside=beside,
        settings={
            "num_attention_heads": num_attention_heads,
            "conv_stride": list(config.backbone_config.conv_stride),
            "do_stable_layer_norm": config.backbone_config.do_stable_layer_norm,
        },
    )
    return model.eval(), report


def published_state_dict(model: SpoofDetectorForAudioClassification) -> dict[str, Tensor]:
    """Return a detector's weights under their published names: the reverse of `convert_state_dict`.

    Args:
        model: A detector with a wav2vec 2.0 backbone and one of the three published heads.

    Returns:
        A state dict for the published code, with strict=False because entries of pre-training such as `mask_emb` are
        missing.

    Raises:
        ConversionError: If there is no published layout for the backbone or the head.
    """
    head = model.config.head
    if head not in HEAD_LAYOUTS or model.config.backbone_config.model_type != "wav2vec2":
        raise ConversionError(
            f"there is no published layout for {model.config.backbone_config.model_type} with the head {head}; there "
            f"is one for wav2vec2 with {', '.join(HEAD_LAYOUTS)}"
        )
    state = {}
    for name, value in model.state_dict().items():
        key = _published_name(cast(SpoofDetectorConfig, model.config), name)
        if key is None:
            raise ConversionError(f"{name} has no published name")
        state[key] = value.detach().clone()
    return state


def _published_name(config: SpoofDetectorConfig, name: str) -> str | None:
    """The published name of an entry of a model; None if it has none."""
    part, _, rest = name.partition(".")
    if part == "head":
        return HEAD_LAYOUTS[config.head].keys.to_theirs(rest)
    key = wav2vec2_layout.key_names(config.backbone_config.feat_extract_norm).to_theirs(rest)
    return None if key is None else wav2vec2_layout.PREFIX + key


def _our_name(config: SpoofDetectorConfig, key: str) -> str | None:
    """The reverse of `_published_name`."""
    if key.startswith(wav2vec2_layout.PREFIX):
        part, names = "backbone", wav2vec2_layout.key_names(config.backbone_config.feat_extract_norm)
    else:
        part, names = "head", HEAD_LAYOUTS[config.head].keys
    name = names.to_ours(key.removeprefix(wav2vec2_layout.PREFIX))
    return None if name is None else f"{part}.{name}"


def _read_options(head: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    try:
        return HEAD_LAYOUTS[head].options(state)
    except (KeyError, IndexError) as error:
        raise ConversionError(f"the {head} head's sizes cannot be read: no {error.args[0]}") from error


def _check(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    unknown: Sequence[str],
    config: SpoofDetectorConfig,
) -> None:
    missing = [_published_name(config, name) or name for name in expected if name not in found]
    misshapen = [
        f"{_published_name(config, name)} is {tuple(found[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    wrong = []
    for what, keys in (("unknown", unknown), ("missing", missing), ("with a wrong shape", misshapen)):
        if keys:
            wrong.append(f"{len(keys)} {what}:\n    " + "\n    ".join(keys))
    if wrong:
        raise ConversionError("the checkpoint does not match the layout:\n  " + "\n  ".join(wrong))
