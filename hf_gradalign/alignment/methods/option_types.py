"""Type checks for options that come from JSON or a configuration file."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import Tensor

_NAMES = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a string"}


def check_types(owner: str, options: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Check options against the annotations of the function that takes them.

    Args:
        owner: What the options belong to, for messages.
        options: Values by name. A vector is a list of finite numbers.
        function: The function. Options without an annotation, or with an annotation that is not listed here, may have
            any value.

    Raises:
        ValueError: If an option has another type, or a number is not finite.
    """
    hints = get_type_hints(function)
    for name, value in options.items():
        if name in hints and not _has_allowed_type(value, hints[name]):
            kinds = (
                " or ".join(_NAMES[kind] for kind in _allowed_types(hints[name]) if kind in _NAMES)
                or "a list of numbers"
            )
            raise ValueError(f"{name} of {owner} must be {kinds}, got {value!r}")


def _allowed_types(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _has_allowed_type(value: Any, hint: Any) -> bool:
    return any(_has_type(value, kind) for kind in _allowed_types(hint))


def _has_type(value: Any, kind: Any) -> bool:
    if kind is Tensor or get_origin(kind) is Sequence:
        return isinstance(value, (list, tuple, Tensor)) and all(_has_type(each, float) for each in value)
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return not isinstance(kind, type) or isinstance(value, kind)
