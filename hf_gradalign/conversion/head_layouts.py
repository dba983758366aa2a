"""Names of weights in the published heads and in ours, and head options from their shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_gradalign.conversion.reading import ConversionError, KeyNames
from hf_gradalign.conversion.wav2vec2_layout import count
from hf_gradalign.utils.plain_text import plain_text

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class HeadLayout:
    """Layout of a published head.

    Attributes:
        keys: Names in both layouts: theirs without prefix, ours within the head.
        signature: A key that no other head has.
        options: Reads the head's options from the shapes.
        classifier: Their name of the layer that computes the logits.
    """

    keys: KeyNames
    signature: str
    options: Callable[[State], dict[str, Any]]
    classifier: str


def detect_head(state: State, head: str = "auto", prefix: str | None = None) -> tuple[str, str]:
    """Detect the head in a state dict, and the prefix that a training framework added to the keys.

    Lightning modules have the detector as an attribute (`model.`), and so do many wrappers, which may be nested.

    Args:
        state: A state dict.
        head: The head to look for; "auto" for any.
        prefix: The prefix, if there are several detectors.

    Returns:
        Name of the head, and the prefix, which is often empty.

    Raises:
        ConversionError: If there is no known head, or more than one.
    """
    layouts = HEAD_LAYOUTS if head == "auto" else {head: HEAD_LAYOUTS[head]}
    matches = [
        (name, key.removesuffix(layout.signature))
        for name, layout in layouts.items()
        for key in state
        if (prefix is None and key.endswith(f".{layout.signature}")) or key == f"{prefix or ''}{layout.signature}"
    ]
    if len(matches) == 1:
        return matches[0]
    if not matches and head != "auto":
        return head, prefix or ""  # missing keys are listed later
    if matches:
        prefixes = ", ".join(f"{plain_text(prefix) or '(none)'} ({name})" for name, prefix in matches)
        raise ConversionError(
            f"the checkpoint has several detectors, whose keys start with {prefixes}: choose one with --prefix, e.g. "
            f"--prefix {plain_text(matches[-1][1])}"
        )
    signatures = ", ".join(f"{layout.signature} ({name})" for name, layout in HEAD_LAYOUTS.items())
    keys = ", ".join(plain_text(key) for key in list(state)[:3])
    raise ConversionError(
        f"the checkpoint has no known head; looked for {signatures}, with and without a prefix. Its first keys are "
        f"{keys}"
    )


def _aasist_options(state: State) -> dict[str, Any]:
    blocks = range(count(state, "encoder."))
    return {
        "projection_size": len(state["LL.weight"]),
        "channels": [len(state[f"encoder.{index}.0.conv1.weight"]) for index in blocks],
        "attention_size": len(state["attention.0.weight"]),
        "graph_sizes": [len(state["GAT_layer_S.proj_with_att.weight"]), state["out_layer.weight"].shape[1] // 5],
    }


def _conformer_tcm_options(state: State) -> dict[str, Any]:
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


def _mamba_options(state: State) -> dict[str, Any]:
    size = len(state["LL.weight"])
    mixer = "conformer.forward_layers.0.mixer"
    return {
        "size": size,
        "num_blocks": count(state, "conformer.forward_layers."),
        "state_size": state[f"{mixer}.A_log"].shape[1],
        "kernel_size": state[f"{mixer}.conv1d.weight"].shape[2],
        "expansion": len(state[f"{mixer}.A_log"]) // size,
    }


def _graph(theirs: str, ours: str) -> list[tuple[str, str]]:
    names = {
        "att_proj": "pair",
        "att_weight": "pair_score",
        "proj_with_att": "attended",
        "proj_without_att": "itself",
        "bn": "norm",
    }
    return [(f"{theirs}.{name}", f"{ours}.{our_name}") for name, our_name in names.items()]


def _heterogeneous(theirs: str, ours: str) -> list[tuple[str, str]]:
    names = {
        "proj_type1": "temporal",
        "proj_type2": "spectral",
        "att_proj": "pair",
        "att_weight11": "temporal_score",
        "att_weight22": "spectral_score",
        "att_weight12": "cross_score",
        "att_projM": "master_pair",
        "att_weightM": "master_score",
        "proj_with_att": "attended",
        "proj_without_att": "itself",
        "proj_with_attM": "master_attended",
        "proj_without_attM": "master_itself",
        "bn": "norm",
    }
    return [(f"{theirs}.{name}", f"{ours}.{our_name}") for name, our_name in names.items()]


_AASIST = [
    ("LL", "projection"),
    ("first_bn", "projection_norm"),
    ("encoder.{n}.0.bn1", "encoder.{n}.norm1"),
    ("encoder.{n}.0.conv1", "encoder.{n}.conv1"),
    ("encoder.{n}.0.bn2", "encoder.{n}.norm2"),
    ("encoder.{n}.0.conv2", "encoder.{n}.conv2"),
    ("encoder.{n}.0.conv_downsample", "encoder.{n}.shortcut"),
    ("first_bn1", "encoder_norm"),
    ("attention.0", "attention.conv1"),
    ("attention.2", "attention.norm"),
    ("attention.3", "attention.conv2"),
    ("pos_S", "spectral_position"),
    *_graph("GAT_layer_S", "spectral_graph"),
    *_graph("GAT_layer_T", "temporal_graph"),
    ("pool_S.proj", "spectral_pool.score"),
    ("pool_T.proj", "temporal_pool.score"),
    ("master1", "branches.0.master"),
    ("master2", "branches.1.master"),
    *_heterogeneous("HtrgGAT_layer_ST11", "branches.0.layer1"),
    *_heterogeneous("HtrgGAT_layer_ST12", "branches.0.layer2"),
    *_heterogeneous("HtrgGAT_layer_ST21", "branches.1.layer1"),
    *_heterogeneous("HtrgGAT_layer_ST22", "branches.1.layer2"),
    ("pool_hS1.proj", "branches.0.spectral_pool.score"),
    ("pool_hT1.proj", "branches.0.temporal_pool.score"),
    ("pool_hS2.proj", "branches.1.spectral_pool.score"),
    ("pool_hT2.proj", "branches.1.temporal_pool.score"),
    ("out_layer", "classifier"),
]

_BLOCK, _OUR_BLOCK = "conformer.encoder_blocks.{n}", "blocks.{n}"
_CONFORMER_TCM = [
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

_MAMBA = [
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

HEAD_LAYOUTS = {
    "aasist": HeadLayout(KeyNames(_AASIST), "GAT_layer_S.att_weight", _aasist_options, "out_layer"),
    "conformer_tcm": HeadLayout(
        KeyNames(_CONFORMER_TCM), "conformer.class_token", _conformer_tcm_options, "conformer.fc5"
    ),
    "mamba": HeadLayout(KeyNames(_MAMBA), "conformer.norm_f.weight", _mamba_options, "conformer.classifier"),
}
