"""Folders and small files below a corpus' root, each folder listed at most once and audio folders not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hf_gradalign.folder_listing import is_hidden

MAX_DEPTH = 7
"""How many folders deep a corpus is looked for: keys/LA/CM/ in an archive in another one, and some to spare."""

# A wrong path, such as / or a home folder, should be told as wrong soon.
_MAX_FOLDERS = 20_000

# Hundreds of thousands of files each; they are listed when their split is asked for.
_AUDIO_FOLDERS = re.compile(r"flac|wavs?|flac_(T|D|E_eval|E_prog)|real", re.IGNORECASE)
_TEXT_SUFFIXES = {".txt", ".tsv", ".csv", ".trn", ".trl", ".yaml"}


class FolderTree:
    """What lies below a folder, one level more with every `deepen`.

    Args:
        root: the folder, or a file in it.

    Attributes:
        root: the folder.
        files: text files found so far, those nearest to the root first.
        folders: folders found so far, the root first.
    """

    def __init__(self, root: Path) -> None:
        self.root = root if root.is_dir() else root.parent
        self.files: list[Path] = []
        self.folders: list[Path] = [self.root]
        self._next = [self.root]
        self.depth = 0
        self.deepen()

    def deepen(self) -> bool:
        """List the next level; False where there is none, or none is looked at."""
        if not self._next or self.depth == MAX_DEPTH or len(self.folders) > _MAX_FOLDERS:
            return False
        level, self._next = self._next, []
        for folder in level:
            for name, is_folder in _entries(folder):
                if is_folder:
                    path = folder / name
                    self.folders.append(path)
                    if not _AUDIO_FOLDERS.fullmatch(name) and not is_hidden(name) and not _leads_back(path):
                        self._next.append(path)
                elif os.path.splitext(name)[1].lower() in _TEXT_SUFFIXES:
                    self.files.append(folder / name)
        self.depth += 1
        return True

    def file(self, *names: str) -> Path | None:
        """The first file that has one of these names, case aside; earlier names win."""
        by_name: dict[str, Path] = {}
        for path in self.files:
            by_name.setdefault(path.name.lower(), path)
        return next((by_name[name.lower()] for name in names if name.lower() in by_name), None)

    def described(self) -> str:
        """What lies at the root, for errors."""
        if not self.root.is_dir():
            return "no such folder"
        names = sorted(name + ("/" if is_folder else "") for name, is_folder in _entries(self.root))
        shown = ", ".join(names[:8]) or "nothing"
        return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _leads_back(path: Path) -> bool:
    """Whether a folder is a link to one that it lies in."""
    return path.is_symlink() and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(path))


def _entries(folder: Path) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return []
