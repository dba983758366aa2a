"""Packages that import what they offer when it is asked for (PEP 562)."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose imports stand in its `if TYPE_CHECKING:` block alone.

    That block is what type checkers read, and is read here, too, as `lazy_loader` reads a stub: there is no second list
    to keep. Each name is imported when it is first asked for, as are the package's own modules.

    Args:
        package: Its `__name__`. None of the names may be that of a module in it: importing that module would hide it.
    """
    module = sys.modules[package]
    tree = ast.parse(module.__spec__.loader.get_source(package))  # type: ignore[union-attr]
    blocks = [node.body for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(homes[name]), name)
        else:
            full_name = f"{package}.{name}"
            try:
                value = import_module(full_name)
            except ModuleNotFoundError as error:
                if error.name != full_name:
                    raise
                raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
        setattr(module, name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(module), *homes})

    return get, names


__all__ = ["lazy_names"]
