"""Evaluate where in recordings a detector finds spoofed speech: range-based EER and segment EER.

hf-gradalign evaluate-timeline scores/my-run/dev_timeline segment_labels/dev_seglab_0.02.npy
hf-gradalign evaluate-timeline scores/my-run/dev_timeline labels.rttm --resolution 0.16 0.64

TIMELINES is a folder that hf-gradalign score --timeline wrote, or any system's JSON Lines file with the utterance_id,
start, end and score of each window. LABELS is an RTTM file with the names bonafide and spoof, or a PartialSpoof .npy
file. No code in a .npy file is run. docs/metrics.md explains the rates.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_gradalign import data, score_files
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.cli.commands import set_up_libraries
from hf_gradalign.cli.score_file_options import require_other_files
from hf_gradalign.utils.file_locks import hold_output
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.messages import error_line
from hf_gradalign.utils.plain_text import one_line


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser("evaluate-timeline", __doc__, "TIMELINES LABELS")
    parser.add_argument("timelines", metavar="TIMELINES", type=Path, help="the scores over time")
    parser.add_argument("labels", metavar="LABELS", type=Path, help="the labels over time")
    parser.add_argument(
        "--resolution",
        nargs="+",
        type=float,
        metavar="SECONDS",
        help="lengths of segments (default: 0.02 to 0.64, but no shorter than a label)",
    )
    parser.add_argument("--label_map", nargs="+", help="meaning of other labels, such as A07=spoof speaker1=bonafide")
    parser.add_argument(
        "--label_resolution", type=float, metavar="SECONDS", help="length of a label, if the .npy file's name lacks it"
    )
    parser.add_argument(
        "--partial", action="store_true", help="allow more than 5 %% of the recordings to have no scores"
    )
    statistics = parser.add_argument_group("statistics")
    statistics.add_argument(
        "--bootstrap", type=int, default=1000, metavar="N", help="draws of recordings, 0 for no intervals (1000)"
    )
    statistics.add_argument("--confidence", type=float, default=0.95, help="coverage of the intervals (0.95)")
    statistics.add_argument("--seed", type=int, default=0, help="seed of the draws (0)")
    parser.add_argument("--output_json", type=Path, help="also write the results to this file")
    parser.add_argument("--no_progress", action="store_true", help="hide progress bars")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Evaluate from the command line, and return the exit status."""
    arguments = parse(argv)
    set_up_libraries(no_progress=arguments.no_progress)
    try:
        if arguments.output_json is not None:
            scores = sorted(arguments.timelines.glob("*")) if arguments.timelines.is_dir() else [arguments.timelines]
            require_other_files([arguments.output_json], [*scores, arguments.labels])
        labels = score_files.read_segment_labels(
            arguments.labels,
            label_map=data.parse_label_map(arguments.label_map),
            resolution=arguments.label_resolution,
        )
        evaluation = score_files.evaluate_localization(
            score_files.read_timelines(arguments.timelines),
            labels,
            resolutions=arguments.resolution,
            allow_missing=arguments.partial,
            n_draws=arguments.bootstrap,
            confidence=arguments.confidence,
            seed=arguments.seed,
        )
        if arguments.output_json is not None:
            with hold_output(arguments.output_json):
                write_text_atomically(arguments.output_json, json.dumps(evaluation.as_dict(), indent=2) + "\n")
    except (ValueError, OSError) as error:
        print(error_line(error, arguments.output_json), file=sys.stderr)
        return 2
    for note in evaluation.notes:
        print(f"note: {one_line(note)}", file=sys.stderr)
    print(f"{evaluation.describe()}\n\n{evaluation.table()}")
    return 0
