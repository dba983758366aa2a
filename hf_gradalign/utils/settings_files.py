"""YAML and JSON files that people write: recipes, configurations, studies. Read within bounds, whoever wrote them."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from hf_gradalign.utils.plain_text import plain_text

MAX_BYTES = 2_000_000
"""Size of a file; what its aliases stand for counts as if it were written out."""
MAX_DEPTH = 50
"""Lists and mappings within each other."""
MAX_VALUES = 100_000
"""Values of a YAML file (a start or an end of a list or mapping is one, too): a second's work."""
_MAX_INTEGER = 2**63
_MAX_DIGITS = 400  # of a number with a fraction; shortest forms of doubles have up to 17, exact ones more
_SHOWN = 300


def read_settings(path: str | Path) -> Any:
    """Read a file of lists, mappings, text, numbers, true, false and null.

    Dates are text. No tag is followed, and no key may stand twice in a mapping.

    Args:
        path: The file: JSON if it ends in `.json`, else YAML.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not YAML or JSON, or too large, too deep, or has numbers too long for any setting.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            _refuse(f"it has more than {MAX_BYTES:,} bytes")
        text = content.decode("utf-8-sig")
        return _read_json(text) if path.suffix.lower() == ".json" else _read_yaml(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(plain_text(error).split())
        reason = reason if len(reason) <= _SHOWN else f"{reason[:_SHOWN]}..."
        raise ValueError(f"{path}: not a readable YAML or JSON file: {reason}") from error


def _read_json(text: str) -> Any:
    content = json.loads(text, object_pairs_hook=_once_each, parse_int=_integer, parse_float=_number)
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        level = [item for each in level if isinstance(each, list | dict) for item in _items(each)]
    if level:
        _refuse(f"lists and mappings lie more than {MAX_DEPTH} deep")
    return content


def _items(content: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return content.values() if isinstance(content, dict) else content


def _once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        name = next(name for name, number in Counter(name for name, _ in pairs).items() if number > 1)
        _refuse(f"the key {name!r:.80} stands twice")
    return content


def _read_yaml(text: str) -> Any:
    _measure(text)
    return yaml.load(text, _Loader)  # a safe loader


def _measure(text: str) -> None:
    """Refuse what is too deep, or too large with its aliases written out, before anything is made of it."""
    total, open_ones, sizes = 0, [], {}
    for number, event in enumerate(yaml.parse(text, _BASE)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in sizes and sizes[event.anchor] is None:
                _refuse(f"the alias *{event.anchor:.80} stands within what it stands for")
            total += sizes.get(event.anchor) or 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1 + len(event.value)
            sizes[event.anchor] = 1 + len(event.value)
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes[event.anchor] = None
            open_ones.append((event.anchor, total))
            total += 1
            if len(open_ones) > MAX_DEPTH:
                _refuse(f"lists and mappings lie more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_ones.pop()
            sizes[anchor] = total - before
        if number > MAX_VALUES:
            _refuse(f"it has more than {MAX_VALUES:,} values")
        if total > 2 * MAX_BYTES:  # without aliases a file that is not too large cannot come to that
            _refuse("its aliases (*name) stand for too much")


def _integer(text: str) -> int:
    if len(text) > 2 * len(str(_MAX_INTEGER)) or abs(int(text)) >= _MAX_INTEGER:
        _refuse(f"a whole number of {len(text):,} digits is too long: {text:.20}...")
    return int(text)


def _number(text: str) -> float:
    if len(text) > _MAX_DIGITS:
        _refuse(f"a number of {len(text):,} digits is too long: {text:.20}...")
    value = float(text)
    if math.isinf(value):
        _refuse(f"the number {text:.20} is too large")
    return value


def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


class _Loader(_BASE):
    """The safe loader, without what JSON lacks, and with bounded numbers."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        _refuse_repeated_keys(node, set())
        return node

    def construct_yaml_int(self, node: Any) -> int:
        text = self.construct_scalar(node)
        if len(text) <= 2 * len(str(_MAX_INTEGER)):
            value = super().construct_yaml_int(node)
            if abs(value) < _MAX_INTEGER:
                return value
        _refuse(f"a whole number of {len(text):,} digits is too long: {text:.20}...")

    def construct_yaml_float(self, node: Any) -> float:
        text = self.construct_scalar(node)
        if len(text) > _MAX_DIGITS:
            _refuse(f"a number of {len(text):,} digits is too long: {text:.20}...")
        value = super().construct_yaml_float(node)
        if math.isinf(value) and "inf" not in text.lower():
            _refuse(f"the number {text:.20} is too large")
        return value


_Loader.add_constructor(f"{_TAG}int", _Loader.construct_yaml_int)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_yaml_float)


def _refuse_repeated_keys(node: Any, seen: set[int]) -> None:
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    children = node.value
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    _refuse(f"the key {key.value!r:.80} stands twice in a mapping, in line {key.start_mark.line + 1}")
                keys.add((key.tag, key.value))
        children = [child for pair in node.value for child in pair]
    for child in children:
        _refuse_repeated_keys(child, seen)


def find_settings(name: str | Path, kind: str, folder: Path) -> Path:
    """A settings file: by its path, or by `KIND:NAME` one that comes with the package.

    Args:
        name: A path, or a name such as `recipe:tcm_pcgrad`.
        kind: What stands before the colon.
        folder: Where the package keeps files of this kind.

    Raises:
        FileNotFoundError: If the package has no file of that name; the message lists those it has.
    """
    prefix, _, rest = str(name).partition(":")
    if prefix != kind:
        return Path(name)
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if rest not in known:
        raise FileNotFoundError(f"there is no {kind} {rest!r}; there are {', '.join(known)}")
    return known[rest]


__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "find_settings", "read_settings"]
