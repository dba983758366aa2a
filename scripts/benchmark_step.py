#!/usr/bin/env python
"""Time and memory of a training step with alignment, against the same two passes without it, in one run.

python scripts/benchmark_step.py
python scripts/benchmark_step.py --size base --steps 10

Each variant is timed in turn, step by step, in one process, so that whatever else the machine does falls on both; peak
memory is taken in a process of its own for each.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from typing import Any

import torch

from hf_gradalign.alignment import available_methods
from hf_gradalign.models import small_wav2vec2_config
from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer

SIZES: dict[str, dict[str, Any]] = {
    # 11.5M parameters: the seven-layer extractor of wav2vec 2.0 and a transformer of width 256.
    "small": {"hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 1088},
    # 94.6M parameters: wav2vec2-base.
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
EXTRACTORS: dict[str, dict[str, Any]] = {
    "small": {"conv_dim": (256,) * 7},
    "base": {"conv_dim": (512,) * 7},
}
PASSES = "two passes"


def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--batch", type=int, default=2, help="utterances; each has two views")
    parser.add_argument("--seconds", type=float, default=66_800 / 16_000)
    parser.add_argument("--steps", type=int, default=15, help="at least 2")
    parser.add_argument("--methods", nargs="+", default=[name for name in available_methods() if name != "none"])
    arguments = parser.parse_args()

    memory = {variant: peak_memory(arguments, variant) for variant in (PASSES, *arguments.methods)}
    steps = {variant: Step(arguments, variant) for variant in (PASSES, *arguments.methods)}
    times: dict[str, list[float]] = {variant: [] for variant in steps}
    for _ in range(arguments.steps):
        for variant, step in steps.items():
            start = time.perf_counter()
            step()
            times[variant].append(time.perf_counter() - start)

    parameters = steps[PASSES].parameters
    gradient = 4 * parameters / 2**20
    print(
        f"{parameters / 1e6:.1f}M parameters, {arguments.batch} utterances of {arguments.seconds:.2f} s in two views, "
        f"float32, {torch.get_num_threads()} threads, {arguments.steps} steps; one gradient is {gradient:.0f} MiB\n"
    )
    header = ("step", "median (s)", "ratio", "ratio step by step (quartiles)", "peak (MiB)", "more than two passes")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for variant in steps:
        ratios = [ours / plain for ours, plain in zip(times[variant], times[PASSES], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = statistics.median(times[variant])
        extra = memory[variant] - memory[PASSES]
        row = (
            variant,
            f"{median:.3f}",
            f"{median / statistics.median(times[PASSES]):.3f}",
            f"{middle:.3f} ({low:.3f} to {high:.3f})",
            f"{memory[variant]:.0f}",
            f"{extra:+.0f} MiB, {extra / gradient:+.2f} gradients",
        )
        print(f"| {' | '.join(row)} |")
    return 0


class Step:
    """One optimiser-free training step: two forward and two backward passes, aligned or not."""

    def __init__(self, arguments: argparse.Namespace, variant: str) -> None:
        torch.manual_seed(0)
        from transformers import Wav2Vec2ForSequenceClassification

        extractor = {"conv_stride": (5, 2, 2, 2, 2, 2, 2), "conv_kernel": (10, 3, 3, 3, 3, 2, 2)}
        config = small_wav2vec2_config(
            **SIZES[arguments.size],
            **EXTRACTORS[arguments.size],
            **extractor,
            num_conv_pos_embeddings=128,
            num_conv_pos_embedding_groups=16,
            hidden_dropout=0.0,
            final_dropout=0.0,
        )
        model = Wav2Vec2ForSequenceClassification(config)
        samples = round(arguments.seconds * 16_000)
        self.batch = {
            view: {"input_values": torch.randn(arguments.batch, samples), "labels": torch.arange(arguments.batch) % 2}
            for view in ("clean", "augmented")
        }
        self.trainer = GradientAlignmentTrainer(
            model=model,
            args=GradientAlignmentArguments(
                output_dir=tempfile.mkdtemp(),
                align_gradients="none" if variant == PASSES else variant,
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
            ),
        )
        self.model = model
        self.aligned = variant != PASSES
        self.parameters = model.num_parameters()
        self()  # the first step is not like the others

    def __call__(self) -> None:
        """Do the step."""
        self.model.zero_grad()
        if self.aligned:
            self.trainer.training_step(self.model, self.batch)
        else:
            for view in self.batch.values():
                super(GradientAlignmentTrainer, self.trainer).training_step(self.model, view)
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def peak_memory(arguments: argparse.Namespace, variant: str) -> float:
    """Peak resident memory in MiB of a process that does nothing but three steps of a variant."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(arguments, variant, sender))
    process.start()
    sender.close()
    peak = receiver.recv()
    process.join()
    return peak


def _measure(arguments: argparse.Namespace, variant: str, sender: Any) -> None:
    step = Step(arguments, variant)
    for _ in range(3):
        step()
    if torch.cuda.is_available():
        sender.send(torch.cuda.max_memory_allocated() / 2**20)
    else:
        sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    sys.exit(main())
