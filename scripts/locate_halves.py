#!/usr/bin/env python
"""Measure how well timelines locate the boundary in recordings that are half bona fide and half spoofed.

python scripts/locate_halves.py runs/demo
python scripts/locate_halves.py runs/demo --seed 1 --figure docs/images/timeline.webp

MODEL was trained on the demo corpus. Each recording joins a half of one speaker and a half of one spoofing system, in
either order. A half is one clip of at least 2 s, or 4 to 8 s of several clips. The latter also have joins between clips
that are not a boundary. The groups say which systems and speakers the model knows.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from benchmark_step import print_table

from hf_gradalign.data import decode_audio, load_corpus
from hf_gradalign.scoring import SpoofScorer, draw_timeline
from hf_gradalign.utils.figure_style import save_figures

RATE = 16_000
# The splits of bona fide and spoofed speech.
GROUPS = {
    "trained on these clips": ("train", "train"),
    "known systems, unknown speaker": ("validation", "validation"),
    "known systems, unknown speakers": ("test", "validation"),
    "unknown systems, unknown speaker": ("validation", "test"),
    "unknown systems, unknown speakers": ("test", "test"),
}
MIN_SECONDS = 2.0  # of a clip that is a half, so that a window of it alone fits
# Window, hop, and whether the encoder is shared.
DEFAULT = (None, None, False)
OTHER_SETTINGS = [(None, 0.1, False), (0.5, 0.1, False), (None, None, True)]  # only for one group, to save time
OF_OTHER_SETTINGS = "known systems, unknown speaker"

MakeHalf = Callable[[Sequence[np.ndarray], np.random.Generator], np.ndarray]


class Recording(NamedTuple):
    """A recording of two halves.

    Attributes:
        samples: At 16 kHz, shape (time,).
        boundary: Where the second half starts, in seconds.
        begins_bonafide: Whether the first half is bona fide.
    """

    samples: np.ndarray
    boundary: float
    begins_bonafide: bool


def main(words: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    options = parse(words)
    torch.set_num_threads(options.threads)
    scorer = SpoofScorer(options.model)
    rows = []
    for clips, make_half in HALVES.items():
        for group, splits in GROUPS.items():
            recordings = make_recordings(*splits, make_half, options.recordings, options.seed)
            settings = [DEFAULT, *(OTHER_SETTINGS if group == OF_OTHER_SETTINGS else [])]
            rows += [[clips, group, *measure(scorer, recordings, *setting)] for setting in settings]
    header = [
        "each half",
        "half bona fide, half spoofed",
        "window (s)",
        "hop (s)",
        "encoder",
        "recordings",
        "within one hop",
    ]
    header += ["within 0.5 s", "median error (s)", "windows of one half on the right side"]
    header += ["both halves on the right side", "of these within one hop"]
    print_table(header, rows)
    if options.figure is not None:
        sample = make_recordings("validation", "validation", several_clips, 1, options.seed)[0]
        timeline = scorer.timeline(sample.samples, RATE, hop_seconds=0.1)
        title = f"Boundary at {sample.boundary:.2f} s, found at {timeline.change_point().time:.2f} s"
        figure = draw_timeline(timeline, sample.samples, RATE, title=title)
        figure.axes[2].axvline(sample.boundary, color="black", linestyle=":", linewidth=1)
        save_figures({options.figure.stem: figure}, options.figure.parent, [options.figure.suffix])
    return 0


def measure(
    scorer: SpoofScorer, recordings: Sequence[Recording], window: float | None, hop: float | None, shared: bool
) -> list[str]:
    """Return a row of the table."""
    errors, right, known = [], [], []
    for recording in recordings:
        timeline = scorer.timeline(
            recording.samples, RATE, window_seconds=window, hop_seconds=hop, share_encoder=shared
        )
        errors.append(abs(timeline.change_point().time - recording.boundary))
        pure = (timeline.ends <= recording.boundary) | (timeline.starts >= recording.boundary)
        is_bonafide = (timeline.centers < recording.boundary) == recording.begins_bonafide
        right += list(((timeline.scores >= 0) == is_bonafide)[pure])
        halves = [timeline.scores[pure & (is_bonafide == value)].mean() for value in (True, False)]
        known.append(halves[0] >= 0 > halves[1])
    first = timeline.starts[1]

    def within(limit: float, errors: Sequence[float] = errors) -> str:
        count = sum(error <= limit + 1e-6 for error in errors)
        return f"{count} ({count / max(len(errors), 1):.0%})"

    length = f"{timeline.ends[0]:g}"
    settings = [length, f"{first:g}", timeline.shared if shared else "per window", str(len(errors))]
    of_known = [error for error, is_known in zip(errors, known, strict=True) if is_known]
    rates = [within(first), within(0.5), f"{np.median(errors):.2f}", f"{np.mean(right):.0%}"]
    return [*settings, *rates, str(len(of_known)), within(first, of_known)]


def make_recordings(
    bonafide_split: str, spoof_split: str, make_half: MakeHalf, number: int, seed: int
) -> list[Recording]:
    """Join clips of the demo corpus: speakers and systems in turn, clips and durations at random."""
    generator = np.random.default_rng(seed)
    speakers = clips_by("speaker", bonafide_split, is_bonafide=True)
    systems = clips_by("system", spoof_split, is_bonafide=False)
    recordings = []
    for index in range(number):
        halves = [make_half(of[index % len(of)], generator) for of in (speakers, systems)]
        begins_bonafide = bool(generator.integers(2))
        first, second = halves if begins_bonafide else reversed(halves)
        recordings.append(Recording(np.concatenate([first, second]), len(first) / RATE, begins_bonafide))
    return recordings


def clips_by(column: str, split: str, *, is_bonafide: bool) -> list[list[np.ndarray]]:
    """Return the clips of a class, one list for each value of a column that has clips of `MIN_SECONDS`."""
    clips = defaultdict(list)
    for row in load_corpus("demo", splits=(split,))[split]:
        if row["label"] == is_bonafide:
            clips[row[column]].append(decode_audio(row["audio"], RATE))
    return [clips[value] for value in sorted(clips) if max(map(len, clips[value])) >= MIN_SECONDS * RATE]


def one_clip(clips: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Choose a clip of at least `MIN_SECONDS`."""
    long_enough = [clip for clip in clips if len(clip) >= MIN_SECONDS * RATE]
    return long_enough[generator.integers(len(long_enough))]


def several_clips(clips: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Join clips in random order to 4 to 8 s."""
    length = round(generator.uniform(4, 8) * RATE)
    return np.concatenate([clips[index] for index in generator.permutation(len(clips))])[:length]


HALVES = {"one clip": one_clip, "several clips, 4 to 8 s": several_clips}


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of a detector")
    parser.add_argument("--recordings", type=int, default=60, help="recordings of each group (60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--figure", type=Path, help="also draw a recording into this file (needs matplotlib)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
