"""A tiny detector that tells the page's example of genuine speech from that of fake speech, without training."""

import numpy as np
import torch
from tiny_detectors import make_detector

from hf_gradalign.data.decoding import decode_audio

WINDOW = 8000
# Calibrated on paper only: the page must show what a configuration says.
CALIBRATION = {"method": "affine", "prior": 0.5, "slope": 1.5, "offset": 0.0, "n_bonafide": 64, "n_spoof": 70}


def windows_of(path):
    samples = decode_audio(str(path), 16_000)
    last = len(samples) - WINDOW
    return torch.tensor(np.stack([samples[start : start + WINDOW] for start in (*range(0, last, WINDOW), last)]))


def make_telling_detector(genuine, fake, calibration=None):
    """Scores are above 0 for the windows of one recording, and below for those of another, by their paths."""
    model = make_detector(n_samples=WINDOW)
    clips = [windows_of(genuine), windows_of(fake)]
    features = []
    handle = model.head.classifier.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].double()))
    with torch.no_grad():
        model(
            **model.make_feature_extractor()(list(torch.cat(clips).numpy()), sampling_rate=16_000, return_tensors="pt")
        )
    handle.remove()
    (rows,) = features
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)
    wanted = torch.cat([torch.full((len(clip),), sign) for clip, sign in zip(clips, (4.0, -4.0), strict=True)])
    # Small singular values are left out: large weights would cancel, and round scores coarsely.
    solution = torch.linalg.pinv(rows, rtol=1e-3) @ wanted.double()
    with torch.no_grad():
        for row, sign in ((0, -0.5), (1, 0.5)):
            model.head.classifier.weight[row] = sign * solution[:-1]
            model.head.classifier.bias[row] = sign * solution[-1]
    if calibration is not None:
        model.config.calibration = calibration
    return model
