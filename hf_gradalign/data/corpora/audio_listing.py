"""The audio files of a corpus by name, from one listing of each folder: a look at every file takes minutes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.folder_listing import AUDIO_SUFFIXES, is_hidden


class AudioListing:
    """Audio files in some folders, not in folders below them.

    Args:
        folders: where to look; a file in an earlier folder wins over one of the same name in a later one.

    Attributes:
        names: the files' names without their endings.
        paths: the files.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(folders)
        names, paths = [], []
        for folder in self.folders:
            found = list_audio(folder)
            prefix = f"{folder}{os.sep}"
            names.append(pc.replace_substring_regex(found, r"\.[^.]*$", ""))
            paths.append(pc.binary_join_element_wise(prefix, found, ""))
        self.names = pa.concat_arrays(names) if names else pa.array([], pa.string())
        self.paths = pa.concat_arrays(paths) if paths else pa.array([], pa.string())

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, names: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The files of these names, null where there is none."""
        names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
        places = pc.index_in(names, value_set=self.names)
        if places.null_count:
            # In Unicode's composed form: macOS writes two characters for one.
            composed = pc.utf8_normalize(self.names, form="NFC")
            others = pc.index_in(pc.utf8_normalize(names, form="NFC"), value_set=composed)
            places = pc.coalesce(places, others)
        return self.paths.take(places)


def list_audio(folder: Path) -> pa.Array:
    """The names of the audio files in a folder, sorted, preferred endings first; none if it cannot be listed."""
    by_suffix: dict[str, list[str]] = {suffix: [] for suffix in AUDIO_SUFFIXES}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = by_suffix.get(os.path.splitext(entry.name)[1].lower())
                if found is not None and not is_hidden(entry.name):
                    found.append(entry.name)
    except OSError:
        pass
    return pa.array([name for names in by_suffix.values() for name in sorted(names)], pa.string())
