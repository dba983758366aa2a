#!/usr/bin/env python
"""Measure time and memory of a training step: one view, two views, aligned, and aligned in a plain way.

python scripts/benchmark_step.py
python scripts/benchmark_step.py --size base --steps 10 --profile --json base.json
python scripts/benchmark_step.py --size large --batch 1 --seconds 1 --dtype bf16 --methods pcgrad

A step is everything before the optimizer: the passes, and the work on their gradients. All variants share one model and
one batch in one process and alternate, so that other load on the machine affects all of them. Ratios are taken within
each round. Peak memory is measured in a separate process for each.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from step_cost.measuring import MIB, interleaved_times, peak_memory, quartiles
from step_cost.models import SIZES
from step_cost.stopwatch import PARTS, Stopwatch, alignment_cost
from step_cost.stopwatch import PASSES as PASSES_WITHIN
from step_cost.variants import PASSES, PUBLISHED, VARIANTS, Workbench, names_of

from hf_gradalign.alignment import available_methods
from hf_gradalign.models import WINDOW_SECONDS


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables and return the exit status."""
    options = parse(words)
    torch.set_num_threads(options.threads)
    names = names_of(options.variants, options.methods)
    memory = {}
    if options.memory:
        for name in names:
            memory[name] = peak_memory(make_step, options, name, threads=options.threads)
    bench = make_bench(options, names)
    times = interleaved_times(bench.steps, options.steps, options.warm_up)
    results: dict[str, Any] = {
        "options": {name: value for name, value in vars(options).items() if name != "json"},
        "parameters": bench.parameters,
        "machine": {"platform": platform.platform(), "torch": torch.__version__, "threads": torch.get_num_threads()},
        "seconds": times,
        "peak_mib": {name: peak for name, (peak, _) in memory.items()},
        "peak_of_steps_mib": {name: of_steps for name, (_, of_steps) in memory.items()},
    }
    print_conditions(options, bench.parameters)
    print_times(times)
    if memory:
        print_memory(memory, 4 * bench.parameters / MIB)
    if options.profile:
        results["profile"] = {}
        for method in options.methods:
            results["profile"][method] = profile(bench, method, options.steps)
            print_profile(method, results["profile"][method])
        if torch.cuda.is_available():
            results["alignment"] = {name: alignment_cost(bench.steps[name], options.steps) for name in options.methods}
            print_alignment(results["alignment"])
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--dtype", choices=("float32", "bf16"), default="float32", help="bf16: autocast")
    parser.add_argument("--batch", type=int, default=2, help="utterances; each has two views")
    parser.add_argument("--seconds", type=float, default=WINDOW_SECONDS, help="length of an utterance")
    parser.add_argument("--steps", type=int, default=15, help="number of timed rounds, 2 or more")
    parser.add_argument("--warm_up", type=int, default=2, help="untimed rounds before")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=available_methods(), default=None)
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        help="; ".join(f"{name}: {what}" for name, what in VARIANTS.items()),
    )
    parser.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, default=True, help="also measure peak memory"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="show the time of each part of an aligned step, and on a GPU its launches",
    )
    parser.add_argument("--json", help="also write all measurements to this file")
    options = parser.parse_args(words)
    if options.methods is None:
        options.methods = ["pcgrad", "gradvac", "cagrad"]
    if options.steps < 2:
        parser.error("--steps must be 2 or more, or there is no spread to give")
    if options.profile and not {"passes", "ours"} <= set(options.variants):
        parser.error("--profile compares an aligned step with two passes; leave passes and ours among --variants")
    return options


def make_bench(options: argparse.Namespace, names: list[str]) -> Workbench:
    """Make a model with the steps `names`."""
    return Workbench(options.size, options.batch, options.seconds, options.dtype, names)


def make_step(options: argparse.Namespace, name: str) -> Callable[[], None]:
    """Make one step, for a process that does nothing else."""
    return make_bench(options, [name]).steps[name]


