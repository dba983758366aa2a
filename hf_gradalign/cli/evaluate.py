"""Compute error rates, costs and figures from score files of any system.

python scripts/evaluate_scores.py scores.txt keys/DF/CM/trial_metadata.txt --by system codec
python scripts/evaluate_scores.py scores_Wild.txt release_in_the_wild/meta.csv --bootstrap_over speaker
python scripts/evaluate_scores.py cm.txt --asv_scores ASVspoof2019.LA.asv.eval.gi.trl.scores.txt
python scripts/evaluate_scores.py ours.txt keys.tsv --compare theirs.txt --output_dir evaluation

SCORES is a file with one score per utterance, higher for bona fide. Labels are in the same file or in KEYS: a protocol,
keys, a meta.csv, any table with a header, a Parquet file or folder in the Arena's format, or a corpus as for training
(in_the_wild:/data/itw). docs/metrics.md explains the metrics. Figures need matplotlib (the extra `plots`).
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hf_gradalign import metrics, score_files
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.cli.commands import set_up_libraries
from hf_gradalign.cli.score_file_options import add_reading_options, read_keys, read_scores, require_other_files
from hf_gradalign.utils.file_locks import hold_outputs
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.messages import error_line
from hf_gradalign.utils.plain_text import one_line

_COSTS = ("p_spoof", "c_miss", "c_fa")

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Match: TypeAlias = tuple[score_files.Clips, NDArray, list[str]]
    """Clips with the scores of one system, the scores of another one, and notes on how they were matched."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser("evaluate", __doc__, "SCORES [KEYS]")
    parser.add_argument("scores", metavar="SCORES", help="a score file")
    parser.add_argument("keys", metavar="KEYS", nargs="?", help="the labels, if they are not in the score file")
    parser.add_argument(
        "--compare", nargs="+", default=[], metavar="OTHER_SCORES", help="compare with other systems by a paired test"
    )
    parser.add_argument("--by", nargs="+", default=[], metavar="COLUMN", help="break down: system, codec, speaker, ...")
    columns = add_reading_options(parser)
    columns.add_argument("--sasv", action="store_true", help="evaluate spoofing-robust speaker verification: a-DCF")
    computed = parser.add_argument_group("metrics")
    computed.add_argument(
        "--threshold",
        help="for accuracy and F1: a number, or the evaluation.json of development data (its EER threshold)",
    )
    computed.add_argument("--p_spoof", type=float, help="prior probability of a spoof, for minDCF and actDCF (0.05)")
    computed.add_argument("--c_miss", type=float, help="cost of rejecting a bona fide clip, for minDCF and actDCF (1)")
    computed.add_argument("--c_fa", type=float, help="cost of accepting a spoofed clip, for minDCF and actDCF (10)")
    computed.add_argument("--asv_scores", help="for min t-DCF: the verifier's score file, or asvspoof5")
    computed.add_argument(
        "--asv_keys", help="for ASVspoof 2021: ASV/trial_metadata.txt (default: its place in the archive)"
    )
    computed.add_argument(
        "--asv_rates",
        nargs=3,
        type=float,
        metavar=("MISS", "FA", "SPOOF_FA"),
        help="the verifier's error rates as fractions, instead of --asv_scores",
    )
    statistics = parser.add_argument_group("statistics")
    statistics.add_argument(
        "--bootstrap", type=int, default=1000, metavar="N", help="number of draws, 0 for no intervals (1000)"
    )
    statistics.add_argument(
        "--bootstrap_over", default="utterance", help="what is drawn: utterance, or a column such as speaker"
    )
    statistics.add_argument("--confidence", type=float, default=0.95, help="coverage of the intervals (0.95)")
    statistics.add_argument("--seed", type=int, default=0, help="seed of the draws (0)")
    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", type=Path, help="folder for evaluation.json and the figures")
    output.add_argument("--output_json", type=Path, help="the JSON file (default: evaluation.json in that folder)")
    output.add_argument(
        "--formats", nargs="+", default=["png", "svg"], help="formats of the figures, or none (png svg)"
    )
    output.add_argument("--no_progress", action="store_true", help="hide progress bars")
    arguments = parser.parse_args(argv)
    if arguments.asv_scores and arguments.asv_rates:
        parser.error("pass --asv_scores or --asv_rates, not both")
    if arguments.bootstrap < 0 or arguments.bootstrap == 1:
        parser.error("--bootstrap must be 0 (no intervals) or at least 2")
    if arguments.compare and not arguments.bootstrap:
        parser.error("--compare is a bootstrap test: set --bootstrap to at least 2")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Evaluate from the command line, and return the exit status."""
    arguments = parse(argv)
    set_up_libraries(no_progress=arguments.no_progress)
    draws_figures = arguments.output_dir is not None and arguments.formats != ["none"]
    try:
        if draws_figures:  # fail before the work if it cannot draw
            score_files.import_matplotlib(arguments.formats, is_optional=True)
        inputs = [arguments.scores, arguments.keys, *arguments.compare, arguments.asv_scores, arguments.asv_keys]
        outputs = output_files(arguments)
        require_other_files(outputs, [*inputs, arguments.threshold])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            with hold_outputs(outputs):
                told = run(arguments, draws_figures)
        messages = dict.fromkeys(str(item.message) for item in caught if issubclass(item.category, UserWarning))
        for message in messages:
            if message not in told:
                print(f"warning: {one_line(message)}", file=sys.stderr)
    except (ValueError, OSError, ImportError) as error:
        print(error_line(error, arguments.output_dir or arguments.output_json), file=sys.stderr)
        return 2
    return 0


def run(arguments: argparse.Namespace, draws_figures: bool) -> list[str]:
    """Evaluate the scores, and print and write the results. Return the warnings that were printed."""
    clips = load(arguments.scores, arguments)
    others = [load(path, arguments) for path in arguments.compare]  # fail before the work if one cannot be read
    require_used_options(arguments, clips)
    matches = [match_other(clips, theirs) for theirs in others]
    settings = make_settings(arguments, clips)
    path = output_file(arguments)
    evaluate = score_files.evaluate_clips if clips.trial_types is None else score_files.evaluate_trials
    evaluation = evaluate(clips, settings, progress=not arguments.no_progress)
    show(evaluation)
    result, told = evaluation.as_dict(), list(evaluation.problems)
    systems = [(clips.scores, clips.labels)]
    if others:
        result["comparisons"] = {}
        for other, theirs, match in zip(arguments.compare, others, matches, strict=True):
            told += show_problems(clips, theirs, match, settings, evaluation.problems)
            result["comparisons"][other] = compare(clips, theirs, match, settings, progress=not arguments.no_progress)
            systems.append((theirs.scores, theirs.labels))
        n_tests = len(others) * len(score_files.metrics_of(settings))
        print(
            f"\nThe p-values are not corrected for the number of tests ({n_tests}). Of 20 tests of equal systems, "
            "about one has p < 0.05."
        )
    if path is not None:
        write_text_atomically(path, json.dumps(result, indent=2) + "\n")
        print(f"\n{path}")
    if draws_figures and evaluation.eer_threshold is not None:
        named = dict(zip(names_of([arguments.scores, *arguments.compare]), systems, strict=True))
        for path in draw(evaluation, clips, named, arguments):
            print(path)
    return told


def require_used_options(arguments: argparse.Namespace, clips: score_files.Clips) -> None:
    """Check that every passed option has an effect on these clips."""
    both_classes = ("asv_scores", "asv_rates", *_COSTS)
    if clips.trial_types is not None:
        names, needed = ("by", "threshold", "compare", *both_classes), "countermeasures"
        found = "has trials of speaker verification (labels that are target, nontarget or spoof)"
    elif arguments.sasv:
        raise score_files.ScoreFileError(
            "--sasv needs labels that are target, nontarget or spoof (asv-label), but these labels are different. "
            "Leave it out, or pass other KEYS."
        )
    elif len(set(clips.scores_and_labels()[1].tolist())) == 1:
        names, needed, found = both_classes, "clips of both classes", "has clips of only one"
    else:
        return
    if given := [f"--{name}" for name in names if getattr(arguments, name) not in (None, [])]:
        raise score_files.ScoreFileError(
            f"{', '.join(given)}: only for {needed}, but {arguments.scores} {found}. Leave the options out."
        )


def output_files(arguments: argparse.Namespace) -> list[Path]:
    """Return the files to lock against other evaluations: the results, and `evaluation.json` next to the figures."""
    folder = arguments.output_dir
    named = (arguments.output_json, None if folder is None else folder / "evaluation.json")
    return [path for path in named if path is not None]


def output_file(arguments: argparse.Namespace) -> Path | None:
    """Return the path of the results, if any, after creating its folders and checking that they are writable."""
    if arguments.output_dir is None and arguments.output_json is None:
        return None
    path = arguments.output_json or arguments.output_dir / "evaluation.json"
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    for folder in {path.parent, arguments.output_dir or path.parent}:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # fail now, not after the work
            pass
    return path


def load(path: str, arguments: argparse.Namespace) -> score_files.Clips:
    """Read scores and their labels."""
    has_keys = arguments.keys is not None
    scores = read_scores(path, arguments, has_keys=has_keys, of_trials=arguments.sasv)
    if not has_keys:
        return score_files.with_own_labels(scores)
    keys = read_keys(arguments.keys, arguments, of_trials=arguments.sasv)
    return score_files.match_keys(scores, keys, allow_missing=arguments.partial)


def make_settings(arguments: argparse.Namespace, clips: score_files.Clips) -> score_files.Settings:
    """Make the settings of the evaluation of these clips."""
    is_trials = clips.trial_types is not None
    asv = None
    if arguments.asv_rates:
        asv = metrics.AsvErrorRates(*arguments.asv_rates)
    elif arguments.asv_scores:
        asv = score_files.read_asv_error_rates(arguments.asv_scores, arguments.asv_keys, subset=arguments.subset)
    return score_files.Settings(
        threshold=None if is_trials else read_threshold(arguments.threshold, clips),
        asv=None if is_trials else asv,
        costs=metrics.DetectionCosts(
            **{name: value for name in _COSTS if (value := getattr(arguments, name)) is not None}
        ),
        by=() if is_trials else tuple(arguments.by),
        n_draws=arguments.bootstrap,
        over=arguments.bootstrap_over,
        confidence=arguments.confidence,
        seed=arguments.seed,
    )


def read_threshold(given: str | None, clips: score_files.Clips) -> float | None:
    """Parse a number, or read the equal error threshold of an earlier evaluation of scores of the same form."""
    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        pass
    try:
        content = json.loads(Path(given).read_text(encoding="utf-8"))
        threshold, form = float(content["eer_threshold"]), content.get("score_form")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise score_files.ScoreFileError(
            f"--threshold must be a number or the evaluation.json of development data, not {given!r} ({error!r})."
        ) from error
    score_files.require_same_form(clips, form, given)
    return threshold


def show(evaluation: score_files.Evaluation) -> None:
    """Print the tables, and on standard error the notes and warnings."""
    for note in evaluation.notes:
        print(f"note: {one_line(note)}", file=sys.stderr)
    for problem in evaluation.problems:
        print(f"warning: {one_line(problem)}", file=sys.stderr)
    print(f"{score_files.described(evaluation)}\n\n{score_files.overall_table(evaluation)}")
    if costs := score_files.describe_costs(evaluation):
        print(f"\n{costs}")
    if evaluation.settings.asv is not None and "min_tdcf" in evaluation.rows:
        rates = ", ".join(
            f"{name.replace('_', ' ')} {100 * rate:.4f} %" for name, rate in evaluation.settings.asv._asdict().items()
        )
        print(f"Verifier for the t-DCF: {rates}.")
    for column, breakdown in evaluation.breakdowns.items():
        print(f"\n{score_files.breakdown_table(column, breakdown, evaluation.rows)}")


def match_other(clips: score_files.Clips, theirs: score_files.Clips) -> Match:
    """Match the clips of two systems, and check that they can be compared on them."""
    match = score_files.match_systems(clips, theirs)
    if len(set(match[0].scores_and_labels()[1].tolist())) < 2:
        raise score_files.ScoreFileError(
            f"--compare needs clips of both classes, but those in {clips.source} and {theirs.source} are all of one "
            "class. Leave it out, or pass other files."
        )
    return match


def show_problems(
    clips: score_files.Clips,
    theirs: score_files.Clips,
    match: Match,
    settings: score_files.Settings,
    known: Sequence[str],
) -> list[str]:
    """Print the warnings for the scores of two matched systems with their names, and return them without names.

    The first system's warnings in `known`, from its own evaluation, are not printed again.
    """
    common, other, _ = match
    scores, labels = common.scores_and_labels()
    theirs_told = score_files.problems_of(metrics.RankedScores(other, labels).counted(), common, settings)
    ours_told = []
    if len(common) < len(clips):
        problems = score_files.problems_of(metrics.RankedScores(scores, labels).counted(), common, settings)
        ours_told = [problem for problem in problems if problem not in known]
    for problem in ours_told:
        print(f"warning: {one_line(clips.source)}, clips of both: {one_line(problem)}", file=sys.stderr)
    for problem in theirs_told:
        print(f"warning: {one_line(theirs.source)}: {one_line(problem)}", file=sys.stderr)
    return [*ours_told, *theirs_told]


def compare(
    clips: score_files.Clips,
    theirs: score_files.Clips,
    match: Match,
    settings: score_files.Settings,
    *,
    progress: bool,
) -> Mapping[str, Any]:
    """Print the paired test of two matched systems, and return it for JSON."""
    common, other, notes = match
    for note in [*(note for note in theirs.notes if note not in clips.notes), *notes]:
        print(f"note: {one_line(note)}", file=sys.stderr)
    comparisons = score_files.compare_clips(common, other, settings, progress=progress)
    print(
        f"\n{one_line(clips.source)} (first) against {one_line(theirs.source)} (second), {len(common)} clips, "
        f"paired bootstrap of {score_files.describe_draws(settings)}:\n\n"
        f"{score_files.comparison_table(comparisons, score_files.metrics_of(settings))}"
    )
    return {"n_clips": len(common), **{name: asdict(comparison) for name, comparison in comparisons.items()}}


def draw(
    evaluation: score_files.Evaluation,
    clips: score_files.Clips,
    systems: Mapping[str, Any],
    arguments: argparse.Namespace,
) -> list[Path]:
    """Draw the figures, and return their paths."""
    figures = {
        "det": score_files.draw_det(systems),
        "scores": score_files.draw_histograms(clips.scores, clips.labels, evaluation.eer_threshold),
    }
    for column, breakdown in evaluation.breakdowns.items():
        name = re.sub(r"[/\\]", "_", column)
        figures[f"eer_by_{name}"] = score_files.draw_bars(column, breakdown, evaluation.rows["eer"].value)
    return score_files.save_figures(figures, arguments.output_dir, arguments.formats)


def names_of(paths: Sequence[str]) -> list[str]:
    """Return the names of score files in figures: without their folders if they are distinct."""
    stems = [Path(path).stem for path in paths]
    return stems if len(set(stems)) == len(stems) else list(paths)
