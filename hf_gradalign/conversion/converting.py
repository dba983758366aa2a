"""Converts a published checkpoint, and reports all assumptions."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from hf_gradalign.conversion import encoder_layout
from hf_gradalign.conversion.detector_parts import DetectorNames, detect_names
from hf_gradalign.conversion.encoder_layout import EncoderSettings
from hf_gradalign.conversion.layouts import HEAD_LAYOUTS, Published, detect_head, layout_name
from hf_gradalign.conversion.reading import ConversionError
from hf_gradalign.models import SincConfig, SpoofDetectorConfig, SpoofDetectorForAudioClassification
from hf_gradalign.models.losses import CROSS_ENTROPY
from hf_gradalign.utils.plain_text import plain_text

PUBLISHED_EPSILON = 1e-5
"""Added to the variance where a published detector normalizes waveforms."""
_COUNTER = "num_batches_tracked"


@dataclass
class ConversionReport:
    """Report on the conversion of a checkpoint's entries.

    Attributes:
        head: Name of the head's layout.
        published: The published facts about the detector with this layout.
        converted: Number of entries that were converted.
        n_parameters: Number of values in these entries, without counters.
        ignored: Entries that are only used in pre-training, by their published names.
        filled_in: Missing entries that can only have one value: counters (0), and the projection between convolutions
            and transformer if fairseq has none (the identity).
        casted: Types that were cast to float32, with the number of entries.
        assumed: Settings that neither the shapes nor the caller determine, with their published values.
        given: Settings that the caller determined.
        prefix: Prefix that was removed from the keys.
        beside: Entries without that prefix, which are left out.
    """

    head: str
    published: Published
    converted: int
    n_parameters: int
    ignored: list[str] = field(default_factory=list)
    filled_in: list[str] = field(default_factory=list)
    casted: dict[str, int] = field(default_factory=dict)
    assumed: dict[str, object] = field(default_factory=dict)
    given: dict[str, object] = field(default_factory=dict)
    prefix: str = ""
    beside: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"layout               {self.published.name}",
            f"head                 {self.head}",
            f"entries converted    {self.converted} ({self.n_parameters / 1e6:.4f}M values)",
            f"entries ignored      {len(self.ignored)}{_format_names(self.ignored)}",
        ]
        if self.prefix:
            lines.append(f"prefix taken off     {plain_text(self.prefix)}")
        if self.beside:
            lines.append(f"not of the detector  {len(self.beside)}{_format_names(self.beside)}")
        if self.filled_in:
            lines.append(f"entries filled in    {len(self.filled_in)}{_format_names(self.filled_in)}")
        if self.casted:
            lines.append("cast to float32      " + ", ".join(f"{n} of {kind}" for kind, n in self.casted.items()))
        for title, settings in (("given", self.given), ("assumed", self.assumed)):
            if settings:
                lines.append(f"{title:<21}" + ", ".join(f"{name} {value}" for name, value in settings.items()))
        return "\n".join(lines)


def convert_state_dict(
    state: Mapping[str, Tensor],
    *,
    head: str = "auto",
    num_attention_heads: int | None = None,
    conv_stride: Sequence[int] | None = None,
    do_stable_layer_norm: bool | None = None,
    max_bucket_distance: int | None = None,
    num_sinc_filters: int | None = None,
    sinc_kernel_size: int | None = None,
    head_options: Mapping[str, Any] | None = None,
    class_weights: Sequence[float] | None = None,
    prefix: str | None = None,
) -> tuple[SpoofDetectorForAudioClassification, ConversionReport]:
    """Convert a published state dict to a detector.

    Known layouts: DPDA-GA, SSL_Anti-spoofing, TCM, XLSR-Mamba, SLS, Nes2Net with XLS-R or WavLM, AntiDeepfake with
    wav2vec 2.0 or HuBERT, and AASIST on raw waveforms. Settings that shapes do not determine have the published values
    by default, and the report says so.

    Args:
        state: The state dict, e.g. from `read_state_dict`. A common prefix of its keys (Lightning's `model.`) is
            removed. Entries without it (a loss's class weights, metrics) are left out and reported.
        head: aasist, aasist_raw (without an encoder), conformer_tcm, linear (AntiDeepfake), mamba, nes2net or sls;
            "auto" to detect it from the keys.
        num_attention_heads: Attention heads of the encoder; by default 12 for a width of 768 and 16 for others. The
            shapes of WavLM determine them.
        conv_stride: Strides of the feature extractor; those of wav2vec 2.0 by default.
        do_stable_layer_norm: Position of the encoder's layer norms; derived from its feature extractor by default.
        max_bucket_distance: Largest distance of WavLM's relative positions; 800 by default.
        num_sinc_filters: Number of filters in front of AASIST on raw waveforms; 70 by default.
        sinc_kernel_size: Taps of these filters; 129 by default.
        head_options: Options of the head that shapes do not determine: `pool_ratios` of AASIST and, on raw waveforms,
            `temperatures`; `dilation` (2 with XLS-R, 1 with WavLM) and `activation` (relu) of Nes2Net.
        class_weights: Weights of spoof and bona fide in the loss, stored in the configuration.
        prefix: Prefix of the detector's keys, if the checkpoint has several detectors.

    Returns:
        The detector, in float32 and evaluation mode, and the report.

    Raises:
        ConversionError: If the head is unknown, sizes cannot be read, or keys are unknown, missing, or have wrong
            shapes, integers or values that are not finite. One message lists all of them by their published names.
    """
    if head != "auto" and head not in HEAD_LAYOUTS:
        raise ConversionError(f"there is no published layout {head!r}; available: auto, {', '.join(HEAD_LAYOUTS)}")
    head, prefix = detect_head(state, head, prefix)
    beside = [key for key in state if not key.startswith(prefix)]
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    names = detect_names(state, head)
    encoder_state = encoder_layout.normalize_keys(
        {
            key.removeprefix(names.encoder_prefix): value
            for key, value in state.items()
            if names.part_of(key) == "backbone"
        }
    )
    identity = encoder_layout.identity_projection(encoder_state)
    encoder_state |= identity
    rest = {key: value for key, value in state.items() if names.part_of(key) != "backbone"}
    settings = EncoderSettings(
        num_attention_heads=num_attention_heads,
        conv_stride=conv_stride,
        do_stable_layer_norm=do_stable_layer_norm,
        max_bucket_distance=max_bucket_distance,
        num_sinc_filters=num_sinc_filters,
        sinc_kernel_size=sinc_kernel_size,
    )
    if HEAD_LAYOUTS[head].encoders == (SincConfig.model_type,):
        encoder, assumed = encoder_layout.sinc_config(rest, settings)
    else:
        encoder, assumed = encoder_layout.config_from_shapes(encoder_state, settings, names.encoder_prefix)
    config, published = _configure(names, rest, encoder, head_options or {}, class_weights)
    try:
        with torch.device("meta"):
            model = SpoofDetectorForAudioClassification(config)
    except (ValueError, RuntimeError) as error:
        raise ConversionError(f"the checkpoint's sizes do not fit a {head} detector: {error}") from error

    ignored = [key for key in encoder_state if encoder_layout.is_ignored(key)]
    values = {f"{names.encoder_prefix}{key}": value for key, value in encoder_state.items() if key not in ignored}
    values |= rest
    ours = {key: names.to_ours(key, config) for key in values}

    expected = model.state_dict()
    found = {name: values[key] for key, name in ours.items() if name in expected}
    counters = [name for name in expected if name not in found and name.endswith(_COUNTER)]
    found |= {name: torch.zeros_like(expected[name], device="cpu") for name in counters}
    _check(expected, found, [key for key, name in ours.items() if name not in expected], names, config)

    casted: dict[str, int] = {}
    for name, value in found.items():
        if value.is_floating_point() and value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            casted[kind] = casted.get(kind, 0) + 1
        # Copied, because mapped files may disappear and entries may share memory. In published averages, counters are
        # floats.
        found[name] = value.to(torch.long if name.endswith(_COUNTER) else torch.float32, copy=True)
    model.load_state_dict(found, assign=True)
    given = settings.given | dict(head_options or {})
    assumed |= {name: value for name, value in published.head_options.items() if name not in given}
    report = ConversionReport(
        head=head,
        published=published,
        converted=len(found) - len(counters) - len(identity),
        n_parameters=sum(value.numel() for name, value in found.items() if not name.endswith(_COUNTER)),
        ignored=[names.encoder_prefix + key for key in ignored],
        filled_in=[*counters, *(names.encoder_prefix + key for key in identity)],
        casted=casted,
        assumed=assumed,
        given=given,
        prefix=prefix,
        beside=beside,
    )
    return model.eval(), report


def conversion_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `convert_state_dict` for options, of which some may be options of the head."""
    own = set(inspect.signature(convert_state_dict).parameters) - {"state"}
    arguments = {name: value for name, value in options.items() if name in own}
    of_head = {name: value for name, value in options.items() if name not in own}
    if of_head:
        arguments["head_options"] = {**(arguments.get("head_options") or {}), **of_head}
    return arguments


def _configure(
    names: DetectorNames,
    rest: Mapping[str, Tensor],
    encoder: Mapping[str, Any],
    head_options: Mapping[str, Any],
    class_weights: Sequence[float] | None,
) -> tuple[SpoofDetectorConfig, Published]:
    """Return the configuration, from the shapes of entries outside the encoder, and the detector's published facts."""
    layout = HEAD_LAYOUTS[names.head]
    try:
        told = layout.options(rest)
        published = layout.published(rest, encoder, names.layer_merging)
    except (KeyError, IndexError) as error:
        raise ConversionError(f"the {names.head} head's sizes cannot be read: no {error.args[0]}") from error
    classifier = rest.get(f"{layout.classifier}.weight")
    is_single = layout.has_single_output and classifier is not None and len(classifier) == 1
    labels: dict[str, Any] = {"num_labels": 1} if is_single else {}
    config = SpoofDetectorConfig(
        encoder,
        layout.head,
        {**published.head_options, **told, **head_options},
        class_weights,
        n_samples=published.n_samples,
        do_normalize=published.normalization is not None,
        normalization_epsilon=PUBLISHED_EPSILON if published.normalization else 1e-7,
        layer_merging=names.layer_merging,
        **labels,
    )
    return config, published


@torch.inference_mode()
def largest_difference(
    model: SpoofDetectorForAudioClassification, report: ConversionReport, input_values: Tensor, logits: Tensor
) -> float:
    """Return the largest difference between a converted model's logits and those of the published code.

    Args:
        model: From `convert_state_dict`.
        report: From `convert_state_dict`.
        input_values: Input of the published network, shape (B, time); before normalization if the network normalizes.
        logits: Output of the published network, shape (B, C).

    Raises:
        ConversionError: If the logits have another shape than the model's.
    """
    waveforms = input_values.float()
    if report.published.normalization == "inside":
        extractor = model.make_feature_extractor()
        extractor.n_samples = None
        waveforms = extractor(waveforms.numpy(), return_tensors="pt")["input_values"]
    found = model(waveforms).logits
    if found.shape != logits.shape:
        raise ConversionError(
            f"the reference logits have shape {tuple(logits.shape)}, the model's {tuple(found.shape)}"
        )
    return float((found - logits.float()).abs().max())


def published_state_dict(model: SpoofDetectorForAudioClassification) -> dict[str, Tensor]:
    """Return a detector's weights under their published names: the reverse of `convert_state_dict`.

    Args:
        model: A detector with an encoder and a head that were published together.

    Returns:
        A state dict for the published code, with strict=False because entries of pre-training such as `mask_emb` are
        missing.

    Raises:
        ConversionError: If there is no published layout for the encoder, the head or its options.
    """
    config = cast(SpoofDetectorConfig, model.config)
    encoder = config.backbone_config.model_type
    if layout_name(config.head, encoder) is None:
        known = "; ".join(f"{known.head} with {' or '.join(known.encoders)}" for known in HEAD_LAYOUTS.values())
        raise ConversionError(f"there is no published layout for {encoder} with the head {config.head}; known: {known}")
    if config.loss != CROSS_ENTROPY:
        raise ConversionError(f"there is no published layout with the output layer of {config.loss}")
    if config.layer_merging is not None and encoder != "wavlm":
        raise ConversionError(f"there is no published layout that merges the layers of {encoder}, only those of wavlm")
    if config.head == "sls" and not config.head_options["log_probabilities"]:
        raise ConversionError(
            "the published SLS applies a SELU to the logits, but this head does not (log_probabilities is false), so "
            "scores would differ"
        )
    names, state = DetectorNames.published(config), {}
    for name, value in model.state_dict().items():
        key = names.to_theirs(name, config)
        if key is None:
            raise ConversionError(f"{name} has no published name")
        state[key] = value.detach().clone()
    return state


def _check(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    unknown: Sequence[str],
    names: DetectorNames,
    config: SpoofDetectorConfig,
) -> None:
    missing = [names.to_theirs(name, config) or name for name in expected if name not in found]
    misshapen = [
        f"{names.to_theirs(name, config)} is {tuple(found[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    spoiled = [
        names.to_theirs(name, config) or name for name, value in found.items() if not torch.isfinite(value).all()
    ]
    integers = [
        names.to_theirs(name, config) or name
        for name, value in found.items()
        if not value.is_floating_point() and not name.endswith(_COUNTER)
    ]
    wrong = []
    for what, keys in (
        ("unknown", unknown),
        ("missing", missing),
        ("with a wrong shape", misshapen),
        ("of integers, as in a quantized model; only floating-point weights can be converted", integers),
        ("with values that are NaN or infinite (the training failed, or the file is damaged)", spoiled),
    ):
        if keys:
            wrong.append(f"{len(keys)} {what}:\n    " + "\n    ".join(keys))
    if wrong:
        raise ConversionError("the checkpoint does not match the layout:\n  " + "\n  ".join(wrong))


def _format_names(names: list[str]) -> str:
    return f": {plain_text(', '.join(names))}" if names else ""
