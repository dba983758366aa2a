"""Nes2Net and Nes2Net-X on XLS-R or WavLM."""

from collections.abc import Mapping
from typing import Any

from hf_gradalign.conversion.encoder_layout import count
from hf_gradalign.conversion.layouts.base import HeadLayout, Published, State
from hf_gradalign.conversion.reading import KeyNames
from hf_gradalign.models import RAW_WINDOW_SAMPLES

_NET = "Nested_Res2Net_TDNN"
_BLOCK, _OUR_BLOCK = f"{_NET}.Build_in_Res2Nets.{{n}}", "blocks.{n}"
_FIRST = _BLOCK.format(n=0)
_NAMES = [
    (f"{_BLOCK}.conv1", f"{_OUR_BLOCK}.conv1"),
    (f"{_BLOCK}.bn1", f"{_OUR_BLOCK}.norm1"),
    (f"{_BLOCK}.convs.{{n}}", f"{_OUR_BLOCK}.convs.{{n}}"),
    (f"{_BLOCK}.bns.{{n}}", f"{_OUR_BLOCK}.norms.{{n}}"),
    (f"{_BLOCK}.weighted_sum.{{n}}", f"{_OUR_BLOCK}.sums.{{n}}.weight"),
    (f"{_BLOCK}.conv3", f"{_OUR_BLOCK}.conv2"),
    (f"{_BLOCK}.bn3", f"{_OUR_BLOCK}.norm2"),
    (f"{_BLOCK}.se.se.1", f"{_OUR_BLOCK}.squeeze"),
    (f"{_BLOCK}.se.se.3", f"{_OUR_BLOCK}.excite"),
    (f"{_NET}.bns.{{n}}", "norms.{n}"),
    (f"{_NET}.bn", "norm"),
    (f"{_NET}.pooling.linear1", "pooling.hidden"),
    (f"{_NET}.pooling.linear2", "pooling.score"),
    (f"{_NET}.fc", "classifier"),
]


def _options(state: State) -> dict[str, Any]:
    options = {
        "variant": "nes2net_x" if f"{_FIRST}.weighted_sum.0" in state else "nes2net",
        "num_groups": count(state, f"{_NET}.Build_in_Res2Nets.") + 1,
        "num_scales": count(state, f"{_FIRST}.convs.") + 1,
        "squeeze_size": len(state[f"{_FIRST}.se.se.1.weight"]),
        "pooling": "mean",
    }
    hidden = state.get(f"{_NET}.pooling.linear1.weight")
    if hidden is not None:
        options |= {"pooling": "attentive", "attention_size": len(hidden)}
    return options


def _published(state: State, encoder: Mapping[str, Any], layer_merging: str | None) -> Published:
    if layer_merging is not None:
        return Published(
            name="Nes2Net with WavLM for CtrSVDD",
            source="Liu-Tianchi/Nes2Net",
            head_options={"dilation": 1, "activation": "relu"},
            n_samples=None,
            normalization="inside",
        )
    if encoder["model_type"] == "wavlm":
        return Published(
            name="Nes2Net-X with WavLM for ASVspoof 5",
            source="Liu-Tianchi/Nes2Net_ASVspoof_ITW",
            head_options={"dilation": 1, "activation": "relu"},
            n_samples=RAW_WINDOW_SAMPLES,
        )
    return Published(
        name="Nes2Net-X with XLS-R",
        source="Liu-Tianchi/Nes2Net_ASVspoof_ITW",
        head_options={"dilation": 2, "activation": "relu"},
        n_samples=RAW_WINDOW_SAMPLES,
    )


LAYOUT = HeadLayout(
    keys=KeyNames(_NAMES),
    head="nes2net",
    signature=f"{_NET}.fc.weight",
    options=_options,
    classifier=f"{_NET}.fc",
    published=_published,
    encoders=("wav2vec2", "wavlm"),
    has_single_output=True,
)
