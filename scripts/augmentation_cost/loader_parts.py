"""Where a loader's time goes: each part of making a batch, by itself, in one process."""

import argparse
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from step_cost.measuring import interleaved_times

from hf_gradalign.augmentation import get_augmentation
from hf_gradalign.data import ViewCollator, Window, crop, decode_audio, repeat_pad
from hf_gradalign.data.decoding import scale_to_rms
from hf_gradalign.models import small_feature_extractor

RATE, LEVEL = 16_000, 0.1


def time_loader_parts(clips: Dataset, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each part of a batch, in each of as many batches as a few rounds take.

    Reading, decoding, resampling (from the rate that most of the demo corpus does not have) and bringing to the level
    are of whole utterances, as with the scope `utterance`; with `window` decoding takes less than is shown here.
    """
    batch = LoaderBatch(clips, options)
    steps: dict[str, Callable[[], Any]] = {
        "rows of the table": batch.read_rows,
        "reading and decoding": batch.decode,
        "level": batch.level,
        f"augmentation ({options.augmentation})": batch.augment,
        "window of both views": batch.cut,
        "collating and normalizing": batch.collate,
    }
    for step in steps.values():
        step()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader worker
    times = interleaved_times(steps, max(5, options.rounds), warm_up=1)
    torch.set_num_threads(before)
    return times


class LoaderBatch:
    """A batch on its way; each method takes what another left, so that they can be called in any order.

    Args:
        clips: As `load_corpus` gives them.
        options: The script's.
    """

    def __init__(self, clips: Dataset, options: argparse.Namespace) -> None:
        self._clips = clips
        generator = np.random.default_rng(0)
        self._indices = generator.integers(0, len(clips), options.batch).tolist()
        self._positions = generator.random(options.batch)
        self._scope, self._n_samples = options.augmentation_scope, round(options.window_seconds * RATE)
        self._augmentation: Any = get_augmentation(options.augmentation)
        self._collator = ViewCollator(small_feature_extractor())
        random.seed(0), np.random.seed(0), torch.manual_seed(0)

    def read_rows(self) -> None:
        """From the Arrow table."""
        self._rows = [self._clips[index] for index in self._indices]

    def decode(self) -> None:
        """From files to samples."""
        self._decoded = [decode_audio(row["audio"], RATE) for row in self._rows]

    def level(self) -> None:
        """To the root mean square that the small model is trained at."""
        self._levelled = [scale_to_rms(samples, LEVEL) for samples in self._decoded]

    def augment(self) -> None:
        """The augmented view, of the utterance or of the window."""
        clips = self._levelled
        if self._scope == "window":
            clips = [crop(samples, self._window(i)) for i, samples in enumerate(clips)]
        self._augmented = [self._augmentation(samples.copy(), sample_rate=RATE) for samples in clips]

    def cut(self) -> None:
        """Both views, to the window's length."""
        self._views = [
            [repeat_pad(crop(samples, self._window(i)), self._n_samples).copy() for i, samples in enumerate(view)]
            for view in (self._levelled, self._augmented)
        ]

    def collate(self) -> None:
        """Both views, to tensors."""
        names = ("clean", "augmented")
        self._collator(
            [
                {view: {"input_values": samples, "labels": 0} for view, samples in zip(names, item, strict=True)}
                for item in zip(*self._views, strict=True)
            ]
        )

    def _window(self, number: int) -> Window:
        return Window(self._n_samples, float(self._positions[number]))
