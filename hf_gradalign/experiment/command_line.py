"""The command line of a run: its parser, and the arguments that a run keeps in its folder."""

import argparse
import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast, get_args, get_origin, get_type_hints

from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

from hf_gradalign.experiment.arguments import (
    NONE_IS_A_VALUE,
    OF_CORPORA,
    AudioSpoofTrainingArguments,
    DataArguments,
    ModelArguments,
    RunArguments,
)
from hf_gradalign.experiment.file_names import ARGUMENTS_NAME
from hf_gradalign.utils.files import require_reachable, write_text_atomically
from hf_gradalign.utils.messages import command, did_you_mean, error_line, join_command, program
from hf_gradalign.utils.plain_text import plain_text
from hf_gradalign.utils.settings_files import find_settings, read_settings

_CLASSES = (ModelArguments, DataArguments, AudioSpoofTrainingArguments)
_UNSET = ("none", "null")
_RECIPE = "recipe"
_BASE = "base"
_CONFIG_SUFFIXES = (".json", ".yaml", ".yml")
# Options that apply only to the current command, so the run's folder does not keep them. Tokens are never written.
_OF_ONE_START = ("output_dir", "resume_from_checkpoint", "hub_token", "dry_run", "overwrite", "allow_changes")


class RunParser(HfArgumentParser):
    """Parses options into `ModelArguments`, `DataArguments` and `AudioSpoofTrainingArguments`.

    The command line can unset what a configuration file or a resumed run has set: `--option none` for options that can
    be None or take a list, `--option false` or `--no_option` for switches. `--option` without a value turns a switch
    on.
    """

    def __init__(self) -> None:
        super().__init__(
            cast("Any", _CLASSES),  # its stub does not allow tuples of classes
            allow_abbrev=False,
            prog=program("train"),
            usage="%(prog)s [CONFIG.yaml | CONFIG.json] [--option value ...]",
            description="Train a speech deepfake detector on several views of each clip with aligned gradients. "
            "`--option none` unsets an option of a configuration file or a resumed run.",
        )
        self.add_argument(  # the name used by other commands
            "--no_progress", action="store_true", dest="disable_tqdm", default=None, help="Show no progress bars."
        )
        # Take the first action of each name, because an option that is on by default has a second one, --no_<name>.
        self.options = {action.dest: action for action in reversed(self._actions)}
        self._empty: dict[str, Any] = {}
        for dataclass in _CLASSES:
            hints = get_type_hints(dataclass)
            for field in dataclasses.fields(dataclass):
                if field.init:
                    self._open(self.options[field.name], field, hints[field.name])
        self._group_options()

    def _group_options(self) -> None:
        """Sort the options of --help into groups, with this project's options first."""
        model, data, training = ({field.name for field in dataclasses.fields(kind)} for kind in _CLASSES)
        of_trainer = {field.name for field in dataclasses.fields(TrainingArguments)}
        ungrouped = self._optionals._group_actions
        for title, names in (
            ("model", model),
            ("data and views", data),
            ("alignment, checkpoints and the run", training - of_trainer),
            ("training (transformers.TrainingArguments)", of_trainer),
        ):
            self.add_argument_group(title)._group_actions += [a for a in ungrouped if a.dest in names]
        ungrouped[:] = [a for a in ungrouped if a.dest not in model | data | training]

    def _open(self, action: argparse.Action, field: dataclasses.Field, hint: Any) -> None:
        alternatives = get_args(hint) or (hint,)
        is_list = action.nargs == "+" and field.name not in NONE_IS_A_VALUE
        if action.type is string_to_bool:
            action.nargs, action.const = "?", True
            if f"--no_{field.name}" not in self._option_string_actions:
                words = [f"--no_{field.name}", f"--no-{field.name.replace('_', '-')}"]
                self.add_argument(*dict.fromkeys(words), action="store_false", dest=field.name, help=argparse.SUPPRESS)
        elif any(get_origin(kind) is dict for kind in alternatives):
            action.type = str  # JSON, which the data classes parse
        # "none" remains a value where it is one (--report_to none).
        has_none = field.default == "none" or field.name in NONE_IS_A_VALUE
        if (type(None) in alternatives and not has_none) or is_list:
            action.type = _accept_none(action.type)
            action.choices = None if action.choices is None else _Choices(action.choices)
        if is_list:
            self._empty[field.name] = None if type(None) in alternatives else action.default

    def error(self, message: str) -> NoReturn:
        """Print an error and exit, as argparse does. File contents are shown as plain text and shortened."""
        super().error(error_line(ValueError(message)).removeprefix("error: "))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments as argparse does, where `none` means an empty list."""
        parsed, rest = super().parse_known_args(args, namespace)
        for name, empty in self._empty.items():
            value = getattr(parsed, name, None)
            if isinstance(value, list) and None in value:
                if len(value) > 1:
                    self.error(f"--{name} none means an empty list and takes no other values")
                setattr(parsed, name, empty)
        return parsed, rest

    def reads_switch(self, name: str) -> bool:
        """Return whether an option is a switch (true or false)."""
        read: Any = self.options[name].type
        return inspect.unwrap(read) is string_to_bool

    def can_unset(self, name: str) -> bool:
        """Return whether `--option none` unsets an option."""
        return hasattr(self.options[name].type, "__wrapped__")


class _Choices(list):
    """Choices of an option that also accept None (unset), which messages and help do not list."""

    def __contains__(self, value: object) -> bool:
        return value is None or super().__contains__(value)


def _accept_none(read: Any) -> Callable[[str], Any]:
    @functools.wraps(read)
    def read_or_none(word: str) -> Any:
        return None if word.lower() in _UNSET else read(word)

    return read_or_none


def parse_arguments(given: Sequence[str] | Mapping[str, Any]) -> RunArguments:
    """Make the arguments of a run from a command line or from a mapping.

    A command line is `[CONFIG.yaml | CONFIG.json | recipe:NAME] [--option value ...]`. Its options override the file. A
    resumed run keeps the options it was started with unless others are given. Options that run code or send data
    elsewhere are not kept, because the folder may come from someone else (`is_never_restored`). `--option none` (a null
    in a file), `--option false` or `--no_option` unset what a file or a resumed run has set.

    A mistake (unknown option or key, wrong value, missing file) ends the program with status 2 and a message, as
    argparse does.

    Args:
        given: The words of a command line, or values by option (`RunArguments.options`).
    """
    options = dict(given) if isinstance(given, Mapping) else _read_options(given)
    parser = RunParser()
    parser.set_defaults(**options)
    try:
        made: Any = parser.parse_args_into_dataclasses([], look_for_args_file=False)
    except (ValueError, TypeError, ImportError, OSError, NotImplementedError) as error:
        parser.error(plain_text(error))  # from the data classes: a wrong value, a missing package or file
    model, data, training = made
    return RunArguments(model, data, training, options)


def _read_options(argv: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command line that differ from the defaults, by name."""
    parser = RunParser()
    words = list(argv)
    defaults = dict(vars(parser.parse_args([])))
    words_of_file: list[str] = []
    if words and words[0].startswith(f"{_RECIPE}:"):
        try:
            words[0] = str(find_settings(words[0], _RECIPE, Path(__file__).with_name("recipes")))
        except FileNotFoundError as error:
            parser.error(plain_text(error))
    if words and words[0].endswith(_CONFIG_SUFFIXES):
        words_of_file = _words_of_file(Path(words.pop(0)), parser)
    given, unknown = _parse(parser, words_of_file, words)
    if unknown:
        if not unknown[0].startswith("-"):
            parser.error(
                f"unknown argument {unknown[0]}: the only argument without an option is a configuration file "
                f"({', '.join(_CONFIG_SUFFIXES)}) or recipe:NAME, and it comes first"
            )
        _fail_unknown(parser, "option", unknown[0], [f"--{name}" for name in defaults])
    if given.resume_from_checkpoint is not None:
        from hf_gradalign.experiment.output_folder import run_folder  # slow: imports transformers' Trainer and datasets

        try:
            kept = run_folder(given.resume_from_checkpoint, given.output_dir) / ARGUMENTS_NAME
        except FileNotFoundError as error:
            parser.error(plain_text(error))
        if kept.is_file():
            words_of_run = _words_of(_restorable(_read_mapping(kept, parser)), kept, parser)
            parser.set_defaults(**defaults | vars(parser.parse_args(words_of_run)))
            given, _ = _parse(parser, words_of_file, words)
    return {name: value for name, value in vars(given).items() if value != defaults[name]}


