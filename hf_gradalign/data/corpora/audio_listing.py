"""Finds the audio files in a corpus' folders by name."""

from __future__ import annotations

import filecmp
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.audio import AudioDecodingError, read_sound
from hf_gradalign.data.arrow import Column, flat
from hf_gradalign.data.request import CorpusError
from hf_gradalign.utils.folder_listing import AUDIO_SUFFIXES, is_hidden, is_utf8
from hf_gradalign.utils.messages import first_few
from hf_gradalign.utils.plain_text import composed_column

logger = logging.getLogger(__name__)

# How many files with copies are compared. In a changed corpus, nearly all copies differ.
_COMPARED_COPIES = 8


class AudioListing:
    """Lists the audio files in folders (without subfolders) to find them by name. Checking each file takes minutes.

    Args:
        folders: The folders. Files in earlier folders win over files of the same name in later ones.

    Attributes:
        folders: The folders, without links to one another.
        names: The files' names without extension.
        paths: The files.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        by_place: dict[str, Path] = {}
        for folder in folders:
            by_place.setdefault(os.path.realpath(folder), folder)
        self.folders = list(by_place.values())
        names, paths = [], []
        for folder in self.folders:
            files = _list_audio(folder)
            prefix = f"{folder.as_posix()}/"
            names.append(pc.replace_substring_regex(files, r"\.[^.]*$", ""))
            paths.append(pc.binary_join_element_wise(prefix, files, ""))
        self._by_folder = list(zip(names, paths, strict=True))
        self.names = pa.concat_arrays(names) if names else pa.array([], pa.string())
        self.paths = pa.concat_arrays(paths) if paths else pa.array([], pa.string())

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, names: Column) -> pa.Array:
        """Return the files with these names; null for missing files.

        Raises:
            CorpusError: If files of the same name in different folders differ, so that it is unclear which is meant.
        """
        names = flat(names)
        self._refuse_differing_copies(names)
        indices = pc.index_in(names, value_set=self.names)
        if indices.null_count:
            # macOS decomposes characters in file names.
            others = pc.index_in(composed_column(names), value_set=composed_column(self.names))
            indices = pc.coalesce(indices, others)
        return self.paths.take(indices)

    def warn_about_others(self, names: Column, source: str) -> None:
        """Warn about files that are not among `names`, for layouts in which all should be.

        Args:
            names: The names without extension in the protocol.
            source: The protocol, for the message.
        """
        is_named = pc.is_in(self.names, value_set=flat(names))
        if not pc.all(is_named).as_py():
            is_named = pc.is_in(composed_column(self.names), value_set=composed_column(flat(names)))
        warn_about_left_out(self.paths.filter(pc.invert(is_named)).to_pylist(), len(self), source)

    def _refuse_differing_copies(self, names: pa.Array) -> None:
        for number, (first_names, first_paths) in enumerate(self._by_folder):
            wanted = pc.is_in(first_names, value_set=names) if self._by_folder[number + 1 :] else None
            for other_names, other_paths in self._by_folder[number + 1 :]:
                both = np.flatnonzero(pc.and_(wanted, pc.is_in(first_names, value_set=other_names)))
                compared = both[:: max(len(both) // _COMPARED_COPIES, 1)]
                others = other_paths.take(pc.index_in(first_names.take(compared), value_set=other_names))
                pairs = zip(first_paths.take(compared).to_pylist(), others.to_pylist(), strict=True)
                if (different := next((pair for pair in pairs if not _have_equal_content(*pair)), None)) is not None:
                    raise CorpusError(
                        f"{len(both)} audio files are in two folders and differ, such as {different[0]} and "
                        f"{different[1]}. Name a folder that contains only the copy you mean."
                    )


def warn_about_left_out(files: Sequence[str], n_files: int, source: str) -> None:
    """Warn about audio files that `source` (the metadata or protocol) does not name."""
    if files:
        message = "%d of %d audio files are not in %s and are left out: %s."
        logger.warning(message, len(files), n_files, source, first_few(files))


def _list_audio(folder: Path) -> pa.Array:
    """Return the sorted names of a folder's audio files, preferred extensions first. Empty if it cannot be listed."""
    by_suffix: dict[str, list[str]] = {suffix: [] for suffix in AUDIO_SUFFIXES}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                group = by_suffix.get(os.path.splitext(entry.name)[1].lower())
                if group is not None and not is_hidden(entry.name) and is_utf8(entry.name):
                    group.append(entry.name)
    except OSError:
        pass
    return pa.array([name for names in by_suffix.values() for name in sorted(names)], pa.string())


def _have_equal_content(first: str, second: str) -> bool:
    try:
        return filecmp.cmp(first, second, shallow=False) or _have_equal_samples(first, second)
    except OSError:  # reported as bad audio later
        return True


def _have_equal_samples(first: str, second: str) -> bool:
    """Return whether two files contain the same samples, such as a FLAC file and a WAV file made from it."""
    try:
        sounds = [read_sound(path) for path in (first, second)]
    except AudioDecodingError:
        return False
    return sounds[0].rate == sounds[1].rate and np.array_equal(sounds[0].samples, sounds[1].samples)
