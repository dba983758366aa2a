"""Finds audio files on disk in any spelling of their names, and reports missing files."""

from __future__ import annotations

import logging
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.data.arrow import flat, with_slashes
from hf_gradalign.data.request import CorpusError, OnMissingAudio
from hf_gradalign.utils.folder_listing import is_utf8
from hf_gradalign.utils.messages import check_choice
from hf_gradalign.utils.plain_text import comparable_column

logger = logging.getLogger(__name__)

_MAX_LISTED = 20


def find_on_disk(paths: pa.Array) -> pa.Array:
    """Find files, and return their paths as they are on disk; null for missing files.

    If a file does not exist under its exact name, the name is also tried without surrounding white space and quotes, in
    any Unicode form (macOS writes `ü` as two characters), and with slashes for backslashes. Ambiguous names count as
    missing. Each folder is listed once.

    Args:
        paths: Strings, shape (N,). Null and paths with a protocol (`hf://...`) stay unchanged.

    Returns:
        Strings, shape (N,). On Windows, with slashes.
    """
    paths = flat(with_slashes(paths))
    is_local = pc.fill_null(pc.invert(pc.match_substring(paths, "://")), False)
    local = pc.filter(paths, is_local)
    existing = [_files_in(folder) for folder in pc.unique(pc.replace_substring_regex(local, r"[^/]*$", "")).to_pylist()]
    existing = pa.concat_arrays(existing) if existing else pa.array([], pa.string())
    is_missing = pc.and_(is_local, pc.invert(pc.is_in(paths, value_set=existing)))
    if not pc.any(is_missing).as_py():
        return paths
    entries = cache(_entries_by_name)
    matches = [_find(path, entries) for path in paths.filter(is_missing).to_pylist()]
    return pc.replace_with_mask(paths, is_missing, flat(with_slashes(pa.array(matches, pa.string()))))


def as_on_disk(path: Path) -> Path:
    """Return the path of a file or folder in its Unicode form on disk. Missing paths are returned unchanged."""
    if path.exists():
        return path
    entries = cache(_entries_by_name)
    match = _find(str(path), entries) or _find(str(path), entries, is_folder=True)
    return path if match is None else Path(match)


class MissingAudio:
    """Collects the missing files of a corpus' splits, to report all of them at once.

    Args:
        display_name: The corpus' name for messages.
        on_missing_audio: `stop` raises for any missing file, `skip` leaves its clip out with a warning, `keep` ignores
            it.
    """

    def __init__(self, display_name: str, on_missing_audio: OnMissingAudio) -> None:
        check_choice("on_missing_audio", on_missing_audio, OnMissingAudio)
        self._display_name = display_name
        self._skips = on_missing_audio == "skip"
        self._keeps = on_missing_audio == "keep"
        self._reports: list[str] = []
        self._is_fatal = False

    def add(self, split: str, exists: pa.Array, files: pa.Array | pa.ChunkedArray) -> None:
        """Add a split's files.

        Args:
            split: The split's name.
            exists: Whether each file exists.
            files: The files' names, for messages.
        """
        missing = pc.invert(exists)
        n_missing = pc.sum(missing).as_py() or 0
        if n_missing == 0 or self._keeps:
            return
        names = pc.filter(files, missing).slice(0, _MAX_LISTED).to_pylist()
        more = f"\n  ... and {n_missing - _MAX_LISTED} more" if n_missing > _MAX_LISTED else ""
        listed = "\n".join(f"  {name}" for name in names)
        self._reports.append(f"{n_missing} of {len(exists)} audio files of the {split} split:\n{listed}{more}")
        self._is_fatal |= not self._skips or n_missing == len(exists)

    def report(self) -> None:
        """Raise, or warn, if files are missing.

        Raises:
            CorpusError: If there are any and `on_missing_audio` is `stop`, or if all files of a split are missing.
        """
        if not self._reports:
            return
        message = f"{self._display_name}: missing on disk are " + "\nand ".join(self._reports)
        if not self._is_fatal:
            logger.warning("%s\nThese clips are left out.", message)
            return
        hint = "" if self._skips else ", or leave out these clips with --on_missing_audio skip"
        raise CorpusError(f"{message}\nGet the files or correct the path{hint}.")


def _files_in(prefix: str) -> pa.Array:
    try:
        with os.scandir(prefix or ".") as entries:
            names = [entry.name for entry in entries if is_utf8(entry.name) and not entry.is_dir()]
    except OSError:
        return pa.array([], pa.string())
    return pc.binary_join_element_wise(prefix, pa.array(names, pa.string()), "")


def _find(path: str, entries: Callable[[str], Mapping[str, list[str]]], *, is_folder: bool = False) -> str | None:
    """Return the only file or folder that a path can mean; None if there is none or more than one."""
    folder, name = os.path.split(path)
    if folder and not os.path.isdir(folder):
        folder = _find(folder, entries, is_folder=True) if os.path.dirname(folder) != folder else None
        if folder is None:
            return None
    key = comparable_column(pa.array([name], pa.string()))[0].as_py()
    matches = [os.path.join(folder, entry) for entry in entries(folder or ".").get(key, ())]
    matches = [entry for entry in matches if os.path.isdir(entry) == is_folder]
    if not matches and "\\" in path:
        return _find(path.replace("\\", "/"), entries, is_folder=is_folder)
    if not matches and sys.platform == "win32" and (os.path.isdir if is_folder else os.path.isfile)(path):
        return path  # in another case
    return matches[0] if len(matches) == 1 else None


def _entries_by_name(folder: str) -> dict[str, list[str]]:
    by_name: dict[str, list[str]] = defaultdict(list)
    try:
        names = list(filter(is_utf8, os.listdir(folder)))
    except OSError:
        names = []
    for name, key in zip(names, comparable_column(pa.array(names, pa.string())).to_pylist(), strict=True):
        by_name[key].append(name)
    return by_name
