"""Audio files that do not belong to a corpus."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from datasets import Audio, Dataset

from hf_gradalign.data import CorpusError
from hf_gradalign.utils.files import require_reachable
from hf_gradalign.utils.folder_listing import is_utf8, list_folder, printable, similar_path
from hf_gradalign.utils.plain_text import stripped_text

_LISTED = 8


def list_audio_files(paths: Sequence[str | Path]) -> Dataset:
    """List files, and all audio files in folders and their subfolders, as a data set to score.

    Files given by name are always included. In folders, all files with an audio extension are included, even those that
    cannot be decoded, so that the scorer reports them as bad audio. Logs which other files are in a folder, and which
    are left out because their names are not UTF-8.

    Args:
        paths: Files and folders.

    Returns:
        A data set with the columns `audio` (not decoded) and `utterance_id`: a file's path as given, or its path
        relative to the folder (including the folder's name if there are several). Files that would have the same id,
        ignoring blanks or quotation marks around it, get their whole paths. A file that is given twice, even with
        different paths, is listed once.

    Raises:
        CorpusError: If a path does not exist or is not UTF-8, or a folder contains no audio.
    """
    names: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    real = lru_cache(maxsize=None)(os.path.realpath)

    def add(file: Path, name: str) -> None:
        identity = real(file.parent), file.name
        if identity not in seen:
            seen.add(identity)
            names[str(file)] = name

    if unnamable := [printable(path) for path in paths if not is_utf8(path)]:
        raise CorpusError(
            f"{', '.join(unnamable[:_LISTED])}: the name is not UTF-8, so it cannot be in a score file. Rename it, for "
            "example with convmv"
        )
    n_folders = sum(Path(path).is_dir() for path in paths)
    for path in map(Path, paths):
        require_reachable(path)
        if path.is_file():
            add(path, path.as_posix())
        elif path.is_dir():
            listing = list_folder(path)
            listing.log_left_out()
            if not listing.audio:
                raise CorpusError(f"{path} contains no audio files (no .wav, .flac, .mp3, .m4a or the like)")
            root = path if n_folders == 1 else path.parent
            for file in listing.audio:
                add(file, file.relative_to(root).as_posix())
        else:
            raise CorpusError(f"{path} does not exist (looked for {path.absolute()}).{similar_path(path)}")
    composed = {path: unicodedata.normalize("NFC", name) for path, name in names.items()}  # like key tables
    counts = Counter(map(stripped_text, composed.values()))
    ids = [path if counts[stripped_text(name)] > 1 else name for path, name in composed.items()]
    if len(set(ids)) < len(ids):  # a whole path is the same as another file's name
        ids = list(names)
    return Dataset.from_dict({"audio": list(names), "utterance_id": ids}).cast_column("audio", Audio(decode=False))
