#!/usr/bin/env python
"""Measure how long commands and imports take to start, compared with the libraries that they import.

python scripts/benchmark_startup.py
python scripts/benchmark_startup.py --rounds 3 --only evaluate_scores hf_gradalign.alignment
python scripts/benchmark_startup.py --checkout ../another-clone

Every start is a separate process. The rounds alternate, so that other load on the machine affects all of them.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_gradalign.cli.commands import run_command

PYTHON, LIBRARIES, ARGUMENTS = "python", "torch, transformers", "TrainingArguments"
BASELINES = {
    PYTHON: "pass",
    LIBRARIES: "import torch, transformers",
    # torchaudio may not be importable with this torch.
    ARGUMENTS: "import torch, sys; sys.modules['torchaudio'] = None\nfrom transformers import TrainingArguments",
}
IMPORTS = ("", ".alignment", ".metrics", ".augmentation", ".data", ".scoring", ".training", ".models")
SCRIPTS = {
    "run_audio_spoof": ARGUMENTS,
    **dict.fromkeys(("score_audio_spoof", "evaluate_scores", "convert_checkpoint", "export_onnx"), PYTHON),
    **dict.fromkeys(("plot_conflicts", "run_study", "report_study"), PYTHON),
    **dict.fromkeys(("write_arena_results", "write_model_cards"), PYTHON),
}


def main(argv: Sequence[str]) -> int:
    """Measure and print and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="starts of each; the median is shown (5)")
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1], help="the clone to measure")
    parser.add_argument("--only", nargs="+", help="only these commands and packages (all)")
    arguments = parser.parse_args(argv)
    starts = {name: ["-c", program] for name, program in BASELINES.items()}
    baselines = {}
    for name in (f"hf_gradalign{part}" for part in IMPORTS):
        starts[f"import {name}"] = ["-c", f"import {name}"]
        baselines[f"import {name}"] = LIBRARIES
    for name, baseline in SCRIPTS.items():
        starts[f"{name}.py --help"] = [f"scripts/{name}.py", "--help"]
        baselines[f"{name}.py --help"] = baseline
    if arguments.only:
        wanted = {f"import {name}" for name in arguments.only} | {f"{name}.py --help" for name in arguments.only}
        if unknown := [name for name in arguments.only if not {f"import {name}", f"{name}.py --help"} & starts.keys()]:
            parser.error(f"--only: there is no {unknown[0]} to measure")
        starts = {name: words for name, words in starts.items() if name in wanted or name in BASELINES}
    seconds = measure(starts, arguments.rounds, arguments.checkout)
    print("| start | wall, s | CPU, s | CPU over baseline, s | CPU / baseline | baseline |\n|---|---|---|---|---|---|")
    for name, (wall, cpu) in seconds.items():
        baseline = baselines.get(name, PYTHON)
        base = seconds[baseline][1]
        print(f"| `{name}` | {wall:.2f} | {cpu:.2f} | {cpu - base:+.2f} | {cpu / base:.2f} | {baseline} |")
    return 0


def measure(starts: dict[str, list[str]], n_rounds: int, checkout: Path) -> dict[str, tuple[float, float]]:
    """Return the median wall-clock and CPU time of each start, in seconds."""
    where: dict[str, Any] = {"env": {**os.environ, "PYTHONPATH": str(checkout.resolve())}, "cwd": checkout}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in starts}
    for _ in range(n_rounds):
        for name, words in starts.items():
            began, used = time.perf_counter(), cpu_seconds()
            subprocess.run([sys.executable, *words], **where, check=True, stdout=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - began, cpu_seconds() - used))
    return {name: tuple(map(statistics.median, zip(*found, strict=True))) for name, found in times.items()}


def cpu_seconds() -> float:
    """Return user and system time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    run_command(main)
