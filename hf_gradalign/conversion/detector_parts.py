"""Divides a published detector's entries into encoder, layer merging and head, and translates their names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from hf_gradalign.conversion import encoder_layout
from hf_gradalign.conversion.layouts import HEAD_LAYOUTS, layout_name
from hf_gradalign.conversion.reading import ConversionError, KeyNames
from hf_gradalign.models import SincConfig, SpoofDetectorConfig
from hf_gradalign.utils.plain_text import plain_text

# Published keys where the layers of an encoder are merged (Nes2Net for CtrSVDD).
_MERGING_PREFIX = "ssl_model."
_MERGED_ENCODER_PREFIX = "ssl_model.model.model."
_LAYER_MERGING_KEYS = {
    "sea": KeyNames([("fc_att_merge.0", "squeeze"), ("fc_att_merge.2", "excite")]),
    "weighted_sum": KeyNames([("weight_hidd", "weight")]),
    "attm": KeyNames([("W", "score"), ("W1", "squeeze"), ("W2", "excite"), ("linear_proj", "projection")]),
}
_MERGING_SIGNATURES = {"sea": "fc_att_merge.0.weight", "weighted_sum": "weight_hidd", "attm": "linear_proj.weight"}


@dataclass(frozen=True)
class DetectorNames:
    """Names of a detector's weights in the published layout and in ours.

    Args:
        head: Name of the head's layout.
        encoder_prefix: Prefix of the encoder's published keys.
        layer_merging: Name of the layer merging, if any.
        merging_prefix: Prefix of the published keys of the layer merging.
    """

    head: str
    encoder_prefix: str
    layer_merging: str | None = None
    merging_prefix: str = _MERGING_PREFIX

    @classmethod
    def published(cls, config: SpoofDetectorConfig) -> "DetectorNames":
        """Return the names with which the published code saves such a detector."""
        name = layout_name(config.head, config.backbone_config.model_type) or config.head
        prefix = HEAD_LAYOUTS[name].encoder_prefix if config.layer_merging is None else _MERGED_ENCODER_PREFIX
        return cls(name, prefix, config.layer_merging)

    def part_of(self, key: str) -> str:
        """Return the part that a published key belongs to: backbone, layer_merging or head."""
        if HEAD_LAYOUTS[self.head].keys.to_ours(key) is not None:
            return "head"
        if self.layer_merging is not None and key.startswith(self.merging_prefix):
            merging_keys = _LAYER_MERGING_KEYS[self.layer_merging]
            if merging_keys.to_ours(key.removeprefix(self.merging_prefix)) is not None:
                return "layer_merging"
        return "backbone" if key.startswith(self.encoder_prefix) else "head"

    def to_ours(self, key: str, config: SpoofDetectorConfig) -> str | None:
        """Return our name of a published key; None if it has none."""
        part = self.part_of(key)
        keys, prefix = self._part(part, config)
        name = keys.to_ours(key.removeprefix(prefix))
        return None if name is None else f"{part}.{name}"

    def to_theirs(self, name: str, config: SpoofDetectorConfig) -> str | None:
        """Return the published key of our name; None if it has none."""
        part, _, rest = name.partition(".")
        keys, prefix = self._part(part, config)
        key = keys.to_theirs(rest)
        return None if key is None else prefix + key

    def _part(self, part: str, config: SpoofDetectorConfig) -> tuple[KeyNames, str]:
        if part == "head":
            return HEAD_LAYOUTS[self.head].keys, ""
        if part == "layer_merging":
            return _LAYER_MERGING_KEYS[self.layer_merging or ""], self.merging_prefix
        encoder = config.backbone_config
        if encoder.model_type == SincConfig.model_type:
            return KeyNames([]), self.encoder_prefix
        return encoder_layout.key_names(encoder.model_type, encoder.feat_extract_norm), self.encoder_prefix


def detect_names(state: Mapping[str, Tensor], head: str) -> DetectorNames:
    """Find the encoder and the layer merging in a detector's entries.

    Raises:
        ConversionError: If there are several encoders.
    """
    usual = HEAD_LAYOUTS[head].encoder_prefix
    signature = encoder_layout.SIGNATURE
    prefixes = [key.removesuffix(signature) for key in state if key == signature or key.endswith(f".{signature}")] or [
        usual
    ]
    if len(prefixes) > 1 and usual not in prefixes:
        listing = ", ".join(plain_text(prefix) or "(none)" for prefix in prefixes)
        raise ConversionError(
            f"the checkpoint has several encoders, whose keys start with {listing}, but must have one"
        )
    encoder_prefix = usual if usual in prefixes else prefixes[0]
    outside = (key for key in state if not encoder_prefix or not key.startswith(encoder_prefix))
    layer_merging, merging_prefix = _detect_layer_merging(outside)
    return DetectorNames(head, encoder_prefix, layer_merging, merging_prefix)


def _detect_layer_merging(keys: Iterable[str]) -> tuple[str | None, str]:
    """Return the layer merging of a detector and the prefix of its keys; None and "" if it merges no layers."""
    for key in keys:
        for name, signature in _MERGING_SIGNATURES.items():
            if key == signature or key.endswith(f".{signature}"):
                return name, key.removesuffix(signature)
    return None, ""
