"""Clips for tests of the scorer."""

import io

import numpy as np
import soundfile

RATE = 16_000
WINDOW = 3200


def encode(samples):
    """A WAV file's bytes, the same whenever it is written."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    content = bytearray(file.getvalue())
    time = content.index(b"PEAK") + 12  # libsndfile notes down the second
    content[time : time + 4] = bytes(4)
    return bytes(content)


def draw_clip(seed, n_samples):
    return 0.1 * np.random.default_rng(seed).standard_normal(n_samples).astype(np.float32)
