"""Reads YAML and JSON settings (recipes, configurations, studies) safely, within size limits."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from hf_gradalign.utils.plain_text import one_line

MAX_BYTES = 2_000_000
"""Maximum size of a file, with its aliases expanded."""
MAX_DEPTH = 50
"""Maximum nesting of lists and mappings."""
MAX_VALUES = 100_000
"""Maximum number of values in a YAML file, including starts and ends of lists and mappings. Takes one second."""
_MAX_INTEGER = 2**63
_MAX_DIGITS = 400  # of a number with a fraction; doubles need up to 17, but more are valid
_MAX_REASON = 300


def read_settings(path: str | Path) -> Any:
    """Read a file of lists, mappings, text, numbers, booleans and null.

    Dates are read as text. Tags are ignored, and a mapping cannot contain the same key twice.

    Args:
        path: The file. JSON if the name ends in `.json`, otherwise YAML.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not YAML or JSON, is too large or too deeply nested, or has numbers that are too long.
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
        reason = one_line(error)
        reason = reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}..."
        raise ValueError(f"{path}: not a readable YAML or JSON file: {reason}") from error


def _read_json(text: str) -> Any:
    content = json.loads(text, object_pairs_hook=_once_each, parse_int=_integer, parse_float=_number)
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        level = [item for each in level if isinstance(each, list | dict) for item in _items(each)]
    if level:
        _refuse(f"lists and mappings are nested more than {MAX_DEPTH} deep")
    return content


def _items(content: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return content.values() if isinstance(content, dict) else content


def _once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        name = next(name for name, number in Counter(name for name, _ in pairs).items() if number > 1)
        _refuse(f"the key {name!r:.80} occurs twice")
    return content


def _read_yaml(text: str) -> Any:
    _measure(text)
    return yaml.load(text, _Loader)  # a safe loader


def _measure(text: str) -> None:
    """Check the nesting, and the size with all aliases expanded, before anything is constructed."""
    total, open_ones, sizes = 0, [], {}
    for number, event in enumerate(yaml.parse(text, _BASE)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in sizes and sizes[event.anchor] is None:
                _refuse(f"the alias *{event.anchor:.80} contains itself")
            total += sizes.get(event.anchor) or 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1 + len(event.value)
            sizes[event.anchor] = 1 + len(event.value)
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes[event.anchor] = None
            open_ones.append((event.anchor, total))
            total += 1
            if len(open_ones) > MAX_DEPTH:
                _refuse(f"lists and mappings are nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_ones.pop()
            sizes[anchor] = total - before
        if number > MAX_VALUES:
            _refuse(f"it has more than {MAX_VALUES:,} values")
        if total > 2 * MAX_BYTES:  # only possible with aliases
            _refuse("its aliases (*name) expand to too much")


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
    """The safe loader, limited to the types of JSON and to numbers of limited length."""

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
                    _refuse(f"the key {key.value!r:.80} occurs twice in a mapping, in line {key.start_mark.line + 1}")
                keys.add((key.tag, key.value))
        children = [child for pair in node.value for child in pair]
    for child in children:
        _refuse_repeated_keys(child, seen)


def find_settings(name: str | Path, kind: str, folder: Path) -> Path:
    """Find a settings file by its path, or one that comes with the package by `KIND:NAME`.

    Args:
        name: A path, or a name such as `recipe:tcm_pcgrad`.
        kind: The part before the colon.
        folder: Folder of the package with files of this kind. Names that start with an underscore are not offered.

    Raises:
        FileNotFoundError: If the package has no file of this name; the message lists all names.
    """
    prefix, _, rest = str(name).partition(":")
    if prefix != kind:
        return Path(name)
    known = {path.stem: path for path in sorted(folder.glob("[!_]*.yaml"))}
    if rest not in known:
        raise FileNotFoundError(f"there is no {kind} {rest!r}; available: {', '.join(known)}")
    return known[rest]


def read_json_object(text: str, option: str, example: str) -> dict[str, Any]:
    """Read the value of an option that takes a JSON object.

    Args:
        text: The user's value.
        option: The option, for messages.
        example: A valid value, for messages.

    Raises:
        ValueError: If it is not a JSON object.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{option} is not JSON: {error}. It takes an object, such as '{example}'") from error
    if not isinstance(content, dict):
        raise ValueError(f"{option} takes a JSON object, such as '{example}', not {text[:80]}")
    return content
