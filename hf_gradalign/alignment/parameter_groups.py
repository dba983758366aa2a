"""Groups of parameters that are aligned together."""

import re
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

AlignmentScope = Literal["model", "module", "parameter"]

# A layer is a module in a list: the shortest prefix of a name that ends in a number.
_LAYER = re.compile(r"(.+?\.\d+)\.")
# Prefixes that DDP, PEFT, torch.compile and activation checkpointing add to parameter names.
_WRAPPERS = re.compile(
    r"(^module\.|^base_model\.model\.|_orig_mod\.|_checkpoint_wrapped_module\.|_fsdp_wrapped_module\.)"
)


class ParameterGroups:
    """Sorts parameters by name into groups, each with its own Gramian.

    Args:
        names: Names of the P parameters, as in `named_parameters`.
        scope: "model" puts all parameters in one group, as in arXiv 2509.20682. "module" makes a group of each
            transformer layer (and any other member of a module list) and of each other module with its own parameters.
            "parameter" makes a group of each parameter.
        modules: With "module", prefixes of names that each form a group instead. Parameters that match none of them
            form a group "other".
        patterns: Regular expressions. Only parameters whose name matches one (`re.search`) are in a group. All are by
            default.

    Attributes:
        names: Names of the parameters, without the parts that wrappers add.
        groups: Names of the G groups, in the order of their first parameter.
        index: Position of each parameter's group, or None for a parameter in no group.

    Raises:
        ValueError: If the scope is unknown, a pattern is not a regular expression or matches no parameter, or a prefix
            matches no parameter or is given with another scope than "module".
    """

    def __init__(
        self,
        names: Sequence[str],
        scope: AlignmentScope = "model",
        modules: Sequence[str] | None = None,
        patterns: Sequence[str] | None = None,
    ) -> None:
        check_scope(scope, modules, patterns)
        names = [_WRAPPERS.sub("", name) for name in names]
        for pattern in patterns or ():
            if not any(re.search(pattern, name) for name in names):
                raise ValueError(f"no parameter's name matches {pattern!r}; there are {_describe_names(names)}")
        for module in modules or ():
            if not any(_is_within(name, module) for name in names):
                raise ValueError(f"no parameter is in a module {module!r}; there are {_describe_names(names)}")
        self.names = names
        self.groups: list[str] = []
        self.index: list[int | None] = []
        positions: dict[str, int] = {}
        for name in names:
            if patterns and not any(re.search(pattern, name) for pattern in patterns):
                self.index.append(None)
                continue
            self.index.append(positions.setdefault(_group_of(name, scope, modules), len(positions)))
        self.groups = list(positions)
        self._members: Tensor | None = None

    @torch.no_grad()
    def gramians(self, products: Tensor) -> Tensor:
        """Sum the products of parameters (see `compute_products`) within each group: (P, K, K) -> (G, K, K).

        A non-finite product makes only its own group's entry NaN.
        """
        # float64 avoids the rounding of TF32. MPS has no float64.
        wide = torch.float32 if products.device.type == "mps" else torch.float64
        if len(self.groups) == 1 and None not in self.index:
            sums = products.sum(0, keepdim=True, dtype=wide)
            return (sums + (sums - sums)).to(products.dtype)  # infinity becomes NaN
        if self._members is None or self._members.device != products.device:
            # index_add_ on a GPU adds in a different order each time.
            members = torch.zeros(len(self.groups), len(self.index), dtype=wide)
            for parameter, group in enumerate(self.index):
                if group is not None:
                    members[group, parameter] = 1
            self._members = members.to(products.device)
        flat = products.flatten(1).to(wide)
        finite = flat.abs() < torch.inf  # False for NaN
        sums = self._members @ torch.where(finite, flat, 0.0)
        sums = torch.where(
            self._members @ (~finite).to(flat) > 0, torch.nan, sums
        )  # 0 * inf would make every group NaN
        return sums.to(products.dtype).unflatten(1, products.shape[1:])


def check_scope(scope: str, modules: Sequence[str] | None, patterns: Sequence[str] | None) -> None:
    """Check what can be checked without a model.

    Raises:
        ValueError: If the scope is unknown, prefixes are given with another scope than "module", or a pattern is not a
            regular expression.
    """
    if scope not in get_args(AlignmentScope):
        raise ValueError(f"the alignment scope must be one of {', '.join(get_args(AlignmentScope))}, got {scope!r}")
    if modules and scope != "module":
        raise ValueError(f"prefixes of modules ({', '.join(modules)}) need the alignment scope 'module', got {scope!r}")
    for pattern in patterns or ():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None


def _group_of(name: str, scope: str, modules: Sequence[str] | None) -> str:
    if scope == "model":
        return "model"
    if scope == "parameter":
        return name
    if modules:
        return max((module for module in modules if _is_within(name, module)), key=len, default="other")
    layer = _LAYER.match(name)
    return layer.group(1) if layer else name.rpartition(".")[0] or name


def _is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module.rstrip('.')}.")


def _describe_names(names: Sequence[str]) -> str:
    first = ", ".join(names[:4])
    return f"{first}, ... ({len(names)} in total)" if len(names) > 4 else first
