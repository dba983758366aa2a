"""Alignment methods by name."""

import inspect
from typing import Any

from hf_gradalign.alignment.methods.base import AlignmentMethod
from hf_gradalign.alignment.methods.cagrad import CAGrad
from hf_gradalign.alignment.methods.gradvac import GradVac
from hf_gradalign.alignment.methods.no_alignment import NoAlignment
from hf_gradalign.alignment.methods.pcgrad import PCGrad

_METHODS: dict[str, type[AlignmentMethod]] = {
    "none": NoAlignment,
    "pcgrad": PCGrad,
    "gradvac": GradVac,
    "cagrad": CAGrad,
}


def available_methods() -> list[str]:
    """Names that `get_method` takes."""
    return list(_METHODS)


def get_method(name: str, **options: Any) -> AlignmentMethod:
    """Make an alignment method.

    Args:
        name: One of `available_methods()`, in any case.
        options: What the method's class takes; see `PCGrad`, `GradVac` and `CAGrad`.

    Returns:
        A callable from a (K, K) Gramian to (K,) weights, with `state_dict` and `load_state_dict`.

    Raises:
        ValueError: If there is no such method, or it does not take one of the options, or an option's value is wrong.
    """
    try:
        method = _METHODS[name.lower()]
    except KeyError:
        raise ValueError(
            f"there is no alignment method {name!r}; available: {', '.join(available_methods())}"
        ) from None
    # A class without a constructor of its own shows object's, which takes anything.
    known = [] if method.__init__ is object.__init__ else list(inspect.signature(method).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise ValueError(f"alignment method {name!r} has no option {', '.join(unknown)}; {takes}")
    return method(**options)
