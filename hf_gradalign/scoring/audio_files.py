"""Audio files without a corpus around them."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Audio, Dataset

from hf_gradalign.data import CorpusError

# What libsndfile decodes.
_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".caf", ".w64", ".au"}


def list_audio_files(paths: Sequence[str | Path]) -> Dataset:
    """Files, and all audio files in folders and below, as a data set to be scored.

    Args:
        paths: Files and folders.

    Returns:
        The columns `audio` (not decoded) and `utterance_id`: a file's path as it was given, and that of a file below a
        folder from there on (where there are several folders, with the folder's name).

    Raises:
        CorpusError: If a path is not there, or a folder holds no audio.
    """
    found: dict[str, str] = {}
    folders = [Path(path) for path in paths if Path(path).is_dir()]
    for path in map(Path, paths):
        if path.is_file():
            found[str(path)] = str(path)
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
            if not files:
                raise CorpusError(f"{path} holds no audio files ({', '.join(sorted(_SUFFIXES))})")
            root = path if len(folders) == 1 else path.parent
            found.update({str(file.relative_to(root)): str(file) for file in files})
        else:
            raise CorpusError(f"there is no file or folder {path} (looked for {path.absolute()})")
    audio = Dataset.from_dict({"audio": list(found.values()), "utterance_id": list(found)})
    return audio.cast_column("audio", Audio(decode=False))
