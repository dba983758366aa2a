"""The parser of a command line, which explains typos."""

import argparse
import sys
from collections.abc import Collection, Iterable
from typing import Any

from hf_gradalign.utils.messages import did_you_mean, program, use_command_names


class CommandParser(argparse.ArgumentParser):
    """Parses a command's options and operands.

    Option names are never abbreviated. They may be written with hyphens instead of underscores (`--output-dir`).

    Args:
        name: The command, such as "score".
        description: What the command does, from the docstring of its module.
        operands: What it takes besides options, such as "SCORES [KEYS]".
    """

    def __init__(self, name: str, description: str | None, operands: str = "") -> None:
        command = program(name)
        super().__init__(
            prog=command,
            usage=" ".join(part for part in (command, operands, "[--option value ...]") if part),
            description=use_command_names(description or ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse the words of a command line. An unknown option is reported before a missing one."""
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        known = self._option_string_actions
        words[:end] = [self._spelled(word, known) for word in words[:end]]
        return super().parse_args(words, namespace)

    def _spelled(self, word: str, known: Collection[str]) -> str:
        """Return the word, with underscores in the name of an option."""
        if not word.startswith("--") or " " in word:
            return word
        name, equals, value = word.partition("=")
        spelled = "--" + name[2:].replace("-", "_")
        if spelled not in known:
            self.error(f"unknown option {name}{did_you_mean(spelled, known)}")
        return spelled + equals + value
