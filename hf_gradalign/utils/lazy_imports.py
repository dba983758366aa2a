"""Lazy packages (PEP 562), and actions that run after another package is imported."""

import ast
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package that imports its names in an `if TYPE_CHECKING:` block.

    Assign them in the `else:` of that block, because type checkers accept any name from a package that has a
    `__getattr__`. The block is for type checkers and is also read here, as `lazy_loader` reads a stub, so there is no
    second list to maintain. Names, and the package's modules, are imported on first use.

    Args:
        package: The package's `__name__`. No name may be the same as a module in the package, because importing the
            module would hide the name.
    """
    module = sys.modules[package]
    tree = ast.parse(inspect.getsource(module))
    blocks = [node.body for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module or "" for node in imports for alias in node.names}

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


Action = Callable[[ModuleType], object]


def after_import(name: str, action: Action) -> None:
    """Call `action` with a module: now if it is already imported, otherwise right after it is imported.

    Args:
        name: Full name of the module.
        action: The function to call. The import raises its exceptions.
    """
    if (module := sys.modules.get(name)) is not None:
        action(module)
    else:
        _finder.actions.setdefault(name, []).append(action)


class _Finder(MetaPathFinder):
    """Finds modules through the other finders, and makes their loaders call the actions at the end."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.actions:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            for action in self.actions[fullname]:
                action(sys.modules.get(fullname, module))  # transformers replaces its module

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


_finder = _Finder()
sys.meta_path.insert(0, _finder)
