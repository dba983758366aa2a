#!/usr/bin/env python
"""Kill, crowd, fill up and damage the commands, and count what is lost, mixed or silently wrong: nothing should be.

python scripts/fault_run.py --output_dir runs/faults
python scripts/fault_run.py --output_dir runs/faults --only kill_training damage --kills 50

Real processes of the real commands write to the real disk, on a tiny model and corpus that are made first. Each trial
ends when the interrupted command was started again by the same command line, as a user would. Its outcome is

- as uninterrupted: weights, scores, logs and figures are what an undisturbed command leaves;
- refused or passed over: the same, and a message said what was in the way; or the command refused to do it; or, where
  weights that were kept to be averaged are damaged, the message says that the mean is of the others;
- lost: what was whole before is gone, or the end is not that of an undisturbed command, or a traceback or a wait
  without end came in place of a message;
- mixed: a file, or a folder of results, holds those of two writers or models;
- silent: a wrong or damaged result with exit status 0 and no message.

The exit status is 1 if one of the last three occurred. Interrupted, the same command continues: finished trials are in
`trials.jsonl` of the output folder. Needs Linux and a system that lets users make namespaces: the disk that is filled
is a small file system in memory. Runs from the repository, for the Hub is that of the tests.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_gradalign.cli.commands import run_command


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="for the inputs, the trials and their record")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places (0)")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="kinds, or beginnings of their names")
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs in training, and as many in scoring (20)")
    parser.add_argument("--double_starts", type=int, default=10, help="of each command (10)")
    parser.add_argument("--full_disks", type=int, default=10, help="moments at which the disk is full (10)")
    parser.add_argument("--damaged", type=int, default=30, help="files of checkpoints that are damaged (30)")
    parser.add_argument("--hub_rounds", type=int, default=1, help="eight trials of each of the Hub's seven moods (1)")
    parser.add_argument("--keep", action="store_true", help="keep the folders of trials that went well, too")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the trials; returns the exit status."""
    arguments = parse(argv)
    arguments.output_dir = arguments.output_dir.absolute()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    # All before the libraries are imported, which read it.
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HOME": str(arguments.output_dir / "home"), "MPLBACKEND": "agg"}
    os.environ.pop("HF_HUB_OFFLINE", None)
    from fault_trials.hub_program import HubProgram

    with HubProgram() as hub:
        os.environ |= hub.environment()
        from fault_trials.running import run_trials

        try:
            return run_trials(arguments, hub)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    run_command(main, after_interrupt="the same command continues")
