"""Draw a run's conflict record: conflict rate per epoch, histogram of cosines, ratio of norms, heat map by module.

python scripts/plot_conflicts.py runs/my-run
python scripts/plot_conflicts.py runs/my-run/conflicts.jsonl --output_dir figures --formats pdf

Runs write the record unless you pass `--conflict_record none`. The heat map needs `--conflict_record_modules`.
A run that is still running, or was killed, can be drawn too. Needs matplotlib (the extra `plots`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hf_gradalign import experiment
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.utils.messages import error_line


def main(argv: Sequence[str]) -> int:
    """Draw from the command line and return the exit status."""
    parser = CommandParser("plot-conflicts", __doc__, "RUN_OR_FILE")
    parser.add_argument("source", metavar="RUN_OR_FILE", type=Path, help="a run's folder, or its conflicts.* file")
    parser.add_argument("--output_dir", type=Path, help="folder for the figures (figures/, next to the record)")
    parser.add_argument(
        "--formats", nargs="+", default=["png", "svg"], help="file formats of the figures, such as pdf (png svg)"
    )
    arguments = parser.parse_args(argv)
    try:
        paths = experiment.draw_conflicts(arguments.source, arguments.output_dir, arguments.formats)
    except (ValueError, OSError, ImportError) as error:
        print(error_line(error, arguments.output_dir or arguments.source), file=sys.stderr)
        return 2
    for path in paths:
        print(path)
    return 0
