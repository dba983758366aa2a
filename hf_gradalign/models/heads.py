"""The heads of detectors by name, for encoders and for filters of the raw waveform."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from .configuration_spoof_detector import SincConfig
from .head_aasist import AASISTHead
from .head_aasist_raw import RawAASISTHead
from .head_conformer_tcm import ConformerTCMHead
from .head_linear import LinearHead
from .head_mamba import MambaHead
from .head_mhfa import MHFAHead
from .head_nes2net import Nes2NetHead
from .head_sls import SLSHead

HEADS: dict[str, type[nn.Module]] = {
    "aasist": AASISTHead,
    "conformer_tcm": ConformerTCMHead,
    "linear": LinearHead,
    "mamba": MambaHead,
    "mhfa": MHFAHead,
    "nes2net": Nes2NetHead,
    "sls": SLSHead,
}


RAW_HEADS: dict[str, type[nn.Module]] = {"aasist": RawAASISTHead}
"""The heads for the front end sinc."""


def heads_for(front_end: str) -> dict[str, type[nn.Module]]:
    """Return the heads for a front end, given by the `model_type` of its configuration."""
    return RAW_HEADS if front_end == SincConfig.model_type else HEADS


def head_options(head: str, given: Mapping[str, Any] | None = None, front_end: str = "wav2vec2") -> dict[str, Any]:
    """Return all options of a head, with defaults for those that are not given.

    Args:
        head: Name of the head.
        given: Options by name.
        front_end: `model_type` of the front end's configuration.

    Raises:
        ValueError: If there is no such head or option; the message lists all of them.
    """
    heads = heads_for(front_end)
    if head not in heads:
        where = " for the front end sinc" if heads is RAW_HEADS else ""
        raise ValueError(f"there is no head {head!r}{where}; available: {', '.join(heads)}")
    parameters = inspect.signature(heads[head]).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    unknown = sorted(set(given or {}) - set(options))
    if unknown:
        raise ValueError(f"the head {head} has no option {', '.join(unknown)}; it has {', '.join(options)}")
    merged = {**options, **(given or {})}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in merged.items()}
