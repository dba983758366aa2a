"""Create alignment methods by name."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_gradalign.alignment.methods.base import METHODS, AlignmentMethod, plain_name
from hf_gradalign.alignment.methods.crmogm import CRMOGM
from hf_gradalign.alignment.methods.option_types import check_types
from hf_gradalign.alignment.methods.torchjd import TORCHJD_SPECS, TorchJDWeighting, usable_torchjd_names

_WRAPPER = "crmogm"
_WRAPPER_OPTIONS = list(inspect.signature(CRMOGM).parameters)[1:]
_WRAPPED = re.compile(r"([^()]*)\((.*)\)\s*")


def available_methods() -> list[str]:
    """Return the names known to `get_method`: the package's own methods and, if it is installed, TorchJD's.

    Each is also available with smoothed weights, as `crmogm(NAME)`.
    """
    return [*METHODS, *usable_torchjd_names()]


def canonical_name(name: str) -> str:
    """Return the canonical spelling of a name: "Aligned-MTL" is "aligned_mtl", "CR-MOGM(PCGrad)" is "crmogm(pcgrad)".

    Args:
        name: A name in any case, with or without hyphens, underscores and spaces. Methods of TorchJD are known even if
            it is not installed.

    Raises:
        ValueError: If there is no such method.
    """
    if not isinstance(name, str):
        raise _unknown_method_error(name)
    inner = name
    if wrapped := _WRAPPED.fullmatch(name):
        outer, inner = wrapped.groups()
        if plain_name(outer) != _WRAPPER:
            raise _unknown_method_error(name)
    for known in (*METHODS, *TORCHJD_SPECS):
        if plain_name(known) == plain_name(inner):
            if known in METHODS and plain_name(known) in map(plain_name, TORCHJD_SPECS):
                raise ValueError(
                    f"{METHODS[known].__module__}.{METHODS[known].__qualname__} has the same name as TorchJD's method "
                    f"{known}; choose another one"
                )
            return f"{_WRAPPER}({known})" if wrapped else known
    raise _unknown_method_error(name)


def get_method(name: str, **options: Any) -> AlignmentMethod:
    """Create an alignment method.

    Args:
        name: One of `available_methods()`, or `crmogm(NAME)` around one, in any spelling that `canonical_name` accepts.
        options: Options of the method's class; see `PCGrad`, `GradVac`, `CAGrad`, `TorchJDWeighting` and `CRMOGM`. With
            `crmogm(NAME)`, options of CRMOGM and of the inner method. If both have an option of the same name (such as
            the `alpha` of fairgrad), add the method's name as a prefix: `{"crmogm.alpha": 0.9, "fairgrad.alpha": 2}`.

    Returns:
        A callable from a (K, K) Gramian to (K,) weights, with `state_dict` and `load_state_dict`.

    Raises:
        ValueError: If there is no such method, a package that it needs is missing, an option is unknown, or an option's
            value is invalid.
    """
    name = canonical_name(name)
    wrapped = _WRAPPED.fullmatch(name)
    if wrapped is None:
        return _create_method(name, _assign_options(name, {name: _known_options(name)}, options)[name])
    inner = wrapped.group(2)
    shares = _assign_options(name, {_WRAPPER: _WRAPPER_OPTIONS, inner: _known_options(inner)}, options)
    return CRMOGM(_create_method(inner, shares[inner]), **shares[_WRAPPER])


def _create_method(name: str, options: dict[str, Any]) -> AlignmentMethod:
    if name not in METHODS:
        return TorchJDWeighting(name, **options)
    check_types(name, options, METHODS[name].__init__)
    return METHODS[name](**options)


def _known_options(name: str) -> list[str]:
    if name not in METHODS:
        return TorchJDWeighting.known_options(name)
    method = METHODS[name]
    # A class without a constructor has the signature of `object`, which accepts anything.
    return [] if method.__init__ is object.__init__ else list(inspect.signature(method).parameters)


def _assign_options(name: str, known: dict[str, list[str]], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Distribute the options among the methods in `known`."""
    shares: dict[str, dict[str, Any]] = {owner: {} for owner in known}
    unknown = []
    for option, value in options.items():
        prefix, _, rest = option.rpartition(".")
        owners = [owner for owner in known if rest in known[owner] and prefix in ("", owner)]
        if len(owners) > 1:
            spellings = " or ".join(f"{owner}.{rest}" for owner in owners)
            raise ValueError(f"in {name}, both {' and '.join(owners)} have an option {rest}; use {spellings}")
        if owners:
            shares[owners[0]][rest] = value
        else:
            unknown.append(option)
    if unknown:
        raise ValueError(
            f"alignment method {name!r} has no option {', '.join(sorted(unknown))}; {_describe_options(known)}"
        )
    return shares


def _describe_options(known: Mapping[str, Sequence[str]]) -> str:
    if len(known) == 1:
        options = next(iter(known.values()))
        return f"it takes {', '.join(options)}" if options else "it has no options"
    return "; ".join(f"{owner} takes {', '.join(options) or 'none'}" for owner, options in known.items())


def _unknown_method_error(name: Any) -> ValueError:
    message = (
        f"there is no alignment method {name!r}; available: {', '.join(available_methods())}, and "
        f"{_WRAPPER}(NAME) around each of them"
    )
    if missing := [known for known in TORCHJD_SPECS if known not in usable_torchjd_names()]:
        message += f'; pip install "torchjd[fairgrad,quadprog-projector]" adds {", ".join(missing)}'
    return ValueError(message)