def is_never_restored(name: str, value: Any) -> bool:
    """Return whether only the user may set an option, not a run's folder, because it runs code or sends data elsewhere.

    Args:
        name: Name of the option.
        value: Its value. An attention implementation with a slash is a kernel that is loaded from the Hub.
    """
    return (
        name in (*_OF_ONE_START, "trust_remote_code", "report_to", "push_to_hub")
        or name.startswith(("hub_", "push_to_hub_", "trackio_"))
        or (name == "attention_implementation" and "/" in str(value))
    )


def describe_resumed(options: Mapping[str, Any], folder: str | Path) -> str:
    """Describe what a resumed run takes from `run_arguments.json` in its folder; empty without that file.

    Args:
        options: Values by option (`RunArguments.options`).
        folder: The folder of the run that is resumed.
    """
    path = Path(folder, ARGUMENTS_NAME)
    if not path.is_file():
        return ""
    kept = _read_mapping(path, RunParser())
    taken = {name: value for name, value in _restorable(kept).items() if _word(value) == _word(options.get(name))}
    left = {name: value for name, value in kept.items() if is_never_restored(name, value) and name not in _OF_ONE_START}
    text = f"Taken from {path}: {join_command(_words(taken)) or 'nothing'}"
    if left:
        text += (
            f"\nNot taken from it: {join_command(_words(left))} (options that run code or send data elsewhere are "
            "taken only from the command line)"
        )
    return plain_text(text)


