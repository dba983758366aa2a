#!/usr/bin/env python
"""Measure what makes an aligned update fast on a GPU: time, memory, and the difference of the loss from float32.

python scripts/benchmark_speedups.py
python scripts/benchmark_speedups.py --size base --batch 8 --only float32 bf16 --json base.json

Each row trains the same model on the same batches for a few updates, with PCGrad and Adam, and is compared with the
first row (float32). That row runs again at the end: the difference between its two runs is due to chance. Compiling
takes a minute or more per row and is shown separately. Needs a GPU.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from benchmark_step import print_table
from step_cost.measuring import MIB, quartiles
from step_cost.models import SIZES, make_batch, make_model

from hf_gradalign.models import WINDOW_SECONDS
from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer
from hf_gradalign.training.compilation import prepare_for_compile


@dataclass(frozen=True)
class Row:
    """One way to train.

    Attributes:
        name: Name in the table.
        options: Options of `GradientAlignmentArguments`.
        attention: `attn_implementation` of transformers.
        optimizer: Options of torch.optim.Adam.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    attention: str = "sdpa"
    optimizer: dict[str, Any] = field(default_factory=lambda: {"fused": True})


BASELINE = "float32"
ROWS = [
    Row(BASELINE),
    Row("float32, Adam not fused", optimizer={"foreach": True}),
    Row("float32, eager attention", attention="eager"),
    Row("TF32", {"tf32": True}),
    Row("bf16", {"bf16": True}),
    Row("bf16, gradient checkpointing", {"bf16": True, "gradient_checkpointing": True}),
    Row("TF32, compiled", {"tf32": True, "torch_compile": True}),
    Row("bf16, compiled", {"bf16": True, "torch_compile": True}),
    Row(
        "bf16, compiled, CUDA graphs",
        {"bf16": True, "torch_compile": True, "torch_compile_mode": "reduce-overhead"},
    ),
    Row(
        "bf16, compiled, autotuned",
        {"bf16": True, "torch_compile": True, "torch_compile_mode": "max-autotune-no-cudagraphs"},
    ),
]
AGAIN = f"{BASELINE}, again"


def main(words: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    options = parse(words)
    rows = [row for row in ROWS if not options.only or row.name in (BASELINE, *options.only)]
    figures: dict[str, dict[str, Any]] = {}
    for name, row in [*((row.name, row) for row in rows), (AGAIN, rows[0])]:
        figures[name] = measure(row, options)
        print(f"{name}: {figures[name]}", file=sys.stderr)
    baseline = figures[BASELINE]
    print(
        f"{baseline['parameters'] / 1e6:.1f}M parameters, {options.batch} utterances of {options.seconds:.2f} s in two "
        f"views, {torch.cuda.get_device_name()}, torch {torch.__version__}, {options.steps} updates with PCGrad and "
        f"Adam after {options.warm_up}. Medians (and quartiles)."
    )
    table = []
    for name, row in figures.items():
        if "error" in row:
            table.append([name, "-", "-", "-", "-", row["error"]])
            continue
        low, middle, high = quartiles(row["seconds"])
        table.append(
            [
                name,
                f"{1e3 * middle:.1f} ({1e3 * low:.1f} to {1e3 * high:.1f})",
                f"{middle / quartiles(baseline['seconds'])[1]:.2f}",
                f"{row['peak_mib']:.0f}",
                f"{row['first_seconds']:.0f}",
                f"{max(abs(a - b) for a, b in zip(row['losses'], baseline['losses'], strict=True)):.1e}",
            ]
        )
    print_table(
        ["", "ms an update", f"of {BASELINE}", "peak (MiB)", "first update (s)", "largest change of loss"], table
    )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Train a few updates as a row says."""
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    reset_precision()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return train(row, options, folder)
        except Exception as error:  # any error: the other rows should still run
            return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}


def reset_precision() -> None:
    """Undo what the last row has set: torch's own defaults, where only convolutions use TF32."""
    backends: Any = torch.backends
    backends.fp32_precision = "none"
    backends.cudnn.conv.fp32_precision = "tf32"


def train(row: Row, options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Return the seconds, losses and memory of some updates."""
    model = make_model(options.size)
    model.set_attn_implementation(row.attention)
    args = GradientAlignmentArguments(folder, align_gradients="pcgrad", report_to="none", **row.options)
    trainer = GradientAlignmentTrainer(model=model, args=args)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    assert trainer.model is not None
    if args.torch_compile:
        prepare_for_compile(trainer.model, args)
    wrapped = trainer.accelerator.prepare_model(trainer.model)
    optimizer = torch.optim.Adam(wrapped.parameters(), lr=1e-6, **row.optimizer)
    torch.manual_seed(0)
    batches = [
        {view: {k: x.to(args.device) for k, x in inputs.items()} for view, inputs in batch.items()}
        for batch in (make_batch(options.batch, options.seconds) for _ in range(4))
    ]
    seconds, losses = [], []
    for number in range(options.warm_up + options.steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        trainer.start_update()
        loss = trainer.training_step(wrapped, batches[number % len(batches)])
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss))
    return {
        "seconds": seconds[options.warm_up :],
        "first_seconds": seconds[0],
        "losses": losses,
        "peak_mib": torch.cuda.max_memory_allocated() / MIB,
        "parameters": model.num_parameters(),
    }


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="large", help="size of the model (large: as XLS-R 300M)")
    parser.add_argument("--batch", type=int, default=5, help="utterances; each has two views (5)")
    parser.add_argument("--seconds", type=float, default=WINDOW_SECONDS, help="length of an utterance (4.175)")
    parser.add_argument("--steps", type=int, default=20, help="number of timed updates, 2 or more (20)")
    parser.add_argument("--warm_up", type=int, default=5, help="untimed updates before (5)")
    parser.add_argument(
        "--only", nargs="+", choices=[row.name for row in ROWS], help="rows to run in addition to float32"
    )
    parser.add_argument("--json", help="also write all measurements to this file")
    options = parser.parse_args(words)
    if options.steps < 2:
        parser.error("--steps must be 2 or more, or there is no spread to give")
    if not torch.cuda.is_available():
        parser.error("there is no GPU here, and nothing to measure")
    return options


if __name__ == "__main__":
    sys.exit(main())
