"""AASIST on a speech encoder: DPDA-GA-AASIST and SSL_Anti-spoofing."""

from typing import Any

from hf_gradalign.conversion.encoder_layout import count
from hf_gradalign.conversion.layouts.base import HeadLayout, Published, State
from hf_gradalign.conversion.reading import KeyNames


def _options(state: State) -> dict[str, Any]:
    blocks = range(count(state, "encoder."))
    return {
        "projection_size": len(state["LL.weight"]),
        "channels": [len(state[f"encoder.{index}.0.conv1.weight"]) for index in blocks],
        "attention_size": len(state["attention.0.weight"]),
        "graph_sizes": [len(state["GAT_layer_S.proj_with_att.weight"]), state["out_layer.weight"].shape[1] // 5],
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


ENCODER_NAMES = [
    ("encoder.{n}.0.bn1", "encoder.{n}.norm1"),
    ("encoder.{n}.0.conv1", "encoder.{n}.conv1"),
    ("encoder.{n}.0.bn2", "encoder.{n}.norm2"),
    ("encoder.{n}.0.conv2", "encoder.{n}.conv2"),
    ("encoder.{n}.0.conv_downsample", "encoder.{n}.shortcut"),
]
GRAPH_NAMES = [
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
_NAMES = [
    ("LL", "projection"),
    ("first_bn", "projection_norm"),
    *ENCODER_NAMES,
    ("first_bn1", "encoder_norm"),
    ("attention.0", "attention.conv1"),
    ("attention.2", "attention.norm"),
    ("attention.3", "attention.conv2"),
    *GRAPH_NAMES,
]

LAYOUT = HeadLayout(
    keys=KeyNames(_NAMES),
    head="aasist",
    signature="attention.0.weight",
    options=_options,
    classifier="out_layer",
    published=lambda *_: Published(name="AASIST with wav2vec 2.0", head_options={"pool_ratios": [0.5, 0.5, 0.5]}),
)
