"""A slow and direct RawBoost for comparison: SciPy's filter design, time-domain filtering, a loop over impulses."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from scipy import signal

import hf_gradalign
from hf_gradalign.augmentation.rawboost.noises import draw_impulses, draw_white_noise


def direct_notch_filter(notch, sample_rate):
    cascade = np.ones(1)
    for center, width, taps in zip(notch["center_freqs"], notch["bandwidths"], notch["taps"], strict=True):
        low = max(center - width / 2, 0.001)
        high = min(center + width / 2, sample_rate / 2 - 0.001)
        cascade = np.convolve(signal.firwin(taps, [low, high], window="hamming", fs=sample_rate), cascade)
    _, response = signal.freqz(cascade, 1, worN=512, fs=sample_rate)
    return 10 ** (notch["gain_db"] / 20) * cascade / np.abs(response).max()


def direct_filtering(samples, taps):
    start = (len(taps) + 1) // 2
    filtered = signal.lfilter(taps, 1, np.pad(samples, (0, len(taps) + 1)))
    return filtered[start : start + len(samples)]


def direct_convolutive(samples, notches, sample_rate):
    total = np.zeros(len(samples))
    for power, notch in enumerate(notches, start=1):
        total += direct_filtering(samples**power, direct_notch_filter(notch, sample_rate))
    total -= np.mean(total)
    return direct_limit(total)


def direct_impulsive(samples, percent, gain, seed):
    disturbed = samples.copy()
    for position, factor in zip(*draw_impulses(len(samples), percent, seed), strict=True):
        disturbed[position] = samples[position] + gain * samples[position] * factor
    return direct_limit(disturbed)


def direct_stationary(samples, notch, snr_db, seed, sample_rate):
    noise = draw_white_noise(len(samples), seed).numpy().astype(np.float64)
    noise = direct_filtering(noise, direct_notch_filter(notch, sample_rate))
    noise = noise / np.abs(noise).max()
    noise = noise / np.linalg.norm(noise) * np.linalg.norm(samples) / 10 ** (snr_db / 20)
    return samples + noise


def direct_limit(samples):
    peak = np.abs(samples).max()
    return samples / peak if peak > 1 else samples


def direct_rawboost(samples, transform, sample_rate):
    """Apply the parameters that `transform` holds to a mono clip."""
    drawn = transform.parameters

    def first(x):
        return direct_convolutive(x, drawn["convolutive"]["notches"], sample_rate)

    def second(x):
        impulsive = drawn["impulsive"]
        return direct_impulsive(x, impulsive["percent"], transform.impulsive_gain, impulsive["seed"])

    def third(x):
        stationary = drawn["stationary"]
        return direct_stationary(x, stationary["notch"], stationary["snr_db"], stationary["seed"], sample_rate)

    x = samples.astype(np.float64)
    return {
        1: lambda: first(x),
        2: lambda: second(x),
        3: lambda: third(x),
        4: lambda: third(second(first(x))),
        5: lambda: second(first(x)),
        6: lambda: third(first(x)),
        7: lambda: third(second(x)),
        8: lambda: direct_limit(first(x) + second(x)),
    }[transform.algorithm]()


@pytest.fixture(scope="session")
def direct():
    return SimpleNamespace(
        notch_filter=direct_notch_filter,
        filtering=direct_filtering,
        convolutive=direct_convolutive,
        impulsive=direct_impulsive,
        stationary=direct_stationary,
        rawboost=direct_rawboost,
    )


@pytest.fixture
def notch():
    """A drawn filter, as RawBoost's defaults would draw it at 16 kHz."""
    return {
        "center_freqs": [120.0, 1400.0, 3300.0, 5200.0, 7900.0],  # the first and the last reach over the edges
        "bandwidths": [400.0, 100.0, 730.0, 1000.0, 900.0],
        "taps": [11, 99, 45, 63, 31],
        "gain_db": -7.5,
    }


@pytest.fixture(scope="session")
def speech():
    """Float32 clips of real speech at 16 kHz, about 2 to 4 s each."""
    path = Path(hf_gradalign.__file__).parent / "data" / "demo_corpus" / "test.parquet"
    clips = []
    for audio in pq.read_table(path, columns=["audio"]).slice(0, 4)["audio"].to_pylist():
        samples, sample_rate = soundfile.read(io.BytesIO(audio["bytes"]), dtype="float32")
        assert sample_rate == 16000
        clips.append(samples)
    return clips
