"""The commands by name, and as the user calls them: `hf-gradalign score`, or in a clone the script."""

import re
import sys
from pathlib import Path

SCRIPTS = {
    "train": "run_audio_spoof.py",
    "score": "score_audio_spoof.py",
    "evaluate": "evaluate_scores.py",
    "convert": "convert_checkpoint.py",
    "export": "export_onnx.py",
    "study": "run_study.py",
    "report": "report_study.py",
    "plot-conflicts": "plot_conflicts.py",
    "arena": "write_arena_results.py",
}
"""Each command's script in a clone."""

_COMMANDS = {script: name for name, script in SCRIPTS.items()}
_SCRIPT = re.compile(rf"(?:python )?\b(?:scripts/)?({'|'.join(map(re.escape, _COMMANDS))})\b")


def uses_scripts() -> bool:
    """Whether the user runs scripts of a clone, and not the installed command `hf-gradalign`."""
    program = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path()
    if program.stem == "hf-gradalign" or program.parent.name == "cli":
        return False
    return (Path(__file__).parents[1] / "scripts" / SCRIPTS["train"]).is_file()


def command(name: str) -> str:
    """A command as the user would type it, such as `hf-gradalign score`."""
    return f"python scripts/{SCRIPTS[name]}" if uses_scripts() else f"hf-gradalign {name}"


def program(name: str) -> str:
    """A command's name for its `--help`."""
    return SCRIPTS[name] if uses_scripts() else f"hf-gradalign {name}"


def in_users_words(text: str) -> str:
    """A text that names scripts, with the commands that the user has."""
    if uses_scripts():
        return text
    text = _SCRIPT.sub(lambda match: f"hf-gradalign {_COMMANDS[match[1]]}", text)
    text = re.sub(r"\bscripts/recipes/(\w+)\.yaml", r"recipe:\1", text)
    return re.sub(r"\bscripts/studies/(\w+)\.yaml", r"study:\1", text)


__all__ = ["SCRIPTS", "command", "in_users_words", "program", "uses_scripts"]
