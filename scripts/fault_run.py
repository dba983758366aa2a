#!/usr/bin/env python
"""Kill commands, start them twice, fill the disk and damage files, and count what is lost, mixed or silently wrong.

python scripts/fault_run.py --output_dir runs/faults
python scripts/fault_run.py --output_dir runs/faults --only kill_training damage --kills 50

The trials run the real commands in real processes on the real disk, with a tiny model and corpus. Each trial ends after
the interrupted command was started again with the same command line, as a user would do. Its outcome is one of

- as uninterrupted: weights, scores, logs and figures are the same as from an uninterrupted command;
- refused or skipped: the same, with a message about the obstacle; or the command refused to run; or, if weights for an
  average are damaged, a message says that the others were averaged;
- lost: something that was complete is gone, or the results differ from those of an uninterrupted command, or there was
  a traceback or an endless wait instead of a message;
- mixed: a file or a folder of results contains parts from two writers or models;
- silent: a wrong or damaged result with exit status 0 and no message.

None of the last three should occur; if one does, the exit status is 1. To resume an interrupted fault run, run the same
command again: `trials.jsonl` in the output folder has the finished trials. It needs Linux and a system that lets users
create namespaces, because the full disk is a small file system in memory. It runs from the repository, because it uses
the tests' Hub.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_gradalign.cli.commands import run_command


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="for the inputs, the trials and their record")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and places (0)")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="kinds of trials, or prefixes of their names")
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs in training, and as many in scoring (20)")
    parser.add_argument("--double_starts", type=int, default=10, help="double starts of each command (10)")
    parser.add_argument("--full_disks", type=int, default=10, help="moments at which the disk is full (10)")
    parser.add_argument("--damaged", type=int, default=30, help="files of checkpoints to damage (30)")
    parser.add_argument(
        "--hub_rounds", type=int, default=1, help="rounds of eight trials for each of seven faults of the Hub (1)"
    )
    parser.add_argument("--keep", action="store_true", help="also keep the folders of successful trials")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the trials and return the exit status."""
    arguments = parse(argv)
    arguments.output_dir = arguments.output_dir.absolute()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    # Before libraries are imported, because they read the environment.
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
