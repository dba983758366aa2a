#!/usr/bin/env python
"""Measure time and memory of each head on a wav2vec 2.0, compared with the wav2vec 2.0 alone.

python scripts/benchmark_heads.py
python scripts/benchmark_heads.py --size large --batch 1 --steps 5 --json large.json

"Forward" is scoring: evaluation mode, no gradients. "Forward and backward" is training without the optimizer, with
gradients of all parameters; for the backbone alone, they are the gradients of its mean frame. All share one backbone
and one batch in one process and alternate, so that other load on the machine affects all of them. Ratios are taken
within each round. Peak memory is measured in a separate process for each.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmark_step import print_table, spread
from step_cost.measuring import interleaved_times, peak_memory
from step_cost.models import SIZES, VIEWS, make_batch, make_model
from step_cost.variants import synchronize
from torch import Tensor, nn

from hf_gradalign.models import HEADS, WINDOW_SECONDS, SpoofDetectorConfig, SpoofDetectorForAudioClassification

BACKBONE = "backbone alone"
FORWARD, BOTH = "forward", "forward and backward"


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables and return the exit status."""
    options = parse(words)
    torch.set_num_threads(options.threads)
    names = [BACKBONE, *options.heads]
    memory: dict[str, dict[str, tuple[float, float]]] = {FORWARD: {}, BOTH: {}}
    if options.memory:
        for kind, peaks in memory.items():
            for name in names:
                peaks[name] = peak_memory(make_step, options, name, kind, threads=options.threads)
    bench = HeadBench(options.size, options.batch, options.seconds, names)
    times = {
        kind: interleaved_times({name: bench.step(name, kind) for name in names}, options.steps, options.warm_up)
        for kind in memory
    }
    backbone = bench.parameters[BACKBONE]
    device = "GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(
        f"{options.size} backbone of {backbone / 1e6:.1f}M parameters, {options.batch} "
        f"utterance{'s' * (options.batch > 1)} of {options.seconds:.2f} s, float32, {device}, {options.steps} rounds. "
        "Medians (and quartiles); no optimizer."
    )
    for kind in memory:
        print_kind(kind, times[kind], memory[kind], bench.parameters)
    if options.json:
        results = {
            "options": {name: value for name, value in vars(options).items() if name != "json"},
            "machine": {
                "platform": platform.platform(),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            },
            "parameters": bench.parameters,
            "seconds": times,
            "peak_mib": {kind: {name: peak for name, (peak, _) in of.items()} for kind, of in memory.items()},
            "peak_of_steps_mib": {kind: {name: own for name, (_, own) in of.items()} for kind, of in memory.items()},
        }
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--batch", type=int, default=2, help="utterances per batch")
    parser.add_argument("--seconds", type=float, default=WINDOW_SECONDS, help="length of an utterance")
    parser.add_argument("--steps", type=int, default=15, help="number of timed rounds, 2 or more")
    parser.add_argument("--warm_up", type=int, default=2, help="untimed rounds before")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, default=True, help="also measure peak memory"
    )
    parser.add_argument("--json", help="also write all measurements to this file")
    options = parser.parse_args(words)
    if options.steps < 2:
        parser.error("--steps must be 2 or more, or there is no spread to give")
    return options


class HeadBench:
    """A backbone, detectors that share it, and a batch.

    Args:
        size: One of `SIZES`.
        utterances: Size of the batch.
        seconds: Length of an utterance.
        names: `BACKBONE`, or heads.

    Attributes:
        models: Models by name.
        parameters: Number of parameters that each head adds; for the backbone, all of them.
    """

    def __init__(self, size: str, utterances: int, seconds: float, names: Sequence[str]) -> None:
        backbone = make_model(size).wav2vec2
        attention = backbone.config._attn_implementation  # the configurations of the detectors would reset it
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        batch = make_batch(utterances, seconds)[VIEWS[0]]
        self._batch = {name: value.to(self._device) for name, value in batch.items()}
        self.models: dict[str, nn.Module] = {}
        self.parameters: dict[str, int] = {}
        for name in names:
            model = backbone
            if name != BACKBONE:
                config = SpoofDetectorConfig(backbone.config, name, attn_implementation=attention)
                model = SpoofDetectorForAudioClassification(config, backbone)
            self.models[name] = model.to(self._device)
            counted: Any = backbone if name == BACKBONE else model.head
            self.parameters[name] = sum(parameter.numel() for parameter in counted.parameters())

    def step(self, name: str, kind: str) -> Callable[[], None]:
        """Return a function that runs the model once on the batch, `FORWARD` or `BOTH`."""
        model = self.models[name]

        def forward() -> None:
            model.eval()
            with torch.no_grad():
                self._forward(name)
            synchronize()

        def both() -> None:
            model.train()
            model.zero_grad()
            self._forward(name).backward()
            synchronize()

        return forward if kind == FORWARD else both

    def _forward(self, name: str) -> Tensor:
        if name == BACKBONE:
            return self.models[name](self._batch["input_values"]).last_hidden_state.mean()
        return self.models[name](**self._batch).loss


def make_step(options: argparse.Namespace, name: str, kind: str) -> Callable[[], None]:
    """Make one step, for a process that does nothing else."""
    return HeadBench(options.size, options.batch, options.seconds, [name]).step(name, kind)


def print_kind(
    kind: str, times: dict[str, list[float]], memory: dict[str, tuple[float, float]], parameters: dict[str, int]
) -> None:
    """Return a row for the backbone and one per head."""
    header: list[Any] = [kind, "parameters (M)", "seconds", "relative to the backbone, round by round"]
    header += [
        "peak (MiB)",
        "the step's part of it",
        "peak, relative to the backbone",
        "its part, relative to the backbone",
    ] * bool(memory)
    rows = []
    for name, seconds in times.items():
        ratios = [mine / backbone for mine, backbone in zip(seconds, times[BACKBONE], strict=True)]
        row = [name, f"{parameters[name] / 1e6:.2f}", spread(seconds), spread(ratios)]
        if memory:
            (peak, own), (backbone_peak, backbone_own) = memory[name], memory[BACKBONE]
            row += [f"{peak:.0f}", f"{own:.0f}", f"{peak / backbone_peak:.2f}", f"{own / backbone_own:.2f}"]
        rows.append(row)
    print_table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
