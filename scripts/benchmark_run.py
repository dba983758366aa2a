#!/usr/bin/env python
"""Measure how busy a run keeps the GPU: its updates per second, relative to the bare step with its optimizer.

python scripts/benchmark_run.py scripts/recipes/tcm_pcgrad.yaml --corpus asvspoof2019_la:PATH --updates 300
python scripts/benchmark_run.py --align_gradients --corpus demo --dataloader_num_workers 4

Takes the options of `run_audio_spoof.py`. First it measures the run itself, from the corpus and with its logs and its
conflict record but without evaluations. Its start-up, until the end of the first update, is shown separately. Then it
measures the bare step in the same process: the same batch on the device, with only the aligned step and the optimizer.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from benchmark_step import print_table
from step_cost.variants import synchronize
from transformers import PrinterCallback, TrainerCallback

from hf_gradalign.cli.commands import fork_workers
from hf_gradalign.experiment import parse_arguments, prepare
from hf_gradalign.experiment.training_run import make_trainer
from hf_gradalign.training import GradientAlignmentTrainer

WARM_UP = 20


class Moments(TrainerCallback):
    """Record when updates end. It waits for the device at the first, at the last of the warm-up and at the last."""

    def __init__(self, updates: int) -> None:
        self.ends: dict[int, float] = {}
        self._wanted = (1, WARM_UP, updates)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: D102
        if state.global_step in self._wanted:
            synchronize()
            self.ends[state.global_step] = time.perf_counter()


def main(words: Sequence[str]) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=300, help="updates of the run (300)")
    options, rest = parser.parse_known_args(words)
    if options.updates <= WARM_UP:
        parser.error(f"--updates must be more than {WARM_UP}, which warm up")
    with tempfile.TemporaryDirectory() as folder:
        given = parse_arguments(rest).options
        given |= {"output_dir": folder, "max_steps": options.updates, "eval_strategy": "no", "save_strategy": "no"}
        given |= {"load_best_model_at_end": False, "average_best_checkpoints": 1, "report_to": "none"}
        given.pop("early_stopping_patience", None)
        start = time.perf_counter()
        run = parse_arguments(given)
        args = run.training
        preparation = prepare(run)
        moments = Moments(options.updates)
        trainer = make_trainer(preparation, args, [moments])
        trainer.remove_callback(PrinterCallback)
        loaded = time.perf_counter()
        trainer.train()
        done = options.updates - WARM_UP
        rate = done / (moments.ends[options.updates] - moments.ends[WARM_UP])
        bare = done / bare_seconds(trainer, done)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{preparation.model.num_parameters() / 1e6:.1f}M parameters, batches of {args.train_batch_size} utterances, "
        f"{args.dataloader_num_workers} loader workers, {device}, {done} updates after {WARM_UP}."
    )
    rows = [
        ["loading the corpus and the model (s)", f"{loaded - start:.1f}"],
        ["start of training, until the first update is done (s)", f"{moments.ends[1] - loaded:.1f}"],
        ["updates per second of the run", f"{rate:.2f}"],
        ["updates per second of the bare step", f"{bare:.2f}"],
        ["the run, relative to the bare step", f"**{rate / bare:.3f}**"],
    ]
    print_table(["", ""], rows)
    return 0


def bare_seconds(trainer: GradientAlignmentTrainer, updates: int) -> float:
    """Return the seconds of this many updates on one batch on the device."""
    model, optimizer = trainer.model_wrapped, trainer.optimizer
    assert model is not None
    assert optimizer is not None
    batch: Any = next(iter(trainer.get_train_dataloader()))
    if trainer.batch_transform is not None:
        transformed: Any = trainer.batch_transform(trainer._prepare_inputs(batch))
        batch = transformed
    trainer.accelerator.gradient_state._set_sync_gradients(True)
    model.train()
    for number in range(-5, updates):
        if number == 0:
            synchronize()
            start = time.perf_counter()
        trainer.start_update()
        trainer.training_step(model, batch)
        optimizer.step()
        optimizer.zero_grad()
    synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    fork_workers()
    sys.exit(main(sys.argv[1:]))