def resume_words(options: Mapping[str, Any], checkpoint: str) -> list[str]:
    """Return the command that resumes a run, with the options that its folder does not keep, but without a token."""
    alone = {n: v for n, v in options.items() if is_never_restored(n, v) and n not in _OF_ONE_START}
    return [*command("train").split(), "--resume_from_checkpoint", checkpoint, *_words(alone)]


def _restorable(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kept.items() if not is_never_restored(name, value)}


def _parse(parser: RunParser, words_of_file: list[str], words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    # The values of the file become the defaults of the command line, so an option that can be repeated replaces them.
    parser.set_defaults(**vars(parser.parse_args(words_of_file)))
    return parser.parse_known_args(words)


def keep_arguments(options: Mapping[str, Any], folder: str | Path) -> None:
    """Write the options of a run into its folder, so that it can be resumed."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_text_atomically(Path(folder, ARGUMENTS_NAME), arguments_json(options))


def arguments_json(options: Mapping[str, Any]) -> str:
    """Return the content of `run_arguments.json`."""
    return json.dumps(_restorable(options), indent=2) + "\n"


def command_words(options: Mapping[str, Any]) -> list[str]:
    """Return the command that starts a run, without its token, folders, checkpoint, name and Hub repository.

    Args:
        options: Values by option (`RunArguments.options`).

    Returns:
        Words for a shell.
    """
    mine = ("run_name", *_OF_ONE_START)
    shown = {
        n: v for n, v in options.items() if n not in mine and not n.startswith(("hub_", "push_to_hub", "trackio_"))
    }
    return [*command("train").split(), *_words(shown)]


def _words(options: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        words.append(f"--{name}")
        words += [_word(item) for item in value] if isinstance(value, list) and value else [_word(value)]
    return words


def _words_of_file(path: Path, parser: RunParser) -> list[str]:
    """Return the words of a configuration file, preceded by those of its `base` that it does not override."""
    require_reachable(path)
    if not path.is_file():
        parser.error(f"the configuration file {path} does not exist")
    content = _read_mapping(path, parser)
    inherited: list[str] = []
    if (base := content.pop(_BASE, None)) is not None:
        base_path = path.with_name(str(base))
        if not base_path.is_file():
            parser.error(f"{path}: the base configuration file {base_path} does not exist")
        shared = _read_mapping(base_path, parser)
        if _BASE in shared:
            parser.error(f"{base_path} is the base of {path}, so it cannot have a base itself")
        inherited = _words_of({n: v for n, v in shared.items() if n not in content}, base_path, parser)
    return [*inherited, *_words_of(content, path, parser)]


def _read_mapping(path: Path, parser: RunParser) -> dict[str, Any]:
    try:
        content = read_settings(path)
    except (ValueError, OSError) as error:
        parser.error(plain_text(error))
    if not isinstance(content, dict):
        parser.error(f"{path} must contain a mapping from options to values")
    return content


def _words_of(content: Mapping[str, Any], path: Path, parser: RunParser) -> list[str]:
    actions = parser.options
    words = []
    for name, value in content.items():
        if name not in actions:
            _fail_unknown(parser, f"key in {path}:", str(name), list(actions))
        if value is None or value == []:
            words += [f"--{name}", "none"] if parser.can_unset(name) else []
            continue
        words.append(f"--{name}")
        if isinstance(value, bool) and not parser.reads_switch(name):
            # YAML reads `no` as false. An option that may be given without a value (--align_gradients) can be true.
            words += [] if value else ["no" if name.endswith("_strategy") else "none"]
        elif isinstance(value, dict) and name in (*OF_CORPORA, "label_map"):
            words += _words_of_corpora(value, "=" if name == "label_map" else ":")
        else:
            if isinstance(value, list) and actions[name].nargs is None:
                value = ",".join(map(str, value))  # an option of one word takes commas, as in views: [clean, rawboost]
            words += [_word(item) for item in value] if isinstance(value, list) else [_word(value)]
    return words


def _words_of_corpora(values: Mapping[Any, Any], sign: str) -> list[str]:
    """Return `{CORPUS: VALUE}` as `CORPUS:VALUE`. A label map is `{LABEL: MEANING}`, or one of these per corpus."""
    words = []
    for key, value in values.items():
        if isinstance(value, dict):
            words += [f"{key}:{word}" for word in _words_of_corpora(value, sign)]
        else:
            words.append(f"{key}{sign}{value}")
    # A space before a leading dash keeps the word from looking like an option.
    return [f" {word}" if word.startswith("-") else word for word in words]


def _word(value: Any) -> str:
    if value is None or value == []:
        return "none"
    return json.dumps(value) if isinstance(value, dict) else str(getattr(value, "value", value))


def _fail_unknown(parser: RunParser, kind: str, name: str, known: Sequence[str]) -> NoReturn:
    parser.error(f"unknown {kind} {name}{did_you_mean(name, known)}")
