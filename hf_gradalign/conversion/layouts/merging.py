"""Names of the weights that merge an encoder's layers in the published code of Nes2Net for CtrSVDD, and in ours."""

from collections.abc import Iterable

from hf_gradalign.conversion.reading import KeyNames

PREFIX = "ssl_model."
ENCODER_PREFIX = "ssl_model.model.model."
"""The published prefix of the encoder's keys in detectors that merge its layers."""

LAYER_MERGING_KEYS = {
    "sea": KeyNames([("fc_att_merge.0", "squeeze"), ("fc_att_merge.2", "excite")]),
    "weighted_sum": KeyNames([("weight_hidd", "weight")]),
    "attm": KeyNames([("W", "score"), ("W1", "squeeze"), ("W2", "excite"), ("linear_proj", "projection")]),
}
_SIGNATURES = {"sea": "fc_att_merge.0.weight", "weighted_sum": "weight_hidd", "attm": "linear_proj.weight"}


def detect_layer_merging(keys: Iterable[str]) -> tuple[str | None, str]:
    """Return the layer merging of a detector and the prefix of its keys; None and "" if it merges no layers."""
    for key in keys:
        for name, signature in _SIGNATURES.items():
            if key == signature or key.endswith(f".{signature}"):
                return name, key.removesuffix(signature)
    return None, ""
