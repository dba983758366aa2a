"""Act when another package is imported, without importing it oneself."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Action = Callable[[ModuleType], object]


def after_import(name: str, action: Action) -> None:
    """Call `action` with a module: now if it is imported already, and else right after it is.

    Args:
        name: Full name of the module.
        action: What it raises is raised by the import.
    """
    if (module := sys.modules.get(name)) is not None:
        action(module)
    else:
        _finder.actions.setdefault(name, []).append(action)


class _Finder(MetaPathFinder):
    """Finds modules as the other finders do, and has their loaders call the actions at the end."""

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
                action(sys.modules.get(fullname, module))  # transformers puts another module in its place

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


_finder = _Finder()
sys.meta_path.insert(0, _finder)

__all__ = ["after_import"]