def profile(bench: Workbench, method: str, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each part of an aligned step, of the whole step, and of two passes, by round."""
    stopwatch = Stopwatch()
    parts: list[dict[str, float]] = []

    def step() -> None:
        stopwatch.__init__()
        with stopwatch.running():
            bench.steps[method]()
        parts.append(stopwatch.seconds)

    times = interleaved_times({PASSES: bench.steps[PASSES], method: step}, rounds, warm_up=1)
    seconds = {part: [row[part] for row in parts[-rounds:]] for part in PARTS}
    return {**seconds, "step": times[method], PASSES: times[PASSES]}


def print_conditions(options: argparse.Namespace, parameters: int) -> None:
    """Describe what was measured."""
    print(
        f"{parameters / 1e6:.1f}M parameters, {options.batch} utterance{'s' * (options.batch > 1)} of "
        f"{options.seconds:.2f} s in two views, {options.dtype}{' autocast' * (options.dtype == 'bf16')}, "
        f"{'GPU' if torch.cuda.is_available() else f'{torch.get_num_threads()} threads'}, {options.steps} rounds; one "
        f"gradient is {4 * parameters / MIB:.0f} MiB. Medians (and quartiles); no optimizer."
    )


def print_times(times: dict[str, list[float]]) -> None:
    """Return rows with seconds, and ratios within each round."""
    header = ["step", "seconds"]
    references = [name for name in (PASSES, PUBLISHED) if name in times]
    header += [f"relative to {name}, round by round" if name == PASSES else f"{name} takes" for name in references]
    rows = []
    for name, seconds in times.items():
        row = [name, spread(seconds)]
        for reference in references:
            pairs = list(zip(seconds, times[reference], strict=True))
            row.append(
                spread([s / r for s, r in pairs]) if reference == PASSES else spread([r / s for s, r in pairs], "x")
            )
        rows.append(row)
    print_table(header, rows)


def print_memory(memory: dict[str, tuple[float, float]], gradient: float) -> None:
    """Return rows with peak memory and comparisons."""
    header = ["step", "peak (MiB)", "the step's part of it"]
    references = [name for name in (PASSES, PUBLISHED) if name in memory]
    header += [f"above {name}" if name == PASSES else f"relative to {name}" for name in references]
    rows = []
    for name, (peak, of_steps) in memory.items():
        row = [name, f"{peak:.0f}", f"{of_steps:.0f}"]
        for reference in references:
            if reference == PASSES:
                extra = peak - memory[reference][0]
                row.append(f"{extra:+.0f} MiB, {extra / gradient:+.2f} gradients")
            else:
                row.append(f"{peak / memory[reference][0]:.2f} ({of_steps / memory[reference][1]:.2f} of the step's)")
        rows.append(row)
    print_table(header, rows)


def print_profile(method: str, seconds: dict[str, list[float]]) -> None:
    """Return rows with the milliseconds of each part and its share of the step."""
    step = seconds["step"]

    def row(part: str, values: list[float]) -> list[str]:
        share = quartiles([value / whole for value, whole in zip(values, step, strict=True)])[1]
        return [part, spread([1000 * value for value in values], digits=1), f"{100 * share:.2f} %"]

    added = [part for part in PARTS if part != PASSES_WITHIN]
    sums = [sum(column) for column in zip(*(seconds[part] for part in added), strict=True)]
    rows = [row(part, seconds[part]) for part in added]
    rows += [
        row("all of these", sums),
        row("forward and backward passes, in this step", seconds[PASSES_WITHIN]),
        row("two passes, by themselves", seconds[PASSES]),
        row("this step beyond two passes", [a - b for a, b in zip(step, seconds[PASSES], strict=True)]),
    ]
    print_table([f"part of a step with {method}", "ms", "of the step"], rows)


def print_alignment(costs: dict[str, dict[str, Any]]) -> None:
    """Print a row with the launches and milliseconds of one alignment by each method."""
    header = ["one alignment", "launches", "on gradients", "device (ms)", "host (ms)"]
    rows = [
        [
            method,
            str(cost["launches"]),
            str(cost["launches_on_gradients"]),
            f"{1e3 * cost['device_seconds']:.2f}",
            spread([1e3 * seconds for seconds in cost["host_seconds"]], digits=2),
        ]
        for method, cost in costs.items()
    ]
    print_table(header, rows)


def spread(values: list[float], unit: str = "", digits: int = 3) -> str:
    """Return median and quartiles as text."""
    low, middle, high = quartiles(values)
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    sys.exit(main())
