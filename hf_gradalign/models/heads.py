"""The heads of detectors by name."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from .head_aasist import AASISTHead
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


def head_options(head: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all options of a head, with defaults for those that are not given.

    Raises:
        ValueError: If there is no such head or option; the message lists all of them.
    """
    if head not in HEADS:
        raise ValueError(f"there is no head {head!r}; available: {', '.join(HEADS)}")
    parameters = inspect.signature(HEADS[head]).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    unknown = sorted(set(given or {}) - set(options))
    if unknown:
        raise ValueError(f"the head {head} has no option {', '.join(unknown)}; it has {', '.join(options)}")
    merged = {**options, **(given or {})}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in merged.items()}
