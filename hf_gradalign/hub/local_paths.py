"""Paths of this machine, cut to their last names in what others are to read."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

# In quotes, or between the tabs and line ends of a table, a path may hold blanks; elsewhere it ends at one.
_PATHS = (
    re.compile(r"(?<=\")/[^\"\n]+(?=\")"),
    re.compile(r"(?<=')/[^'\n]+(?=')"),
    re.compile(r"(?:(?<=\t)|(?<=^))/[^\t\n]+(?=\t|$)", re.MULTILINE),
    re.compile(r"(?:(?<=file://)|(?<![\w./~)\]<]))/(?!/)[^\s\"'`|,;:)\]}>]+"),
)


# Files that people and runs write; those of a model's words and code are left as they are.
_TEXTS = {".json", ".jsonl", ".md", ".txt", ".tsv", ".csv", ".yaml", ".yml", ".log"}
_OF_THE_MODEL = re.compile(r"vocab|merges|token|\.index\.json$")
_BYTES = 200_000_000


def files_with_local_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """Those of the files that name absolute paths of this machine, and their text without these."""
    found = {}
    for path in paths:
        is_text = path.suffix in _TEXTS and not _OF_THE_MODEL.search(path.name)
        if not is_text or path.stat().st_size > _BYTES or ".eval_results" in path.parts:  # whose hash is on record
            continue
        with contextlib.suppress(UnicodeDecodeError):
            text = path.read_bytes().decode("utf-8")
            if (clean := without_local_paths(text)) != text:
                found[path] = clean
    return found


def without_local_paths(text: str) -> str:
    """Text in which absolute paths of this machine are cut to their last names.

    What looks like a path and begins with no folder that is here (an address's, `/` between words) stays.
    """
    for pattern in _PATHS:
        text = pattern.sub(_last_name, text)
    return text


def _last_name(match: re.Match[str]) -> str:
    path = match[0]
    folder, *below = path.strip("/").split("/")
    return below[-1] if below and os.path.isdir(f"/{folder}") else path


__all__ = ["files_with_local_paths", "without_local_paths"]
