"""SLS: sensitive layer selection on XLS-R."""

from collections.abc import Mapping
from typing import Any

from hf_gradalign.conversion.layouts.base import HeadLayout, Published, State
from hf_gradalign.conversion.reading import ConversionError, KeyNames
from hf_gradalign.models import RAW_WINDOW_SAMPLES

_NAMES = [("fc0", "gate"), ("first_bn", "norm"), ("fc1", "hidden"), ("fc3", "classifier")]


def _options(state: State) -> dict[str, Any]:
    size, inputs = state["fc0.weight"].shape[1], state["fc1.weight"].shape[1]
    if inputs % (size // 3):
        raise ConversionError(f"fc1 has {inputs} inputs, which is not a multiple of {size // 3}, a third of the width")
    # One or two more frames give the same scores, because pooling by three drops them.
    return {
        "n_frames": 3 * (inputs // (size // 3)),
        "hidden_size": len(state["fc1.weight"]),
        "log_probabilities": True,
    }


def _published(state: State, encoder: Mapping[str, Any], layer_merging: str | None) -> Published:
    n_frames = _options(state)["n_frames"]
    n_samples, shortest = RAW_WINDOW_SAMPLES, n_frames
    convolutions = list(zip(encoder["conv_kernel"], encoder["conv_stride"], strict=True))
    for kernel, stride in convolutions:
        n_samples = (n_samples - kernel) // stride + 1
    for kernel, stride in reversed(convolutions):
        shortest = (shortest - 1) * stride + kernel
    return Published(
        name="SLS",
        source="QiShanZhang/SLSforASVspoof-2021-DF",
        n_samples=RAW_WINDOW_SAMPLES if n_samples // 3 == n_frames // 3 else shortest,
    )


LAYOUT = HeadLayout(
    keys=KeyNames(_NAMES), head="sls", signature="fc0.weight", options=_options, classifier="fc3", published=_published
)
