"""The demo corpus as files on a disk."""

from pathlib import Path

import datasets
from datasets import Dataset

from hf_gradalign.data import load_corpus


def write_corpus(folder: Path, count: int | None = None) -> Dataset:
    """Write the clips of the training split to files, as they are encoded, and return a dataset of their paths.

    Args:
        folder: Folder for the files.
        count: Number of clips, evenly chosen; None for all.
    """
    clips = load_corpus()["train"].cast_column("audio", datasets.Audio(decode=False))
    if count is not None and count < len(clips):
        clips = clips.select([index * len(clips) // count for index in range(count)])
    paths = []
    for index, audio in enumerate(clips["audio"]):
        suffix = Path(audio["path"] or "clip.flac").suffix
        paths.append(folder / f"{index:05d}{suffix}")
        paths[-1].write_bytes(audio["bytes"])
    rows = {name: clips[name][:] for name in ("utterance_id", "label")}
    files = Dataset.from_dict({"audio": [str(path) for path in paths], **rows})
    return files.cast_column("audio", datasets.Audio(decode=False)).cast_column("label", clips.features["label"])
