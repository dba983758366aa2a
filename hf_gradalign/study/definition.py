"""A study as its YAML file defines it: a grid of cells, and what each is evaluated on."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from hf_gradalign.study.cell import TAKEN_OPTIONS, Cell, Value, make_cell
from hf_gradalign.study.errors import StudyError
from hf_gradalign.utils.settings_files import find_settings, read_settings

_KEYS = ("name", "options", "methods", "evaluate", "cells")
_EVALUATION_KEYS = ("corpus", "split", "subset")
_OF_THE_RUNNER = ("output_dir", "resume_from_checkpoint", "push_to_hub", "hub_model_id", "dry_run")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TOKEN_NAME = re.compile(r"(\w*_)?(token|api_key|password)", re.IGNORECASE)
_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{20,}")
MAX_CELLS = 10_000
"""Cells of a study: each is a training."""


@dataclass(frozen=True)
class EvaluationSet:
    """A split that every cell's model is scored on.

    Attributes:
        name: What the results call it.
        corpus: As `load_corpus` takes it; None for the demo corpus.
        split: "train", "validation" or "test".
        subset: Of corpora that have some.
    """

    name: str
    corpus: str | None = None
    split: str = "test"
    subset: str | None = None


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: Its name, fit for a folder.
        cells: Its cells, each once, in the order of the file.
        evaluation_sets: What each is evaluated on.
        tokens: Options that all cells have and that nothing writes down.
    """

    name: str
    cells: Sequence[Cell]
    evaluation_sets: Sequence[EvaluationSet]
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: str | Path) -> "Study":
        """Read a study's file.

        Args:
            path: `study:NAME` for one that comes with the package, or a YAML file with the keys `name` (by default
                that of the file), `options` (of `run_audio_spoof.py`, for all cells), `methods` (names and options of
                methods beside those that have a name), `evaluate` (name to `corpus`, `split`, `subset`) and `cells`: a
                list of mappings from axes to a value, a list of values, or a range `0..9`, each standing for all
                combinations of its values. A cell that comes twice is run once.

        Raises:
            FileNotFoundError: If there is no such file or name.
            ValueError: If it is not YAML (see `read_settings`).
            StudyError: If it does not define a study.
        """
        path = find_settings(path, "study", Path(__file__).with_name("definitions"))
        if not path.is_file():
            raise FileNotFoundError(f"there is no study file {path}")
        content = read_settings(path)
        try:
            return cls.from_mapping(content, path.stem)
        except StudyError as error:
            raise StudyError(f"{path}: {error}") from error

    @classmethod
    def from_mapping(cls, content: Any, name: str = "study") -> "Study":
        """A study from the content of its file.

        Raises:
            StudyError: If it does not define a study.
        """
        content = _mapping(content, "the file")
        _require_known(content, _KEYS, "")
        name = str(content.get("name", name))
        if not _NAME.fullmatch(name):
            raise StudyError(
                f"name: {name!r:.120} is too long, or has characters that a folder's name had better not have"
            )
        common = _mapping(content.get("options"), "options")
        tokens = {option: str(common.pop(option)) for option in list(common) if _TOKEN_NAME.fullmatch(option)}
        methods = {
            str(method): _mapping(options, f"methods: {method}")
            for method, options in _mapping(content.get("methods"), "methods", any_keys=True).items()
        }
        _refuse_taken(common, methods)
        blocks = content.get("cells")
        if not isinstance(blocks, list) or not blocks:
            raise StudyError("cells: give a list of mappings, such as - {method: [dual_path, pcgrad], seed: 0..4}")
        grids = [_grid(_mapping(block, f"cells: entry {number}"), number) for number, block in enumerate(blocks, 1)]
        n_cells = sum(prod(len(values) for values in grid.values()) for grid in grids)
        if n_cells > MAX_CELLS:
            raise StudyError(f"cells: {n_cells:,} cells are more than {MAX_CELLS:,}, and each is a training")
        cells: dict[Any, Cell] = {}
        for grid in grids:
            for combination in product(*grid.values()):
                cell = make_cell(dict(zip(grid, combination, strict=True)), common, methods)
                alike = frozenset({**cell.settings, "epochs": float(cell.settings["epochs"])}.items())  # 2 and 2.0
                cells.setdefault(alike, cell)
        sets = _evaluation_sets(content.get("evaluate"))
        refuse_tokens(
            [common, methods, [asdict(evaluation) for evaluation in sets], *(list(grid.values()) for grid in grids)]
        )
        return cls(name, list(cells.values()), sets, tokens)


