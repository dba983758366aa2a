"""The definition of a study in a YAML file: a grid of trials, and the sets that each trial is evaluated on.

Files on disk still call a trial a cell: the key `cells` of a study file, the folder `cells/` with each trial's
`cell.json`, and the column `cell` of the tables.
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from hf_gradalign.utils.settings_files import find_settings, read_settings


class StudyError(ValueError):
    """A study file or study folder that cannot be used. The message says what to do."""


# Methods with special names. Any other name is an alignment method, or a method that the study defines.
CLEAN_ONLY, AUGMENTED_ONLY, DUAL_PATH = "clean", "augmented", "dual_path"
NO_AUGMENTATION = "none"
SMALL_MODEL, OWN_HEAD = "small", "own"

AXES: dict[str, Any] = {
    "method": DUAL_PATH,
    "augmentation": "rawboost",
    "model": SMALL_MODEL,
    "head": OWN_HEAD,
    "batch_size": 16,
    "epochs": 10,
    "seed": 42,
}
"""The settings that every trial has, with the defaults of `run_audio_spoof.py`."""

_OPTION_OF = {"batch_size": "per_device_train_batch_size", "epochs": "num_train_epochs", "seed": "seed"}
_AXIS_OF = {
    "align_gradients": "method",
    "views": "method",
    "augmentation": "augmentation",
    "model_name_or_path": "model",
    "head": "head",
} | {option: axis for axis, option in _OPTION_OF.items()}  # run options that an axis sets

_NUMBERS: dict[str, tuple[Any, int, int]] = {
    "seed": (int, 0, 2**32 - 1),
    "batch_size": (int, 1, 2**31 - 1),
    "epochs": (int | float, 0, 10**6),
}
_SHORT = {"method": "", "augmentation": "", "model": "", "head": "", "batch_size": "b", "epochs": "e", "seed": "s"}

_KEYS = ("name", "options", "methods", "evaluate", "cells")
_EVALUATION_KEYS = ("corpus", "split", "subset")
_RUNNER_OPTIONS = ("output_dir", "resume_from_checkpoint", "push_to_hub", "hub_model_id", "dry_run")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_NAME_RULE = "use up to 100 letters, digits, '_', '.' and '-', and start with a letter or digit"
_TOKEN_NAME = re.compile(r"(\w*_)?(token|api_key|password)", re.IGNORECASE)
_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{20,}")
MAX_TRIALS = 10_000
"""The most trials that a study may have. Each trial trains a model."""

Value = str | int | float | bool


@dataclass(frozen=True)
class Trial:
    """One trial of a study: a training run with certain settings.

    Attributes:
        settings: A value for each of `AXES`, and for any other option that the study varies.
        options: All options of `run_audio_spoof.py` for this run, as the study file writes them.
    """

    settings: Mapping[str, Value]
    options: Mapping[str, Any]

    @property
    def id(self) -> str:
        """A name that is safe as a folder name. Trials with different options have different names."""
        parts = [f"{_SHORT.get(axis, axis + '=')}{value}" for axis, value in self.settings.items()]
        text = re.sub(r"[^A-Za-z0-9_.=+-]+", "-", "-".join(parts)).strip("-.")
        digest = hashlib.sha256(_as_json(self.options).encode()).hexdigest()
        return f"{text[:120]}-{digest[:8]}"

    @property
    def title(self) -> str:
        """The settings as text."""
        return ", ".join(f"{axis} {value}" for axis, value in self.settings.items())

    @property
    def n_views(self) -> int:
        """The number of views of each clip."""
        return len(str(self.options["views"]).split(",")) if "views" in self.options else 2


@dataclass(frozen=True)
class EvaluationSet:
    """A split that the model of every trial is scored on.

    Attributes:
        name: The name of the set in the results.
        corpus: As for `load_corpus`; None for the demo corpus.
        split: "train", "validation" or "test".
        subset: The subset, for corpora that have subsets.
    """

    name: str
    corpus: str | None = None
    split: str = "test"
    subset: str | None = None


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: The name, which is safe as a folder name.
        trials: The trials, each once, in the order of the file.
        evaluation_sets: The sets that each trial is evaluated on.
        tokens: Access tokens for all trials. They are never written to disk.
    """

    name: str
    trials: Sequence[Trial]
    evaluation_sets: Sequence[EvaluationSet]
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: str | Path) -> "Study":
        """Read a study file.

        Args:
            path: `study:NAME` for a study that comes with the package, or a YAML file with the keys `name` (default:
                the file's name), `options` (of `run_audio_spoof.py`, for all trials), `methods` (names and options of
                methods in addition to the built-in ones), `evaluate` (name to `corpus`, `split`, `subset`) and
                `cells`: a list of mappings from axes to a value, a list of values, or a range `0..9`. Each mapping
                stands for all combinations of its values. A trial that is listed twice runs once.

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
        """Make a study from the content of its file.

        Raises:
            StudyError: If it does not define a study.
        """
        content = _mapping(content, "the file")
        _require_known(content, _KEYS, "")
        name = str(content.get("name", name))
        if not _NAME.fullmatch(name):
            raise StudyError(f"name: {name!r:.120} is not a valid name for a folder: {_NAME_RULE}")
        common = _mapping(content.get("options"), "options")
        tokens = {option: str(common.pop(option)) for option in list(common) if _TOKEN_NAME.fullmatch(option)}
        methods = {
            str(method): _mapping(options, f"methods: {method}")
            for method, options in _mapping(content.get("methods"), "methods", any_keys=True).items()
        }
        _refuse_axis_options(common, methods)
        blocks = content.get("cells")
        if not isinstance(blocks, list) or not blocks:
            raise StudyError("cells: write a list of mappings, such as - {method: [dual_path, pcgrad], seed: 0..4}")
        grids = [_grid(_mapping(block, f"cells: entry {number}"), number) for number, block in enumerate(blocks, 1)]
        n_trials = sum(prod(len(values) for values in grid.values()) for grid in grids)
        if n_trials > MAX_TRIALS:
            raise StudyError(f"cells: {n_trials:,} trials are more than the limit of {MAX_TRIALS:,}")
        trials: dict[Any, Trial] = {}
        for grid in grids:
            for combination in product(*grid.values()):
                trial = make_trial(dict(zip(grid, combination, strict=True)), common, methods)
                key = frozenset({**trial.settings, "epochs": float(trial.settings["epochs"])}.items())  # 2 equals 2.0
                trials.setdefault(key, trial)
        sets = _evaluation_sets(content.get("evaluate"))
        refuse_tokens(
            [common, methods, [asdict(evaluation) for evaluation in sets], *(list(grid.values()) for grid in grids)]
        )
        return cls(name, list(trials.values()), sets, tokens)


def make_trial(
    settings: Mapping[str, Value], common: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]
) -> Trial:
    """Make a trial from its settings.

    Args:
        settings: Values by axis. Missing axes have their default.
        common: Options that all trials have.
        methods: Options of the methods that the study defines, by name.

    Raises:
        StudyError: If an option is also set by an axis, or an axis has an impossible value.
    """
    settings = {**AXES, **settings}
    for axis, (kind, least, most) in _NUMBERS.items():
        value: Any = settings[axis]
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            what = "a whole number" if kind is int else "a number"
            raise StudyError(f"cells: {axis} takes {what} from {least} to {most}, not {value!r:.80}")
    method = str(settings["method"])
    options: dict[str, Any] = {**common, **_method_options(method, str(settings["augmentation"]), methods)}
    if options.get("views") == "clean":
        settings["augmentation"] = NO_AUGMENTATION  # otherwise the same run would be listed once per augmentation
    if settings["model"] != SMALL_MODEL:
        options["model_name_or_path"] = settings["model"]
    if settings["head"] != OWN_HEAD:
        options["head"] = settings["head"]
    options |= {option: settings[axis] for axis, option in _OPTION_OF.items()}
    for name, value in settings.items():
        if name in AXES:
            continue
        if name in _AXIS_OF:
            raise StudyError(f"cells: {name} is not an axis. Vary {_AXIS_OF[name]} instead")
        options[name] = value
    return Trial(settings, options)


def expand_variables(value: Any) -> Any:
    """Replace `${NAME}` in all strings by the environment variable.

    Raises:
        StudyError: If the variable is not set.
    """
    if isinstance(value, str):
        return _VARIABLE.sub(_variable, value)
    if isinstance(value, Mapping):
        return {name: expand_variables(item) for name, item in value.items()}
    if isinstance(value, list):
        return [expand_variables(item) for item in value]
    return value


def refuse_tokens(value: Any) -> None:
    """Check that no text looks like an access token of the Hub, because a study's files would contain it.

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
            f"{match[0][:6]}... looks like an access token, and the study would write it to its files. Set the "
            "environment variable HF_TOKEN instead"
        )


