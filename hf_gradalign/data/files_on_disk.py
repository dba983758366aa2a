"""Where many files are, from one listing of each folder."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.data.text_values import comparable


def find_on_disk(paths: pa.Array) -> pa.Array:
    """The files' paths as they are on disk, null where there is none.

    A file that is not there under its very name is looked for without blanks and quotes around the name and in any
    Unicode form, since macOS writes `ü` as two characters, and with slashes for backslashes; where several files fit,
    it is none of them.

    Args:
        paths: strings, shape (N,). Null (nothing to look for) stays, as does what has a protocol (`hf://...`).

    Returns:
        Strings, shape (N,).
    """
    is_local = pc.fill_null(pc.invert(pc.match_substring(paths, "://")), False)
    local = pc.filter(paths, is_local)
    there = [_files_in(folder) for folder in pc.unique(pc.replace_substring_regex(local, r"[^/]*$", "")).to_pylist()]
    there = pa.concat_arrays(there) if there else pa.array([], pa.string())
    is_absent = pc.and_(is_local, pc.invert(pc.is_in(paths, value_set=there)))
    if not pc.any(is_absent).as_py():
        return paths
    entries = cache(_entries_by_name)
    found = [_find(path, entries) for path in paths.filter(is_absent).to_pylist()]
    return pc.replace_with_mask(paths, is_absent, pa.array(found, pa.string()))


def as_on_disk(path: Path) -> Path:
    """A file's or folder's path as it is on disk, in whichever Unicode form; the path itself where there is none."""
    if path.exists():
        return path
    entries = cache(_entries_by_name)
    found = _find(str(path), entries) or _find(str(path), entries, is_folder=True)
    return path if found is None else Path(found)


def _files_in(prefix: str) -> pa.Array:
    try:
        with os.scandir(prefix or ".") as entries:
            names = pa.array([entry.name for entry in entries if not entry.is_dir()], pa.string())
    except OSError:
        return pa.array([], pa.string())
    return pc.binary_join_element_wise(prefix, names, "")


def _find(path: str, entries: Callable[[str], Mapping[str, list[str]]], *, is_folder: bool = False) -> str | None:
    """The one file, or folder, that a path means, None where there is none."""
    folder, name = os.path.split(path)
    if folder and not os.path.isdir(folder):
        folder = _find(folder, entries, is_folder=True) if os.path.dirname(folder) != folder else None
        if folder is None:
            return None
    fitting = [os.path.join(folder, entry) for entry in entries(folder or ".").get(_comparable(name), ())]
    fitting = [entry for entry in fitting if os.path.isdir(entry) == is_folder]
    if not fitting and "\\" in path:
        return _find(path.replace("\\", "/"), entries, is_folder=is_folder)
    return fitting[0] if len(fitting) == 1 else None


def _entries_by_name(folder: str) -> dict[str, list[str]]:
    by_name: dict[str, list[str]] = defaultdict(list)
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    for name, key in zip(names, comparable(pa.array(names, pa.string())).to_pylist(), strict=True):
        by_name[key].append(name)
    return by_name


def _comparable(name: str) -> str:
    return comparable(pa.array([name], pa.string()))[0].as_py()
