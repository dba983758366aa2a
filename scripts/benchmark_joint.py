#!/usr/bin/env python
"""How well the head's gradients stand for the whole model's, and what `--joint_backward` costs.

python scripts/benchmark_joint.py
python scripts/benchmark_joint.py --seeds 0 1 2 --max_steps 330
python scripts/benchmark_joint.py -- --augmentation rawboost5 --per_device_train_batch_size 8

Trains the small model on the demo corpus with the ordinary aligned step (PCGrad) and, at each update, compares the
Gramian of the classification head's gradients, by which `--joint_backward` would have aligned, with that of the whole
model's. Then times the steps in turn in one process, so that whatever else the machine does falls on all, and takes
peak memory in a process of its own for each. What follows `--` are options of `run_audio_spoof.py`.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from step_cost.measuring import interleaved_times, peak_memory, quartiles
from step_cost.variants import synchronise
from torch import Tensor

from hf_gradalign.alignment import get_method, gradient_statistics
from hf_gradalign.data import ViewCollator
from hf_gradalign.experiment import parse_arguments as parse_run_arguments
from hf_gradalign.experiment import prepare
from hf_gradalign.models import load_audio_classifier
from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer
from hf_gradalign.training.joint_backward import find_head

PASSES, ALIGNED, JOINT = "two passes", "aligned", "joint backward"
PARTS = ("first third", "second third", "last third", "whole run")
MEASURES = (
    "conflicts, model (%)",
    "conflicts, head (%)",
    "same sign (%)",
    "same sign by chance (%)",
    "model's conflicts that the head sees (%)",
    "correlation of cosines",
    "mean difference of cosines",
    "mean difference of weights",
    "cosine of the two updates",
)


def main() -> int:
    """Print both tables; returns the exit status."""
    arguments, run_options = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for seed in arguments.seeds:
            trainer, batch = make_run(folder, seed, arguments.max_steps, run_options)
            if seed == arguments.seeds[0]:
                trainer.save_model(str(Path(folder, "model")))
                views = {view: dict(inputs) for view, inputs in batch.items()}  # plain, as torch.load takes them
                torch.save(views, Path(folder, "batch.pt"))
            trainer.train()
            runs.append(trainer.pairs)
        sizes = [p.numel() for p in trainer.model.parameters()]
        head = sum(size for size, inside in zip(sizes, trainer.is_head, strict=True) if inside)
        print(
            f"\n{sum(sizes) / 1e6:.2f}M parameters, {head / 1e3:.1f}k in the head; {len(runs[0])} updates with PCGrad, "
            f"seeds {', '.join(map(str, arguments.seeds))}; {machine()}. Mean over the updates"
            + (", mean ± standard deviation over the seeds.\n" if len(runs) > 1 else ".\n")
        )
        print(agreement_table(runs))
        if arguments.timing_steps:
            print(f"\n{describe_batch(batch)}, {arguments.timing_steps} steps without the optimiser's; {machine()}\n")
            print(cost_table(folder, arguments.timing_steps, 4 * sum(sizes) / 2**20))
    return 0


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The benchmark's own options, and those after `--`."""
    argv = sys.argv[1:]
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max_steps", type=int, default=120, help="updates a seed; at least 3")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--timing_steps", type=int, default=15, help="at least 2; 0 leaves time and memory out")
    arguments = parser.parse_args(argv[:split])
    if arguments.max_steps < 3:
        parser.error(f"--max_steps must be 3 or more, for there are three thirds, got {arguments.max_steps}")
    if arguments.timing_steps == 1 or arguments.timing_steps < 0:
        parser.error(f"--timing_steps must be 0, or 2 or more, for quartiles, got {arguments.timing_steps}")
    return arguments, argv[split + 1 :]


class RecordingTrainer(GradientAlignmentTrainer):
    """Keeps the Gramian of the whole model's gradients and that of the head's, update by update."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_head = find_head(self.model, self.parameter_groups.names)
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The ordinary step, and a look at the update if it made one."""
        before = self.last_update
        loss = super().training_step(*args, **kwargs)
        if self.last_update is not before:
            products = self.last_update.products.cpu().double()
            self.pairs.append((products.sum(0), products[torch.tensor(self.is_head)].sum(0)))
        return loss


def make_run(
    folder: str, seed: int, max_steps: int, run_options: Sequence[str]
) -> tuple[RecordingTrainer, dict[str, Any]]:
    """A trainer as `run_audio_spoof.py` would set it up, without evaluations and checkpoints, and a batch for it."""
    words = f"--align_gradients pcgrad --seed {seed} --max_steps {max_steps} --eval_strategy no --save_strategy no "
    words += "--average_best_checkpoints 1 --load_best_model_at_end False --report_to none --logging_steps 1000000"
    model_args, data_args, args = parse_run_arguments([*words.split(), "--output_dir", folder, *run_options])
    preparation = prepare(model_args, data_args, args)
    trainer = RecordingTrainer(
        model=preparation.model,
        args=args,
        train_dataset=preparation.train_dataset,
        data_collator=ViewCollator(preparation.feature_extractor),
        processing_class=preparation.feature_extractor,
    )
    size = min(args.per_device_train_batch_size, len(preparation.train_dataset))
    batch = trainer.data_collator([preparation.train_dataset[index] for index in range(size)])
    return trainer, batch


