"""Conformer-TCM on a speech encoder: DPDA-GA-TCM and TCM."""

from typing import Any

from hf_gradalign.conversion.encoder_layout import count
from hf_gradalign.conversion.layouts.base import HeadLayout, Published, State
from hf_gradalign.conversion.reading import KeyNames


def _options(state: State) -> dict[str, Any]:
    size = len(state["LL.weight"])
    block = "conformer.encoder_blocks.0"
    return {
        "size": size,
        "num_blocks": count(state, "conformer.encoder_blocks."),
        "num_heads": state[f"{block}.attn.fn.pos_embed"].shape[1],
        "kernel_size": state[f"{block}.conv.net.4.conv.weight"].shape[2],
        "feed_forward_factor": len(state[f"{block}.ff1.fn.fn.net.0.weight"]) // size,
        "conv_factor": len(state[f"{block}.conv.net.4.conv.weight"]) // size,
        "num_positions": state["conformer.positional_emb"].shape[1],
    }


_BLOCK, _OUR_BLOCK = "conformer.encoder_blocks.{n}", "blocks.{n}"
_NAMES = [
    ("LL", "projection.linear"),
    ("first_bn", "projection.norm"),
    ("conformer.positional_emb", "positions"),
    ("conformer.class_token", "class_token"),
    (f"{_BLOCK}.ff1.fn.norm", f"{_OUR_BLOCK}.feed_forward1.norm"),
    (f"{_BLOCK}.ff1.fn.fn.net.0", f"{_OUR_BLOCK}.feed_forward1.expand"),
    (f"{_BLOCK}.ff1.fn.fn.net.3", f"{_OUR_BLOCK}.feed_forward1.contract"),
    (f"{_BLOCK}.attn.norm", f"{_OUR_BLOCK}.attention_norm"),
    (f"{_BLOCK}.attn.fn.pos_embed", f"{_OUR_BLOCK}.attention.head_position"),
    (f"{_BLOCK}.attn.fn.qkv", f"{_OUR_BLOCK}.attention.query_key_value"),
    (f"{_BLOCK}.attn.fn.proj", f"{_OUR_BLOCK}.attention.output"),
    (f"{_BLOCK}.attn.fn.ht_proj", f"{_OUR_BLOCK}.attention.head_projection"),
    (f"{_BLOCK}.attn.fn.ht_norm", f"{_OUR_BLOCK}.attention.head_norm"),
    (f"{_BLOCK}.conv.net.0", f"{_OUR_BLOCK}.convolution.norm"),
    (f"{_BLOCK}.conv.net.2", f"{_OUR_BLOCK}.convolution.expand"),
    (f"{_BLOCK}.conv.net.4.conv", f"{_OUR_BLOCK}.convolution.depthwise"),
    (f"{_BLOCK}.conv.net.5", f"{_OUR_BLOCK}.convolution.inner_norm"),
    (f"{_BLOCK}.conv.net.7", f"{_OUR_BLOCK}.convolution.contract"),
    (f"{_BLOCK}.ff2.fn.norm", f"{_OUR_BLOCK}.feed_forward2.norm"),
    (f"{_BLOCK}.ff2.fn.fn.net.0", f"{_OUR_BLOCK}.feed_forward2.expand"),
    (f"{_BLOCK}.ff2.fn.fn.net.3", f"{_OUR_BLOCK}.feed_forward2.contract"),
    (f"{_BLOCK}.post_norm", f"{_OUR_BLOCK}.norm"),
    ("conformer.fc5", "classifier"),
]

LAYOUT = HeadLayout(
    keys=KeyNames(_NAMES),
    head="conformer_tcm",
    signature="conformer.class_token",
    options=_options,
    classifier="conformer.fc5",
    published=lambda *_: Published(name="Conformer-TCM with wav2vec 2.0"),
)
