"""Turns of the model alone, the loader alone and both together."""

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from transformers import PrinterCallback, TrainerCallback, set_seed
from transformers.utils import logging

from hf_gradalign.augmentation import get_augmentation
from hf_gradalign.data import DeferredAugmentation, ViewCollator, ViewDataset, datasets
from hf_gradalign.models import LABEL2ID, load_audio_classifier, small_feature_extractor
from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer

MODEL_ALONE = "model alone"
_NOT_COUNTED = 2  # updates at the beginning of a turn


class TrainingTurns:
    """Medians of each turn, by the number of workers as a string, or `MODEL_ALONE`.

    Args:
        clips: A dataset of files.
        options: The script's.
        folder: The trainers' output folder, in which nothing is written.

    Attributes:
        loader_seconds: Of a batch, with nothing else going on.
        step_seconds: From one update's end to the next one's.
        waiting: Which share of that went into getting the next batch.
    """

    def __init__(self, clips: Dataset, options: argparse.Namespace, folder: Path) -> None:
        self._clips, self._options, self._folder = clips, options, folder
        self._collator = ViewCollator(small_feature_extractor())
        self._finish = DeferredAugmentation(small_feature_extractor()) if options.augment_on_device else None
        names = [str(workers) for workers in options.workers]
        self.loader_seconds: dict[str, list[float]] = {name: [] for name in names}
        self.step_seconds: dict[str, list[float]] = {name: [] for name in [MODEL_ALONE, *names]}
        self.waiting: dict[str, list[float]] = {name: [] for name in [MODEL_ALONE, *names]}
        logging.set_verbosity_error()

    def take(self, number: int) -> None:
        """One turn of everything, in an order that the number changes."""
        names = list(self.step_seconds)
        first = number % len(names)
        with mock.patch.object(datasets, "_CACHE_BYTES", 0):
            for name in names[first:] + names[:first]:
                self._make_cold()
                if name != MODEL_ALONE:
                    self.loader_seconds[name].append(self._time_loader(int(name)))
                    self._make_cold()
                step, waiting = self._time_training(name)
                self.step_seconds[name].append(step)
                self.waiting[name].append(waiting)

    def _time_loader(self, workers: int) -> float:
        loader = DataLoader(
            self._dataset(),
            batch_size=self._options.batch,
            shuffle=True,
            generator=torch.Generator().manual_seed(0),
            collate_fn=self._collator,
            num_workers=workers,
            drop_last=True,
        )
        # Starting the workers is not counted, nor are the batches that they make before the first is taken.
        started = 1 + 2 * workers
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        count, start = 0, 0.0
        for count, _ in enumerate(loader, start=1):
            if count == started:
                start = time.perf_counter()
            elif count >= started + self._options.updates:
                break
        end = time.perf_counter()
        torch.set_num_threads(before)
        if count <= started:
            raise ValueError(
                f"{len(self._clips)} clips are too few for batches of {self._options.batch}; lower --batch"
            )
        return (end - start) / (count - started)

    def _time_training(self, name: str) -> tuple[float, float]:
        set_seed(0)
        options, in_memory = self._options, name == MODEL_ALONE
        dataset: TorchDataset = self._dataset()
        finish = self._finish
        if in_memory:
            dataset, finish = _Kept(dataset, options, self._collator, self._finish), None
        stopwatch = _Stopwatch()
        trainer = _TimedTrainer(
            stopwatch,
            model=load_audio_classifier()[0],
            args=GradientAlignmentArguments(
                str(self._folder),
                align_gradients="pcgrad",
                max_steps=options.updates,
                per_device_train_batch_size=options.batch,
                learning_rate=1e-3,
                max_grad_norm=1.0,
                dataloader_num_workers=0 if in_memory else int(name),
                dataloader_persistent_workers=not in_memory and int(name) > 0,
                dataloader_pin_memory=torch.accelerator.is_available(),
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
            ),
            train_dataset=dataset,
            data_collator=_stack if in_memory else self._collator,
            batch_transform=finish,
            callbacks=[stopwatch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return stopwatch.figures()

    def _dataset(self) -> ViewDataset:
        return ViewDataset(
            self._clips,
            {"clean": None, "augmented": get_augmentation(self._options.augmentation)},
            sampling_rate=16_000,
            window_seconds=self._options.window_seconds,
            rms_level=0.1,
            label2id=LABEL2ID,
            augment=self._options.augmentation_scope,
            defer=self._options.augment_on_device,
        )

    def _make_cold(self) -> None:
        if self._options.cold:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("1")


class _Stopwatch(TrainerCallback):
    """Record the time of each update, and the time it waited for a batch."""

    def __init__(self) -> None:
        self.waited = 0.0
        self._ends: list[float] = []
        self._waits: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        self._ends.append(time.perf_counter())
        self._waits.append(self.waited)
        self.waited = 0.0

    def figures(self) -> tuple[float, float]:
        """The median step in seconds, and which share of all steps was waiting."""
        steps = [after - before for before, after in zip(self._ends, self._ends[1:], strict=False)][_NOT_COUNTED - 1 :]
        waits = self._waits[_NOT_COUNTED:]
        return statistics.median(steps), sum(waits) / sum(steps)


class _TimedTrainer(GradientAlignmentTrainer):
    def __init__(self, stopwatch: _Stopwatch, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stopwatch = stopwatch

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> Any:
        timed = _timed(epoch_iterator, self._stopwatch)
        return super().get_batch_samples(timed, num_batches, device)


def _timed(batches: Iterator, stopwatch: _Stopwatch) -> Iterator:
    while True:
        start = time.perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            return
        finally:
            stopwatch.waited += time.perf_counter() - start
        yield batch


class _Kept(TorchDataset):
    """Items as model inputs, made beforehand."""

    def __init__(self, dataset: ViewDataset, options: argparse.Namespace, collator: Any, finish: Any) -> None:
        batch = collator([dataset[index] for index in range(min(4 * options.batch, len(dataset)))])
        batch = batch if finish is None else finish(batch)
        self._items = [
            {view: {name: values[i] for name, values in inputs.items()} for view, inputs in batch.items()}
            for i in range(len(batch["clean"]["labels"]))
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, dict[str, torch.Tensor]]:
        return self._items[index]


def _stack(items: list[dict[str, dict[str, torch.Tensor]]]) -> Mapping[str, Any]:
    return {
        view: {name: torch.stack([item[view][name] for item in items]) for name in inputs}
        for view, inputs in items[0].items()
    }
