"""Run a study: a grid of methods, augmentations, models, heads, batch sizes and seeds, scored on several sets.

python scripts/run_study.py scripts/studies/quick.yaml
python scripts/run_study.py my_study.yaml --slots 4 --output_dir runs/my_study
python scripts/run_study.py my_study.yaml --list

Run the same command again to resume an interrupted study: finished trials are kept, and failed ones are tried again.
Report the results with scripts/report_study.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_gradalign import study as studies
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.utils.messages import command, error_line, join_command

STUDIES_DIR = Path("runs", "studies")
AFTER_INTERRUPT = "run the same command again to resume"


def main(argv: Sequence[str]) -> int:
    """Run from the command line, and return the exit status."""
    parser = CommandParser("study", __doc__, "STUDY")
    parser.add_argument(
        "study", metavar="STUDY", type=Path, help="a YAML file, or study:NAME (quick, small_scale, conflict)"
    )
    parser.add_argument("--output_dir", type=Path, help=f"folder of the study ({STUDIES_DIR}/<its name>)")
    parser.add_argument(
        "--slots", type=int, default=1, help="trials to run at the same time; they share cores and accelerators (1)"
    )
    parser.add_argument(
        "--list", action="store_true", help="list the trials and which ones are finished, without running any"
    )
    parser.add_argument("--no_progress", action="store_true", help="hide the progress bar")
    arguments = parser.parse_args(argv)
    try:
        return run(arguments)
    except (ValueError, OSError) as error:
        print(error_line(error), file=sys.stderr)
        return 2


def run(arguments: argparse.Namespace) -> int:
    """Run or list a study, and return the exit status."""
    from hf_gradalign.study.table_files import EPOCHS_NAME, RESULTS_NAME

    study = studies.Study.read(arguments.study)
    folder = arguments.output_dir or STUDIES_DIR / study.name
    if arguments.list:
        return list_trials(study, folder)
    runner = studies.StudyRunner(study, folder, slots=arguments.slots, progress=not arguments.no_progress)
    report = runner.run()
    n_finished = report.n_finished_before + len(report.finished)
    print(f"{n_finished} of {report.n_trials} trials are finished: {folder / RESULTS_NAME}, {folder / EPOCHS_NAME}")
    if n_finished:
        print(f"For tables, comparisons and figures:\n  {command('report')} {join_command([str(folder)])}")
    for trial_id, log in report.failed.items():
        print(f"failed: {trial_id}: {report.reasons[trial_id]}; see {log}", file=sys.stderr)
    if report.interrupted:
        print(f"interrupted; {AFTER_INTERRUPT}", file=sys.stderr)
        return 130
    return 1 if report.failed else 0


def list_trials(study: studies.Study, folder: Path) -> int:
    """Print one line per trial, and return the exit status."""
    tables = studies.StudyTables(folder)
    tables.refuse_mixing(study)
    for trial in study.trials:
        mark = "finished" if tables.has(trial, study.evaluation_sets) else "to do   "
        print(f"{mark}  {trial.title}")
    print(f"{len(study.trials)} trials, each scored on {', '.join(e.name for e in study.evaluation_sets)}")
    return 0
