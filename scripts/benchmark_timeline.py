#!/usr/bin/env python
"""Measure what a timeline costs if windows share nothing, convolutions, or the encoder, and what that does to scores.

python scripts/benchmark_timeline.py
python scripts/benchmark_timeline.py --size base --seconds 10 --rounds 2

The models have random weights, and the recording is noise. All variants alternate in one process, and ratios are taken
within each round. Times are CPU times of this process, which other processes on the machine change little.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from benchmark_step import print_table, spread
from transformers import Wav2Vec2Config

from hf_gradalign.models import (
    SpoofDetectorConfig,
    SpoofDetectorFeatureExtractor,
    SpoofDetectorForAudioClassification,
    architecture_config,
    small_wav2vec2_config,
)
from hf_gradalign.scoring import SpoofScorer, Timeline, timeline
from hf_gradalign.scoring.window_sharing import SeparateWindows

RATE = 16_000
SEPARATE = "separate windows"


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables and return the exit status."""
    options = parse(words)
    torch.set_num_threads(options.threads)
    generator = np.random.default_rng(0)
    recording = np.asarray(generator.uniform(-0.3, 0.3, round(options.seconds * RATE)), np.float32)
    print(
        f"A recording of {options.seconds:g} s, windows of {options.window_seconds:g} s every {options.hop_seconds:g} "
        f"s, {options.threads} threads, {options.rounds} rounds. Medians (and quartiles) of CPU times."
    )
    for name, config in models(options.size).items():
        torch.manual_seed(0)
        model = SpoofDetectorForAudioClassification(config)
        scorer = SpoofScorer(model, SpoofDetectorFeatureExtractor(), batch_size=options.batch_size)
        rows = measure(scorer, recording, options)
        print(f"\n{name}, {model.num_parameters() / 1e6:.1f}M parameters:\n")
        print_table(["", "seconds", "of separate windows", "largest difference of scores"], rows)
    return 0


def models(size: str) -> dict[str, SpoofDetectorConfig]:
    """Return the configurations to measure."""
    encoder = {
        "small": small_wav2vec2_config,
        "base": lambda **norm: Wav2Vec2Config(**norm, apply_spec_augment=False, layerdrop=0.0),
    }[size]
    layer_norm = {"feat_extract_norm": "layer", "conv_bias": True}
    return {
        f"wav2vec 2.0 ({size}), layer norm, linear head": SpoofDetectorConfig(encoder(**layer_norm), "linear"),
        f"wav2vec 2.0 ({size}), layer norm, AASIST head": SpoofDetectorConfig(encoder(**layer_norm), "aasist"),
        f"wav2vec 2.0 ({size}), group norm, linear head": SpoofDetectorConfig(encoder(), "linear"),
        "AASIST on the waveform": architecture_config("aasist"),
    }


def measure(scorer: SpoofScorer, recording: np.ndarray, options: argparse.Namespace) -> list[list[str]]:
    """Return a row for each way to score a recording."""
    how: dict[str, Any] = {"window_seconds": options.window_seconds, "hop_seconds": options.hop_seconds}

    def separate() -> Timeline:
        with mock.patch.object(timeline, "window_scoring", lambda scorer, length, *_: SeparateWindows(scorer, length)):
            return scorer.timeline(recording, **how)

    ways = {
        SEPARATE: separate,
        "as it is": lambda: scorer.timeline(recording, **how),
        "share_encoder": lambda: scorer.timeline(recording, **how, share_encoder=True),
    }
    scorer.timeline(recording[: 2 * round(options.window_seconds * RATE)], **how)  # warm-up
    times: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Timeline] = {}
    for _ in range(options.rounds):
        for name, run in ways.items():
            start = time.process_time()
            results[name] = run()
            times[name].append(time.process_time() - start)
    rows = []
    for name, seconds in times.items():
        ratios = [own / other for own, other in zip(seconds, times[SEPARATE], strict=True)]
        difference = np.abs(results[name].scores - results[SEPARATE].scores).max()
        shown = name if name == SEPARATE else f"{name} ({results[name].shared} shared)"
        rows.append([shown, spread(seconds, digits=2), spread(ratios), f"{difference:.2g}"])
    return rows


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "base"], default="small", help="size of the encoder (small)")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of the recording (20)")
    parser.add_argument("--window_seconds", type=float, default=4.0)
    parser.add_argument("--hop_seconds", type=float, default=0.1)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="at least 2 (3)")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
