"""Bring a clip to a level, for what depends on it: RawBoost's distortion grows with powers of the waveform."""

import numpy as np


def scale_to_rms(samples: np.ndarray, rms: float) -> np.ndarray:
    """Scale a waveform so that its root mean square is `rms`.

    Args:
        samples: float32, shape (time,).
        rms: the level, above 0; 0.1 leaves speech some headroom below 1.

    Returns:
        A float32 array of the same shape; silence stays silence.
    """
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0
    return samples if level == 0 else (samples * (rms / level)).astype(np.float32)
