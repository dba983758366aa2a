"""AntiDeepfake: the mean frame of wav2vec 2.0 or HuBERT and a linear layer."""

from typing import Any

from hf_gradalign.conversion.layouts.base import HeadLayout, Published, State
from hf_gradalign.conversion.reading import ConversionError, KeyNames


def _options(state: State) -> dict[str, Any]:
    weight = state["proj_fc.weight"]
    if weight.shape[1] == 1 and "proj_fc.bias" not in state:
        raise ConversionError(
            "proj_fc is the one-class layer of AntiDeepfake's later training code, whose outputs are cosines. Only its "
            "linear layer can be converted"
        )
    return {"dropout": 0.0}


LAYOUT = HeadLayout(
    keys=KeyNames([("proj_fc", "classifier")]),
    head="linear",
    signature="proj_fc.weight",
    options=_options,
    classifier="proj_fc",
    published=lambda *_: Published(
        name="AntiDeepfake",
        source="nii-yamagishilab/AntiDeepfake",
        license="cc-by-nc-sa-4.0",
        n_samples=None,
        normalization="outside",
    ),
    encoders=("wav2vec2", "hubert"),
    encoder_prefix="m_ssl.model.",
)