def expand_variables(value: Any) -> Any:
    """Replace `${NAME}` in all strings by the environment variable.

    Raises:
        StudyError: If it is not set.
    """
    if isinstance(value, str):
        return _VARIABLE.sub(_variable, value)
    if isinstance(value, Mapping):
        return {name: expand_variables(item) for name, item in value.items()}
    if isinstance(value, list):
        return [expand_variables(item) for item in value]
    return value


def _variable(match: re.Match[str]) -> str:
    value = os.environ.get(match[1])
    if value is None:
        raise StudyError(f"the study names {match[0]}: set the environment variable {match[1]} first")
    return value


def refuse_tokens(value: Any) -> None:
    """See that no text looks like an access token of the Hub, which would be written into a study's files.

    Raises:
        StudyError: If one does.
    """
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            refuse_tokens(item)
    elif isinstance(value, str) and (match := _TOKEN.search(value)):
        raise StudyError(
            f"{match[0][:6]}... looks like an access token, and would be written into the study's files: set the "
            "environment variable HF_TOKEN instead"
        )


def _grid(block: Mapping[str, Any], number: int) -> dict[str, Sequence[Value]]:
    if "method" not in block:
        raise StudyError(f"cells: entry {number} names no method")
    for axis in block:
        if _TOKEN_NAME.fullmatch(axis):
            raise StudyError(f"cells: {axis} is no axis, and tokens are not written down: give it in options")
    return {axis: _values(value, axis) for axis, value in block.items()}


def _values(value: Any, axis: str) -> Sequence[Value]:
    if isinstance(value, str) and (bounds := _RANGE.fullmatch(value.strip())):
        first, last = int(bounds[1]), int(bounds[2])
        if last < first:
            raise StudyError(f"cells: {axis}: the range {value} goes down; write {last}..{first}")
        return range(first, last + 1)
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str | int | float):
            raise StudyError(f"cells: {axis} takes a value, a list of values or a range 0..9, not {item!r:.80}")
    if not values:
        raise StudyError(f"cells: {axis} has no value")
    return values


def _evaluation_sets(content: Any) -> list[EvaluationSet]:
    entries = _mapping(content, "evaluate", any_keys=True)
    if not entries:
        raise StudyError("evaluate: name at least one set, such as test: {corpus: demo}")
    sets = []
    for name, entry in entries.items():
        entry = _mapping(entry, f"evaluate: {name}")
        _require_known(entry, _EVALUATION_KEYS, f"evaluate: {name}: ")
        if not _NAME.fullmatch(str(name)):
            raise StudyError(
                f"evaluate: {name!r:.120} is too long, or has characters that a file's name had better not have"
            )
        for key, value in entry.items():
            if not isinstance(value, str) and not (value is None and key != "split"):
                raise StudyError(f"evaluate: {name}: {key} takes text, not {value!r:.80}")
        sets.append(EvaluationSet(str(name), **entry))
    if len({evaluation.name for evaluation in sets}) < len(sets):
        raise StudyError("evaluate: two sets have the same name")
    return sets


def _refuse_taken(common: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> None:
    for name in common:
        if name in TAKEN_OPTIONS:
            raise StudyError(f"options: {name} is what {TAKEN_OPTIONS[name]} says, in cells")
        if name in _OF_THE_RUNNER:
            raise StudyError(f"options: {name} is the runner's business")
    for method, options in methods.items():
        for name in options:
            if _TOKEN_NAME.fullmatch(name):
                raise StudyError(f"methods: {method}: tokens are not written down: give {name} in options")
            if TAKEN_OPTIONS.get(name, "method") not in ("method", "augmentation"):
                raise StudyError(f"methods: {method}: {name} is what {TAKEN_OPTIONS[name]} says, in cells")


def _mapping(content: Any, what: str, any_keys: bool = False) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StudyError(f"{what} must be a mapping, not {content!r:.80}")
    for key in content:
        if not (any_keys or isinstance(key, str)):
            raise StudyError(f"{what}: the key {key!r:.80} is no text; put quotation marks around it")
    return dict(content)


def _require_known(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
            raise StudyError(f"{where}unknown key {key!r}{hint}")


__all__ = ["MAX_CELLS", "EvaluationSet", "Study", "expand_variables", "refuse_tokens"]
