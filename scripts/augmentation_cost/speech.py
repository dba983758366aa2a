"""Real speech to measure with."""

import io

import numpy as np
import pyarrow.parquet as pq
import soundfile

from hf_gradalign.data import demo_corpus_files

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
