#!/usr/bin/env python
"""Measure whether training from disk is bound by its data: the model, its loader, and both together.

python scripts/benchmark_data.py
python scripts/benchmark_data.py --augmentation musan_rir+rawboost --workers 0 2 4 --json figures.json

The training split of the demo corpus is written to files in a temporary folder. It measures
- the model alone: updates (two views, aligned, with clipping and optimizer) on batches in memory,
- the loader alone: batches while nothing else runs, for each number of workers,
- both together: updates of the same training from disk, and how long the loop waits for the next batch.
Decoded audio is not kept, as with a corpus larger than memory. After the first time, files are read from the system's
cache, which `--cold` empties before each turn (it needs the permission to do so). The turns alternate, and ratios are
taken within each round.

"Waits" is the fraction of a step that the training loop spends getting its next batch: with workers it takes the batch
from a queue, without workers it makes the batch itself. A loader is fast enough if the loop hardly waits. This does not
show the cost of shared cores: if workers and model share them, workers slow the model down, which the next column shows
(a step of both together, relative to the model alone).
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from augmentation_cost.loader_parts import time_loader_parts
from augmentation_cost.speech import write_corpus
from augmentation_cost.training_turns import MODEL_ALONE, TrainingTurns
from benchmark_step import print_table, spread
from step_cost.measuring import quartiles

from hf_gradalign.cli.commands import fork_workers


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables and return the exit status."""
    options = parse(words)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        clips = write_corpus(Path(folder), options.clips)
        parts = time_loader_parts(clips, options)
        turns = TrainingTurns(clips, options, Path(folder, "out"))
        for number in range(options.rounds):
            turns.take(number)
    print_conditions(options, len(clips))
    print_loader_parts(parts, options)
    print_turns(turns, options)
    print_verdict(turns, options)
    if options.json:
        results = {
            "options": {name: value for name, value in vars(options).items() if name != "json"},
            "machine": {"platform": platform.platform(), "torch": torch.__version__, "threads": options.threads},
            "loader_parts_seconds": parts,
            "loader_seconds_a_batch": turns.loader_seconds,
            "step_seconds": turns.step_seconds,
            "waiting_share": turns.waiting,
        }
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--augmentation", default="rawboost", help="recipe of the second view, as in run_audio_spoof.py"
    )
    parser.add_argument("--augmentation_scope", choices=["utterance", "window"], default="utterance")
    parser.add_argument("--augment_on_device", action="store_true", help="as in run_audio_spoof.py")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of loader workers")
    parser.add_argument("--batch", type=int, default=16, help="utterances per batch, each in two views")
    parser.add_argument("--window_seconds", type=float, default=2.0)
    parser.add_argument(
        "--updates", type=int, default=12, help="updates per turn, 4 or more; the first two are not counted"
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds, 2 or more")
    parser.add_argument("--clips", type=int, help="use only this many clips of the corpus")
    parser.add_argument("--threads", type=int, default=2, help="threads of the model; a loader worker has one")
    parser.add_argument("--cold", action="store_true", help="empty the system's file cache before each turn")
    parser.add_argument("--json", help="also write all measurements to this file")
    options = parser.parse_args(words)
    if options.rounds < 2 or options.updates < 4:
        parser.error("--rounds must be 2 or more and --updates 4 or more, or there is no spread to give")
    return options


def print_conditions(options: argparse.Namespace, n_clips: int) -> None:
    """Describe what was measured."""
    print(
        f"{n_clips} files, batches of {options.batch} utterances in two views (clean, {options.augmentation} of the "
        f"{options.augmentation_scope}) of {options.window_seconds:.2f} s, model of 0.68M parameters with "
        f"{options.threads} threads, {options.rounds} rounds of {options.updates} updates. Medians (and quartiles)."
    )


def print_loader_parts(parts: dict[str, list[float]], options: argparse.Namespace) -> None:
    """Return the milliseconds per batch of each part, in one process."""
    sums = [sum(batch) for batch in zip(*parts.values(), strict=True)]
    rows = []
    for part, seconds in {**parts, "all of these": sums}.items():
        shares = [100 * own / whole for own, whole in zip(seconds, sums, strict=True)]
        rows.append([part, spread([1000 * s for s in seconds], digits=1), f"{quartiles(shares)[1]:.0f} %"])
    print_table([f"of a batch of {options.batch} utterances, in one process", "ms", "of all"], rows)


def print_turns(turns: TrainingTurns, options: argparse.Namespace) -> None:
    """Return a row for the model alone and one per number of workers."""
    header = [
        "loader workers",
        "loader alone (ms a batch)",
        "relative to the model alone",
        "step of both together (ms)",
    ]
    header += ["relative to the model alone", "waits for the next batch"]
    model = turns.step_seconds[MODEL_ALONE]
    rows = [[MODEL_ALONE, "", "", spread([1000 * s for s in model], digits=0), "1", share(turns.waiting[MODEL_ALONE])]]
    for workers in map(str, options.workers):
        loader, step = turns.loader_seconds[workers], turns.step_seconds[workers]
        rows.append(
            [
                workers,
                spread([1000 * s for s in loader], digits=0),
                spread([a / b for a, b in zip(loader, model, strict=True)], digits=2),
                spread([1000 * s for s in step], digits=0),
                spread([a / b for a, b in zip(step, model, strict=True)], digits=2),
                share(turns.waiting[workers]),
            ]
        )
    print_table(header, rows)


def print_verdict(turns: TrainingTurns, options: argparse.Namespace) -> None:
    """Print whether training waits for its data, one sentence per number of workers."""
    print()
    model = turns.step_seconds[MODEL_ALONE]
    for workers in map(str, options.workers):
        waiting = quartiles(turns.waiting[workers])[1]
        faster = quartiles([a / b for a, b in zip(model, turns.loader_seconds[workers], strict=True)])[1]
        bound = "is data-bound" if waiting > 0.05 else "is not data-bound"
        print(
            f"With {workers} loader workers training {bound} (which is to wait for more than 5 % of a step): it waits "
            f"for {100 * waiting:.1f} %, and the loader alone is {faster:.1f} times as fast as the model alone."
        )


def share(values: Sequence[float]) -> str:
    """Return a fraction in percent, with quartiles."""
    return spread([100 * value for value in values], " %", digits=1)


if __name__ == "__main__":
    fork_workers()
    sys.exit(main())
