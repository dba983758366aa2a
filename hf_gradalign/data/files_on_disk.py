"""Which of many paths are there, from one listing of each folder."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.compute as pc


def files_on_disk(paths: pa.Array) -> pa.Array:
    """Whether each file is on disk.

    Args:
        paths: strings, shape (N,). Null (nothing to look for) and what has a protocol (`hf://...`) count as there.

    Returns:
        Booleans, shape (N,).
    """
    is_local = pc.fill_null(pc.invert(pc.match_substring(paths, "://")), False)
    local = pc.filter(paths, is_local)
    there = [_files_in(folder) for folder in pc.unique(pc.replace_substring_regex(local, r"[^/]*$", "")).to_pylist()]
    if not there:
        return pa.repeat(True, len(paths))
    return pc.or_(pc.is_in(paths, value_set=pa.concat_arrays(there)), pc.invert(is_local))


def _files_in(prefix: str) -> pa.Array:
    try:
        with os.scandir(prefix or ".") as entries:
            names = pa.array([entry.name for entry in entries if not entry.is_dir()], pa.string())
    except OSError:
        return pa.array([], pa.string())
    return pc.binary_join_element_wise(prefix, names, "")
