#!/usr/bin/env python
"""Check that every way to run a training gives the same update, on this machine and with these versions.

python scripts/check_modes.py
python scripts/check_modes.py --only fsdp2 --processes 2
python scripts/check_modes.py --accelerator          # on the GPUs of this machine, one per process

Each mode trains a tiny wav2vec 2.0 for 20 updates on noise whose views conflict. It is compared with the same training
in one process, in float32, with whole batches. The table shows how far apart the weights are at the end, and how far
training moved them. The exit status is 1 if a difference is larger than the bound of its mode.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from training_modes.modes import TF32_BOUND, Mode, all_modes
from training_modes.tiny_training import make_model, train

from hf_gradalign.training import leave_process_group


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of any weight."""
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def work(arguments: argparse.Namespace) -> None:
    """Train the modes of one number of processes and write the results; one process trains the references first."""
    folder, modes = Path(arguments.folder), chosen_modes(arguments)
    rows = []
    for task in {task_key(mode): mode.task for mode in modes}.values() if arguments.work == 1 else ():
        reference = Mode("reference", task=task)
        torch.save(train(reference, arguments.accelerator), folder / f"{task_key(reference)}.pt")
    for mode in modes:
        if mode.processes != arguments.work:
            continue
        row = {"mode": mode.name, "processes": mode.processes, "accumulation": mode.accumulation, "same": False}
        try:
            row.update(compare(mode, arguments.accelerator, folder))
        except Exception as error:  # any error: the other modes should still run
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
        if os.environ.get("RANK", "0") == "0":
            (folder / f"rows-{arguments.work}.json").write_text(json.dumps(rows), encoding="utf-8")
            print(f"{mode.label}: {row.get('error') or row}", file=sys.stderr)


def compare(mode: Mode, accelerator: bool, folder: Path) -> dict[str, Any]:
    """Train in a mode and compare the weights with those of the reference."""
    reference = torch.load(folder / f"{task_key(mode)}.pt", weights_only=True)
    moved = largest_difference(reference, make_model(mode.task.get("model", "plain")).state_dict())
    off = largest_difference(train(mode, accelerator), reference)
    # With torch.compile, accelerate enables TF32 on the GPU.
    bound = max(mode.bound, TF32_BOUND) if accelerator and mode.execution.get("torch_compile") else mode.bound
    return {"difference": off, "movement": moved, "same": off <= bound * moved}


def task_key(mode: Mode) -> str:
    """Return a file name for everything that affects the result."""
    return format(zlib.crc32(json.dumps(mode.task, sort_keys=True).encode()), "08x")


def chosen_modes(arguments: argparse.Namespace) -> list[Mode]:
    """Return the modes that the command line selects."""
    return [
        mode
        for mode in all_modes()
        if mode.processes in arguments.processes
        and any(word in mode.label for word in arguments.only)
        and (arguments.accelerator or not mode.needs_gpu)
    ]


def launch(processes: int, arguments: argparse.Namespace, folder: str) -> int:
    """Start the processes that train the modes of their number, and return the exit status."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [__file__, "--work", str(processes), "--folder", folder]
    command += ["--processes", *map(str, arguments.processes), "--only", *arguments.only]
    if arguments.accelerator:
        command.append("--accelerator")
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode


def main() -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="only modes whose names contain one of these")
    parser.add_argument(
        "--processes", nargs="+", type=int, default=[1, 2, 3], help="only modes with these numbers of processes"
    )
    parser.add_argument("--accelerator", action="store_true", help="train on GPUs instead of the CPU")
    parser.add_argument("--json", help="also write the rows to this file")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments)
        leave_process_group()
        return 0
    if not chosen_modes(arguments):
        parser.error(f"no mode has {' or '.join(arguments.only)} in its name and as many processes")

    rows, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        # References are trained by one process, which comes first.
        for processes in sorted({1, *(mode.processes for mode in chosen_modes(arguments))}):
            failed |= launch(processes, arguments, folder) != 0
            path = Path(folder, f"rows-{processes}.json")
            rows += json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    header = ("mode", "processes", "accumulation", "largest difference", "largest movement", "same")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        same = "yes" if row["same"] else "**no**"
        figures = "-" if "error" in row else f"{row['difference']:.1e}"
        moved = "-" if "error" in row else f"{row['movement']:.1e}"
        print(f"| {row['mode']} | {row['processes']} | {row['accumulation']} | {figures} | {moved} | {same} |")
    for row in rows:
        if "error" in row:
            print(f"\n{row['mode']}, {row['processes']} x {row['accumulation']}: {row['error']}")
    if failed or len(rows) < len(chosen_modes(arguments)):
        print("\nSome modes could not be run; the messages are above.", file=sys.stderr)
        return 1
    return 0 if all(row["same"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
