"""One cell of a study: a run with certain settings."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_gradalign.study.errors import StudyError

# Methods with names of their own; any other name is that of an alignment method, or one that the study defines.
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
"""What every cell is told apart by, with the value where a study says nothing (that of `run_audio_spoof.py`)."""

_OPTION_OF = {"batch_size": "per_device_train_batch_size", "epochs": "num_train_epochs", "seed": "seed"}
TAKEN_OPTIONS = {
    "align_gradients": "method",
    "views": "method",
    "augmentation": "augmentation",
    "model_name_or_path": "model",
    "head": "head",
} | {option: axis for axis, option in _OPTION_OF.items()}
"""Options of a run that an axis speaks for, and which one."""

_NUMBERS = {"seed": (int, 0, 2**32 - 1), "batch_size": (int, 1, 2**31 - 1), "epochs": (int | float, 0, 10**6)}

Value = str | int | float | bool


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        settings: A value for each of `AXES`, and for any further option that the study varies.
        options: All options of `run_audio_spoof.py` that make this run, as the study's file writes them.
    """

    settings: Mapping[str, Value]
    options: Mapping[str, Any]

    @property
    def id(self) -> str:
        """A name that is a folder's, too. Cells of other options have other names."""
        parts = [f"{_SHORT.get(axis, axis + '=')}{value}" for axis, value in self.settings.items()]
        text = re.sub(r"[^A-Za-z0-9_.=+-]+", "-", "-".join(parts)).strip("-.")
        digest = hashlib.sha256(_as_json(self.options).encode()).hexdigest()
        return f"{text[:120]}-{digest[:8]}"

    @property
    def title(self) -> str:
        """The settings for people."""
        return ", ".join(f"{axis} {value}" for axis, value in self.settings.items())

    @property
    def views(self) -> int:
        """How many views a clip is seen in."""
        return len(str(self.options["views"]).split(",")) if "views" in self.options else 2


def _as_json(options: Mapping[str, Any]) -> str:
    try:
        return json.dumps(options, sort_keys=True)
    except TypeError:  # keys of several kinds, such as a label map's 0 and fake, have no order
        return json.dumps(options)


_SHORT = {"method": "", "augmentation": "", "model": "", "head": "", "batch_size": "b", "epochs": "e", "seed": "s"}


def make_cell(
    settings: Mapping[str, Value], common: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]
) -> Cell:
    """A cell of its settings.

    Args:
        settings: By axis; axes that are not there have their default.
        common: Options that all cells have.
        methods: Options of the methods that the study defines, by name.

    Raises:
        StudyError: If an option is given both as such and by an axis, or an axis has an impossible value.
    """
    settings = {**AXES, **settings}
    for axis, (kind, least, most) in _NUMBERS.items():
        value = settings[axis]
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            what = "a whole number" if kind is int else "a number"
            raise StudyError(f"cells: {axis} takes {what} from {least} to {most}, not {value!r:.80}")
    method = str(settings["method"])
    options: dict[str, Any] = {**common, **_method_options(method, str(settings["augmentation"]), methods)}
    if options.get("views") == "clean":
        settings["augmentation"] = NO_AUGMENTATION  # or the same run would be there once for each
    if settings["model"] != SMALL_MODEL:
        options["model_name_or_path"] = settings["model"]
    if settings["head"] != OWN_HEAD:
        options["head"] = settings["head"]
    options |= {option: settings[axis] for axis, option in _OPTION_OF.items()}
    for name, value in settings.items():
        if name in AXES:
            continue
        if name in TAKEN_OPTIONS:
            raise StudyError(f"{name} is not an axis: vary {TAKEN_OPTIONS[name]}")
        options[name] = value
    return Cell(settings, options)


def _method_options(method: str, recipe: str, methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if method in methods:
        own = dict(methods[method])
        return own if "views" in own or "augmentation" in own else {**own, "augmentation": recipe}
    if method == CLEAN_ONLY:
        return {"views": "clean"}
    if method == AUGMENTED_ONLY:
        return {"views": f"augmented={recipe}"}
    return {"align_gradients": "none" if method == DUAL_PATH else method, "augmentation": recipe}


__all__ = ["AUGMENTED_ONLY", "AXES", "CLEAN_ONLY", "DUAL_PATH", "TAKEN_OPTIONS", "Cell", "make_cell"]
