"""The heads of detectors by name, for encoders and for filters of the raw waveform."""

import inspect
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, get_args, get_origin

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
        ValueError: If there is no such head or option (the message lists all of them), or a value has another type than
            the option or is out of range.
    """
    heads = heads_for(front_end)
    if head not in heads:
        where = " for the front end sinc" if heads is RAW_HEADS else ""
        raise ValueError(f"there is no head {head!r}{where}; available: {', '.join(heads)}")
    parameters = inspect.signature(heads[head]).parameters.values()
    known = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    options = {name: parameter.default for name, parameter in known.items()}
    unknown = sorted(set(given or {}) - set(options))
    if unknown:
        raise ValueError(f"the head {head} has no option {', '.join(unknown)}; it has {', '.join(options)}")
    for name, value in (given or {}).items():
        kinds = _kinds(known[name].annotation)
        if not any(_fits(value, kind) for kind in kinds):
            allowed = " or ".join(_ALLOWED[kind] for kind in kinds)
            raise ValueError(f"{name} of the head {head} must be {allowed}, got {value!r}")
    merged = {**options, **(given or {})}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in merged.items()}


# The types of options. Whole numbers are sizes and counts.
_ALLOWED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number of at least 1",
    float: "a number of at least 0",
    str: "a string",
    type(None): "null",
    Sequence[int]: "a list of whole numbers of at least 1",
    Sequence[float]: "a list of numbers of at least 0",
}


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return (annotation,) if annotation in _ALLOWED else get_args(annotation)


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Sequence:
        return isinstance(value, (list, tuple)) and len(value) > 0 and all(_fits(v, *get_args(kind)) for v in value)
    if kind in (int, float):
        number = Integral if kind is int else Real
        is_number = isinstance(value, number) and not isinstance(value, bool)
        return is_number and (1 if kind is int else 0) <= value < math.inf
    return isinstance(value, kind)
