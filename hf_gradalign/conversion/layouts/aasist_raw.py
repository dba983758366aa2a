"""AASIST on raw waveforms: AASIST, AASIST-L and the AASIST baseline of ASVspoof 5."""

from collections.abc import Mapping
from typing import Any

from hf_gradalign.conversion.encoder_layout import count
from hf_gradalign.conversion.layouts.aasist import ENCODER_NAMES, GRAPH_NAMES
from hf_gradalign.conversion.layouts.base import HeadLayout, Published, State
from hf_gradalign.conversion.reading import KeyNames
from hf_gradalign.models import ARCHITECTURES, RAW_WINDOW_SAMPLES, architecture_config
from hf_gradalign.models.heads import head_options


def _options(state: State) -> dict[str, Any]:
    blocks = range(count(state, "encoder."))
    return {
        "channels": [len(state[f"encoder.{index}.0.conv1.weight"]) for index in blocks],
        "graph_sizes": [len(state["GAT_layer_S.proj_with_att.weight"]), state["out_layer.weight"].shape[1] // 5],
    }


def _published(state: State, encoder: Mapping[str, Any], layer_merging: str | None) -> Published:
    """Return the published facts. AASIST-L, recognized by its sizes, has its own pool ratios; others get AASIST's."""
    told = _options(state)
    is_light = ARCHITECTURES["aasist_l"].items() >= told.items()
    options = head_options("aasist", architecture_config("aasist_l" if is_light else "aasist").head_options, "sinc")
    return Published(
        name="AASIST-L" if is_light else "AASIST on raw waveforms",
        head_options={name: options[name] for name in ("pool_ratios", "temperatures")},
        n_samples=RAW_WINDOW_SAMPLES,
    )


LAYOUT = HeadLayout(
    keys=KeyNames([("first_bn", "input_norm"), *ENCODER_NAMES, *GRAPH_NAMES]),
    head="aasist",
    signature="GAT_layer_S.att_weight",
    without=("LL.weight", "attention.0.weight", "first_bn1.weight"),
    options=_options,
    classifier="out_layer",
    published=_published,
    encoders=("sinc",),
)
