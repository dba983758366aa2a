"""Audio files without a corpus around them."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from datasets import Audio, Dataset

from hf_gradalign.data import CorpusError
from hf_gradalign.utils.folder_listing import list_folder


def list_audio_files(paths: Sequence[str | Path]) -> Dataset:
    """Files, and all audio files in folders and below, as a data set to be scored.

    Files given by name are taken as they are. Of folders every file with the ending of an audio file is taken, also
    of formats that cannot be decoded, so that the scorer lists them as bad audio; the log says what else there is.

    Args:
        paths: Files and folders.

    Returns:
        The columns `audio` (not decoded) and `utterance_id`: a file's path as it was given, and that of a file below a
        folder from there on (where there are several folders, with the folder's name). Files that would share an id
        have their whole paths; the same file is taken once, however its path is written.

    Raises:
        CorpusError: If a path is not there, or a folder holds no audio.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    real = lru_cache(maxsize=None)(os.path.realpath)

    def add(file: Path, name: str) -> None:
        place = real(file.parent), file.name
        if place not in seen:
            seen.add(place)
            found[str(file)] = name

    n_folders = sum(Path(path).is_dir() for path in paths)
    for path in map(Path, paths):
        if path.is_file():
            add(path, str(path))
        elif path.is_dir():
            listing = list_folder(path)
            listing.tell()
            if not listing.audio:
                raise CorpusError(f"{path} holds no audio files (no .wav, .flac, .mp3, .m4a or the like)")
            root = path if n_folders == 1 else path.parent
            for file in listing.audio:
                add(file, str(file.relative_to(root)))
        else:
            raise CorpusError(f"there is no file or folder {path} (looked for {path.absolute()})")
    composed = {path: unicodedata.normalize("NFC", name) for path, name in found.items()}  # as in tables of keys
    counts = Counter(composed.values())
    ids = [path if counts[name] > 1 else name for path, name in composed.items()]
    if len(set(ids)) < len(ids):  # a whole path is what another file is called
        ids = list(found)
    return Dataset.from_dict({"audio": list(found), "utterance_id": ids}).cast_column("audio", Audio(decode=False))
