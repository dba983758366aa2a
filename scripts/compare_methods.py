#!/usr/bin/env python
"""Train with several alignment methods and seeds, and print a Markdown table of means and spreads.

python scripts/compare_methods.py --output_dir runs/comparison
python scripts/compare_methods.py --output_dir runs/comparison --methods none pcgrad --seeds 0 1 2 -- --max_steps 100

Runs that are finished are not repeated, so an interrupted comparison goes on where it was. What follows `--` goes to
`run_audio_spoof.py`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

RUN = Path(__file__).with_name("run_audio_spoof.py")


def main() -> int:
    """Run the comparison; returns the exit status."""
    arguments, run_options = parse_arguments()
    cells = list(product(arguments.seeds, arguments.methods))
    with ThreadPoolExecutor(arguments.slots) as slots:
        jobs = [slots.submit(train, arguments, method, seed, run_options) for seed, method in cells]
        try:
            failed = [cell for cell, job in zip(cells, jobs, strict=True) if not job.result()]
        except KeyboardInterrupt:
            # The runs at hand got the signal too and save a checkpoint; none of the others is to start.
            slots.shutdown(wait=True, cancel_futures=True)
            return 130
    for seed, method in failed:
        print(f"failed: {method}, seed {seed}; see {folder_of(arguments, method, seed)}.log", file=sys.stderr)
    print(table(arguments))
    return 1 if failed else 0


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    """The comparison's own options, and those after `--`."""
    argv = sys.argv[1:]
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["none", "pcgrad", "gradvac", "cagrad"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--slots", type=int, default=1, help="runs side by side; the processor's cores are shared out")
    return parser.parse_args(argv[:split]), argv[split + 1 :]


def folder_of(arguments: argparse.Namespace, method: str, seed: int) -> Path:
    """Where a run is written."""
    return arguments.output_dir / f"{method}-seed{seed}"


def train(arguments: argparse.Namespace, method: str, seed: int, run_options: list[str]) -> bool:
    """Train one run unless it is finished; resumes one that was interrupted. Returns whether it is finished now."""
    folder = folder_of(arguments, method, seed)
    if (folder / "all_results.json").is_file():
        return True
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(RUN), "--align_gradients", method, "--seed", str(seed), "--output_dir", str(folder)]
    if any(folder.glob("checkpoint-*")):
        command += ["--resume_from_checkpoint", "last"]
    threads = max(1, (os.cpu_count() or 1) // arguments.slots)
    print(f"training {method}, seed {seed}", flush=True)
    with Path(f"{folder}.log").open("a", encoding="utf-8") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        status = subprocess.run(
            [*command, *run_options], stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
    return status == 0


def table(arguments: argparse.Namespace) -> str:
    """Mean and standard deviation over seeds, in per cent."""
    lines = [
        "| alignment | validation EER | test EER | conflicting updates | conflicts by epoch (mean) |",
        "|---|---|---|---|---|",
    ]
    for method in arguments.methods:
        paths = [folder_of(arguments, method, seed) / "all_results.json" for seed in arguments.seeds]
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
        if not runs:
            continue
        keys = ("eval_eer", "test_eer", "train_conflict_rate")
        columns = [spread([run[key] for run in runs if run.get(key) is not None]) for key in keys]
        by_epoch = zip(*(run["train_conflict_rate_by_epoch"] for run in runs), strict=False)
        columns.append(" ".join(f"{100 * statistics.mean(rates):.0f}" for rates in by_epoch) or "-")
        lines.append(f"| {method} | " + " | ".join(columns) + " |")
    seeds = ", ".join(map(str, arguments.seeds))
    lines.append(
        f"\nIn %, mean ± standard deviation over the seeds {seeds}; {os.cpu_count()} cores ({platform.machine()})."
    )
    return "\n".join(lines)


def spread(fractions: list[float]) -> str:
    """Mean and standard deviation in per cent, and the single values; a dash where there are none."""
    if not fractions:
        return "-"
    deviation = statistics.stdev(fractions) if len(fractions) > 1 else 0.0
    values = ", ".join(f"{100 * fraction:.1f}" for fraction in fractions)
    return f"{100 * statistics.mean(fractions):.1f} ± {100 * deviation:.1f} ({values})"


if __name__ == "__main__":
    sys.exit(main())