def agreement(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """The `MEASURES` over some updates; NaN where there is nothing to take the mean of. Not finite updates are out."""
    pairs = [pair for pair in pairs if all(bool(torch.isfinite(gramian).all()) for gramian in pair)]
    if not pairs:
        return [float("nan")] * len(MEASURES)
    model, head = (np.stack([cosines(gramian) for gramian in side]) for side in zip(*pairs, strict=True))
    weigh = get_method("pcgrad")
    weights = [(weigh(whole), weigh(part)) for whole, part in pairs]
    conflicts = model < 0
    often, seen = conflicts.mean(), (head < 0).mean()
    with np.errstate(invalid="ignore"):
        correlation = np.corrcoef(model.ravel(), head.ravel())[0, 1] if model.size > 1 else np.nan
    return [
        100 * conflicts.any(1).mean(),
        100 * (head < 0).any(1).mean(),
        100 * (conflicts == (head < 0)).mean(),
        100 * (often * seen + (1 - often) * (1 - seen)),
        100 * (head < 0)[conflicts].mean() if conflicts.any() else np.nan,
        correlation,
        np.abs(model - head).mean(),
        np.mean([float((a - b).abs().mean()) for a, b in weights]),
        np.mean([update_cosine(whole, a, b) for (whole, _), (a, b) in zip(pairs, weights, strict=True)]),
    ]


def cosines(gramian: Tensor) -> np.ndarray:
    """Cosines of every pair of views, (K (K - 1) / 2,); 0 for a zero gradient."""
    statistics = gradient_statistics(gramian, [str(view) for view in range(len(gramian))])
    return np.array([float(value) for name, value in statistics.items() if name.startswith("cosine_")])


def update_cosine(gramian: Tensor, first: Tensor, second: Tensor) -> float:
    """Cosine of two weighted sums of the gradients that the Gramian is of; 1 if both vanish."""
    product = first @ gramian @ second
    norms = ((first @ gramian @ first) * (second @ gramian @ second)).clamp(min=0).sqrt()
    return float(product / norms) if norms > 0 else 1.0


def agreement_table(runs: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> str:
    """A row a third of training and one for all of it; a column a measure."""
    lines = [f"| updates | {' | '.join(MEASURES)} |", "|---" * (len(MEASURES) + 1) + "|"]
    for part, name in enumerate(PARTS):
        by_run = []
        for run in runs:
            bounds = [round(len(run) * third / 3) for third in range(4)]
            by_run.append(agreement(run[bounds[part] : bounds[part + 1]] if part < 3 else run))
        columns = zip(MEASURES, zip(*by_run, strict=True), strict=True)
        cells = [spread(values, 1 if "%" in measure else 3) for measure, values in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and, of several values, standard deviation; a dash where there are none."""
    values = [float(value) for value in values if not np.isnan(value)]
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def machine() -> str:
    """What the figures were taken on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    return f"{device} ({platform.machine()}), torch {torch.__version__}, {torch.get_num_threads()} threads"


def describe_batch(batch: dict[str, Any]) -> str:
    """How much a step works on."""
    shapes = {tuple(value.shape) for view in batch.values() for name, value in view.items() if name != "labels"}
    return f"{len(batch)} views of shape {', '.join(map(str, sorted(shapes)))}"


def make_step(folder: str, variant: str) -> Callable[[], None]:
    """One optimiser-free training step of the saved model on the saved batch."""
    torch.manual_seed(0)
    batch = torch.load(Path(folder, "batch.pt"), weights_only=True)
    model, _ = load_audio_classifier(str(Path(folder, "model")))
    trainer = GradientAlignmentTrainer(
        model=model.train(),
        args=GradientAlignmentArguments(
            output_dir=folder,
            align_gradients="none" if variant == PASSES else "pcgrad",
            joint_backward=variant == JOINT,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
        ),
    )

    def step() -> None:
        model.zero_grad()
        if variant == PASSES:
            for view in batch.values():
                super(GradientAlignmentTrainer, trainer).training_step(model, dict(view))
        else:
            trainer.training_step(model, {name: dict(view) for name, view in batch.items()})
        synchronise()

    return step


def cost_table(folder: str, steps: int, gradient: float) -> str:
    """Time and memory of each variant; `gradient` is one gradient's size in MiB."""
    variants = (PASSES, ALIGNED, JOINT)
    threads = torch.get_num_threads()
    memory = {variant: peak_memory(make_step, folder, variant, threads=threads)[0] for variant in variants}
    times = interleaved_times({variant: make_step(folder, variant) for variant in variants}, steps, warm_up=1)
    header = ("step", "median (s)", "of two passes, step by step (quartiles)", "of aligned", "peak (MiB)", "more")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for variant in variants:
        extra = memory[variant] - memory[PASSES]
        row = (
            variant,
            f"{statistics.median(times[variant]):.3f}",
            ratio(times[variant], times[PASSES]),
            ratio(times[variant], times[ALIGNED]),
            f"{memory[variant]:.0f}",
            f"{extra:+.0f} MiB, {extra / gradient:+.1f} gradients",
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def ratio(times: Sequence[float], reference: Sequence[float]) -> str:
    """Median and quartiles of the ratio, step by step."""
    low, middle, high = quartiles([ours / other for ours, other in zip(times, reference, strict=True)])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