def _as_json(options: Mapping[str, Any]) -> str:
    try:
        return json.dumps(options, sort_keys=True)
    except TypeError:  # keys of mixed types, such as 0 and "fake" of a label map, cannot be sorted
        return json.dumps(options)


def _method_options(method: str, recipe: str, methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if method in methods:
        own = dict(methods[method])
        return own if "views" in own or "augmentation" in own else {**own, "augmentation": recipe}
    if method == CLEAN_ONLY:
        return {"views": "clean"}
    if method == AUGMENTED_ONLY:
        return {"views": f"augmented={recipe}"}
    return {"align_gradients": "none" if method == DUAL_PATH else method, "augmentation": recipe}


def _variable(match: re.Match[str]) -> str:
    value = os.environ.get(match[1])
    if value is None:
        raise StudyError(f"the study file uses {match[0]}: set the environment variable {match[1]} first")
    return value


def _grid(block: Mapping[str, Any], number: int) -> dict[str, Sequence[Value]]:
    if "method" not in block:
        raise StudyError(f"cells: entry {number} has no method. Add one, such as method: pcgrad")
    for axis in block:
        if _TOKEN_NAME.fullmatch(axis):
            raise StudyError(f"cells: {axis} is not an axis. Tokens are never written to disk: set it in options")
    return {axis: _values(value, axis) for axis, value in block.items()}


def _values(value: Any, axis: str) -> Sequence[Value]:
    if isinstance(value, str) and (bounds := _RANGE.fullmatch(value.strip())):
        first, last = int(bounds[1]), int(bounds[2])
        if last < first:
            raise StudyError(f"cells: {axis}: the range {value} goes down. Write {last}..{first}")
        return range(first, last + 1)
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str | int | float):
            raise StudyError(f"cells: {axis} takes a value, a list of values or a range 0..9, not {item!r:.80}")
    if not values:
        raise StudyError(f"cells: {axis} has no value. Write one, or remove it")
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
            raise StudyError(f"evaluate: {name!r:.120} is not a valid name for a file: {_NAME_RULE}")
        for key, value in entry.items():
            if not isinstance(value, str) and not (value is None and key != "split"):
                raise StudyError(f"evaluate: {name}: {key} takes text, not {value!r:.80}")
        sets.append(EvaluationSet(str(name), **entry))
    if len({evaluation.name for evaluation in sets}) < len(sets):
        raise StudyError("evaluate: two sets have the same name. Rename one of them")
    return sets


def _refuse_axis_options(common: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> None:
    for name in common:
        if name in _AXIS_OF:
            raise StudyError(f"options: {name} is set by the axis {_AXIS_OF[name]}. Set it in cells instead")
        if name in _RUNNER_OPTIONS:
            raise StudyError(f"options: {name} is set by the study itself. Remove it")
    for method, options in methods.items():
        for name in options:
            if _TOKEN_NAME.fullmatch(name):
                raise StudyError(f"methods: {method}: tokens are never written to disk. Set {name} in options instead")
            if _AXIS_OF.get(name, "method") not in ("method", "augmentation"):
                raise StudyError(f"methods: {method}: {name} is set by the axis {_AXIS_OF[name]}. Set it in cells")


def _mapping(content: Any, what: str, any_keys: bool = False) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StudyError(f"{what} must be a mapping, not {content!r:.80}")
    for key in content:
        if not (any_keys or isinstance(key, str)):
            raise StudyError(f"{what}: the key {key!r:.80} is not text. Put quotation marks around it")
    return dict(content)


def _require_known(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known keys: {', '.join(known)}"
            raise StudyError(f"{where}unknown key {key!r}{hint}")
