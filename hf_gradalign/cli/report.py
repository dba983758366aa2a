"""Report a study: tables, paired differences and figures, made only from its Parquet files.

python scripts/report_study.py runs/studies/quick
python scripts/report_study.py runs/studies/quick --baseline augmented --bootstrap_over speaker --output_dir report

python scripts/report_study.py runs/studies/quick --rebuild_tables

It also works while the study is still running. If tables were lost or damaged, --rebuild_tables rebuilds them from the
trials' folders. Figures need matplotlib (the extra `plots`).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from hf_gradalign import study
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.utils.messages import command, error_line


def main(argv: Sequence[str]) -> int:
    """Report from the command line, and return the exit status."""
    try:
        return report(argv)
    except (ValueError, OSError, ImportError) as error:
        print(error_line(error), file=sys.stderr)
        return 2


def report(argv: Sequence[str]) -> int:
    """Write a report, and return the exit status."""
    defaults = study.ReportSettings()
    parser = CommandParser("report", __doc__, "RESULTS")
    parser.add_argument("results", metavar="RESULTS", type=Path, help="folder with the study's Parquet files")
    parser.add_argument("--output_dir", type=Path, help="folder of the report (report/ in that folder)")
    parser.add_argument(
        "--baseline", default=defaults.baseline, help=f"method to compare others with ({defaults.baseline})"
    )
    parser.add_argument("--bootstrap", type=int, default=defaults.n_draws, help=f"number of draws ({defaults.n_draws})")
    parser.add_argument(
        "--bootstrap_over", default=defaults.over, help="what is drawn: utterance, or a column such as speaker"
    )
    parser.add_argument(
        "--confidence", type=float, default=defaults.confidence, help="coverage of the intervals (0.95)"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of the draws (0)")
    parser.add_argument(
        "--formats", nargs="+", default=["png"], help="formats of the figures, such as pdf, or none (png)"
    )
    parser.add_argument(
        "--rebuild_tables",
        action="store_true",
        help="first rebuild the Parquet files from the trials' folders",
    )
    arguments = parser.parse_args(argv)
    settings = study.ReportSettings(
        arguments.baseline, arguments.bootstrap, arguments.bootstrap_over, arguments.confidence, arguments.seed
    )
    formats = [] if arguments.formats == ["none"] else arguments.formats
    if arguments.rebuild_tables:
        aside, unknown = study.rebuild_tables(arguments.results)
        for path in aside:
            print(f"moved a damaged table to {path}")
        for path in unknown:
            print(f"skipped {path}: its settings are only in the study file; run {command('study')} to add it")
    path = study.write_report(arguments.results, arguments.output_dir, settings, formats)
    print(path)
    return 0
