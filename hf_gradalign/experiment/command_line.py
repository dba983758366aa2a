"""A run's arguments from the command line, a configuration file, or both."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments, DataArguments, ModelArguments

_CONFIG_SUFFIXES = (".json", ".yaml", ".yml")


def parse_arguments(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, AudioSpoofTrainingArguments]:
    """Parse `[CONFIG.yaml|CONFIG.json] [--option value ...]`; options win over the file.

    A mistake (unknown option or key, wrong value, missing file) ends the program with status 2 and a message, as
    argparse does.
    """
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, AudioSpoofTrainingArguments),
        allow_abbrev=False,
        usage="%(prog)s [CONFIG.yaml | CONFIG.json] [--option value ...]",
        description="Train a speech deepfake detector on clean and augmented views with aligned gradients.",
    )
    arguments = list(argv)
    try:
        if arguments and arguments[0].endswith(_CONFIG_SUFFIXES):
            parser.set_defaults(**_read_config(Path(arguments.pop(0)), _known_options(parser)))
        *parsed, unknown = parser.parse_args_into_dataclasses(
            arguments, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:
        parser.error(str(error))
    if unknown:
        parser.error(_unknown("argument", unknown[0], [f"--{name}" for name in _known_options(parser)]))
    return tuple(parsed)


def _known_options(parser: HfArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions if action.dest != "help"]


def _read_config(path: Path, known: Sequence[str]) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"there is no configuration file {path}")
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping from options to values")
    for key in content:
        if key not in known:
            raise ValueError(f"{path}: {_unknown('key', str(key), known)}")
    # As on the command line, where --align_gradients needs no name.
    if isinstance(content.get("align_gradients"), bool):
        content["align_gradients"] = "pcgrad" if content["align_gradients"] else "none"
    return content


def _unknown(kind: str, name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"unknown {kind} {name}" + (f"; did you mean {' or '.join(close)}?" if close else "; see --help")
