"""The parser of a run's command line: transformers' own, with every option open to being unset."""

import argparse
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_origin, get_type_hints

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from hf_gradalign.experiment.arguments import (
    NONE_IS_A_VALUE,
    AudioSpoofTrainingArguments,
    DataArguments,
    ModelArguments,
)

_CLASSES = (ModelArguments, DataArguments, AudioSpoofTrainingArguments)
_UNSET = ("none", "null")


class RunParser(HfArgumentParser):
    """Parses options into `ModelArguments`, `DataArguments` and `AudioSpoofTrainingArguments`.

    What a configuration file or a resumed run has set can be unset on the command line: `--option none` where an option
    may be None or takes a list, `--option false` and `--no_option` where it is a switch. A bare `--option` turns every
    switch on.
    """

    def __init__(self) -> None:
        super().__init__(
            _CLASSES,
            allow_abbrev=False,
            prog="run_audio_spoof.py",
            usage="%(prog)s [CONFIG.yaml | CONFIG.json] [--option value ...]",
            description="Train a speech deepfake detector on several views of each clip with aligned gradients. "
            "`--option none` unsets what a configuration file or a resumed run has set.",
        )
        self.add_argument(  # as other commands call it
            "--no_progress", action="store_true", dest="disable_tqdm", default=None, help="Show no progress bars."
        )
        # The first of a name: an option that is on by default has a second, --no_<name>.
        self.options = {action.dest: action for action in reversed(self._actions)}
        self._empty: dict[str, Any] = {}
        for dataclass in _CLASSES:
            hints = get_type_hints(dataclass)
            for field in dataclasses.fields(dataclass):
                if field.init:
                    self._open(self.options[field.name], field, hints[field.name])

    def _open(self, action: argparse.Action, field: dataclasses.Field, hint: Any) -> None:
        alternatives = get_args(hint) or (hint,)
        is_list = action.nargs == "+" and field.name not in NONE_IS_A_VALUE
        if action.type is string_to_bool:
            action.nargs, action.const = "?", True
            if f"--no_{field.name}" not in self._option_string_actions:
                words = [f"--no_{field.name}", f"--no-{field.name.replace('_', '-')}"]
                self.add_argument(*dict.fromkeys(words), action="store_false", dest=field.name, help=argparse.SUPPRESS)
        elif any(get_origin(kind) is dict for kind in alternatives):
            action.type = str  # as JSON, which the data classes read
        # Where "none" is a value of its own (--report_to), it stays one.
        has_none = field.default == "none" or field.name in NONE_IS_A_VALUE
        if (type(None) in alternatives and not has_none) or is_list:
            action.type = _or_none(action.type)
            action.choices = None if action.choices is None else [*action.choices, None]
        if is_list:
            self._empty[field.name] = None if type(None) in alternatives else action.default

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's; of a list, `none` leaves nothing."""
        parsed, rest = super().parse_known_args(args, namespace)
        for name, empty in self._empty.items():
            value = getattr(parsed, name, None)
            if isinstance(value, list) and None in value:
                if len(value) > 1:
                    self.error(f"--{name} none stands for an empty list, and takes no other values")
                setattr(parsed, name, empty)
        return parsed, rest

    def reads_switch(self, name: str) -> bool:
        """Whether an option is a switch, true or false."""
        return inspect.unwrap(self.options[name].type) is string_to_bool

    def can_unset(self, name: str) -> bool:
        """Whether `--option none` unsets an option."""
        return hasattr(self.options[name].type, "__wrapped__")


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    @functools.wraps(read)
    def read_or_none(word: str) -> Any:
        return None if word.lower() in _UNSET else read(word)

    return read_or_none


__all__ = ["RunParser"]
