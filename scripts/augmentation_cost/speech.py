"""Real speech to measure with: the demo corpus, in memory or as files on a disk."""

import io
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import soundfile
from datasets import Dataset

from hf_gradalign.data import demo_corpus_files, load_corpus

SAMPLE_RATE = 16_000


def demo_clips(n_samples: int, count: int = 8) -> list[np.ndarray]:
    """Clips of the demo corpus' test split, repeated to a length and scaled to peak 1.

    Args:
        n_samples: The length.
        count: How many clips.

    Returns:
        Float32 arrays of shape (n_samples,).
    """
    rows = pq.read_table(demo_corpus_files()["test"], columns=["audio"]).slice(0, count)["audio"].to_pylist()
    clips = [soundfile.read(io.BytesIO(audio["bytes"]), dtype="float32")[0] for audio in rows]
    return [np.resize(clip / np.abs(clip).max(), n_samples) for clip in clips]


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
