"""Mamba on a speech encoder: DPDA-GA-Mamba and XLSR-Mamba."""

from typing import Any

from hf_gradalign.conversion.encoder_layout import count
from hf_gradalign.conversion.layouts.base import HeadLayout, Published, State
from hf_gradalign.conversion.reading import KeyNames


def _options(state: State) -> dict[str, Any]:
    size = len(state["LL.weight"])
    mixer = "conformer.forward_layers.0.mixer"
    return {
        "size": size,
        "num_blocks": count(state, "conformer.forward_layers."),
        "state_size": state[f"{mixer}.A_log"].shape[1],
        "kernel_size": state[f"{mixer}.conv1d.weight"].shape[2],
        "expansion": len(state[f"{mixer}.A_log"]) // size,
    }


_NAMES = [
    ("LL", "projection.linear"),
    ("first_bn", "projection.norm"),
    ("conformer.forward_layers.{n}", "forward_column.{n}"),
    ("conformer.backward_layers.{n}", "backward_column.{n}"),
    ("conformer.norm_f", "norm"),
    ("conformer.f_attention_pool", "forward_pool"),
    ("conformer.b_attention_pool", "backward_pool"),
    ("conformer.LL", "merge"),
    ("conformer.classifier", "classifier"),
]

LAYOUT = HeadLayout(
    keys=KeyNames(_NAMES),
    head="mamba",
    signature="conformer.norm_f.weight",
    options=_options,
    classifier="conformer.classifier",
    published=lambda *_: Published(name="Mamba with wav2vec 2.0"),
)
