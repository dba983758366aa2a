"""Clips for tests of the scorer."""

import io

import numpy as np
import soundfile

RATE = 16_000
WINDOW = 3200


def encode(samples):
    """A WAV file's bytes."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def draw_clip(seed, n_samples):
    return 0.1 * np.random.default_rng(seed).standard_normal(n_samples).astype(np.float32)
