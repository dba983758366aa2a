"""The filters in front of AASIST on raw waveforms, of which checkpoints hold nothing."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hf_gradalign.conversion.encoder_layout import EncoderSettings
from hf_gradalign.conversion.reading import ConversionError
from hf_gradalign.models import SincConfig


def config_from_shapes(state: Mapping[str, Tensor], settings: EncoderSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of `SincConfig`.

    Args:
        state: The detector's entries.
        settings: What the shapes do not determine. The published values are the default.

    Returns:
        The fields, with `model_type`, and the settings that are assumed.

    Raises:
        ConversionError: If the settings are those of an encoder, or do not fit the number of spectral nodes, each of
            which stands for three filters.
    """
    published = SincConfig()
    usual = {"num_sinc_filters": published.num_filters, "sinc_kernel_size": published.kernel_size}
    given = settings.given
    of_encoders = sorted(given.keys() - usual.keys())
    if of_encoders:
        raise ConversionError(f"--{of_encoders[0]} is for encoders, and AASIST on raw waveforms has none: remove it")
    if "pos_S" not in state:
        raise ConversionError("the aasist_raw head's sizes cannot be read: no pos_S")
    nodes = state["pos_S"].shape[1]
    fields = usual | given
    if fields["num_sinc_filters"] // 3 != nodes:
        what = "--num_sinc_filters" if "num_sinc_filters" in given else "the published number of filters,"
        raise ConversionError(
            f"{what} {fields['num_sinc_filters']} does not fit the {nodes} spectral nodes of pos_S: set "
            f"--num_sinc_filters to the number in the model's configuration, which is {3 * nodes} to {3 * nodes + 2}"
        )
    config = {
        "model_type": SincConfig.model_type,
        "num_filters": fields["num_sinc_filters"],
        "kernel_size": fields["sinc_kernel_size"],
    }
    return config, {name: value for name, value in usual.items() if name not in given}
