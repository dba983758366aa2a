"""Fuse the scores of several systems into calibrated log-likelihood ratios.

hf-gradalign fuse dev/aasist.txt dev/sls.txt --keys dev.tsv
hf-gradalign fuse dev/aasist.txt dev/sls.txt --keys dev.tsv --apply eval/aasist.txt eval/sls.txt --output_file fused.txt
hf-gradalign fuse --fusion fusion/fusion.json --apply eval/aasist.txt eval/sls.txt --output_file fused.txt

Weights are fitted by regularized logistic regression on SCORES and their labels. The report is on held-out clips: no
speaker is in both the fit and its evaluation. It says whether the fusion beats the best single system. --apply fuses
other files of the same systems in the same order.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_gradalign import hub, score_files
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.cli.commands import set_up_libraries
from hf_gradalign.cli.score_file_options import (
    add_reading_options,
    add_report_options,
    describe_files,
    read_keys,
    read_scores,
    require_other_files,
    require_score_file_name,
    run_with_warnings,
)
from hf_gradalign.utils.file_locks import hold_outputs
from hf_gradalign.utils.files import require_free, sha256_of
from hf_gradalign.utils.plain_text import one_line, today


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser("fuse", __doc__, "[SCORES ...]")
    parser.add_argument("scores", metavar="SCORES", nargs="*", help="score files to fit on, one per system")
    parser.add_argument("--keys", help="the labels, if they are not in the score files")
    parser.add_argument("--apply", nargs="+", default=[], metavar="OTHER_SCORES", help="score files to fuse")
    parser.add_argument(
        "--fusion", type=Path, help="with --apply: the fusion.json of an earlier fit, instead of SCORES"
    )
    add_reading_options(parser)
    fit = parser.add_argument_group("fit")
    fit.add_argument("--prior", type=float, default=0.5, help="prior probability of bona fide clips in the fit (0.5)")
    fit.add_argument(
        "--l2", type=float, help="strength of the penalty (0.1 / number of clips of the smaller class); 0 for none"
    )
    add_report_options(parser, draws="draws of the paired test (1000)")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output_dir",
        type=Path,
        default=Path("fusion"),
        help="folder for fusion.json, held_out.txt and, if clips are missing, missing.tsv (fusion)",
    )
    output.add_argument("--output_file", type=Path, help="file for the fused scores of --apply")
    output.add_argument("--overwrite", action="store_true", help="replace existing files")
    output.add_argument("--no_progress", action="store_true", help="hide progress bars")
    arguments = parser.parse_args(argv)
    if bool(arguments.apply) != bool(arguments.output_file):
        parser.error("--apply and --output_file go together: the files to fuse, and the file for the result")
    if arguments.fusion and (arguments.scores or arguments.keys):
        parser.error("--fusion is already fitted: leave SCORES and --keys out, and pass the files to fuse with --apply")
    if arguments.fusion and not arguments.apply:
        parser.error(
            "--fusion needs files to fuse: pass them with --apply, and the file for the result with --output_file"
        )
    fitting = ("prior", "l2", "hold_out", "folds", "bootstrap", "bootstrap_over", "confidence", "output_dir")
    if arguments.fusion and (
        given := [name for name in fitting if getattr(arguments, name) != parser.get_default(name)]
    ):
        parser.error(f"--fusion is already fitted: leave out {', '.join(f'--{name}' for name in given)}")
    if not arguments.fusion and len(arguments.scores) < 2:
        parser.error(
            f"a fusion needs the score files of at least two systems, not {len(arguments.scores)}; for one system, use "
            "hf-gradalign calibrate"
        )
    return arguments


def main(argv: Sequence[str]) -> int:
    """Fuse from the command line, and return the exit status."""
    arguments = parse(argv)
    set_up_libraries(no_progress=arguments.no_progress)
    return run_with_warnings(run, arguments)


def run(arguments: argparse.Namespace) -> None:
    """Fit or read a fusion, and fuse other files if there are any."""
    outputs = output_files(arguments)
    require_score_file_name(arguments.output_file)
    require_other_files(outputs, [*arguments.scores, *arguments.apply, arguments.keys, arguments.fusion])
    for path in outputs:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if arguments.output_file and scored_with(arguments.output_file):
        raise FileExistsError(
            f"{arguments.output_file} is the output of hf-gradalign score, and "
            f"{arguments.output_file.with_suffix('.json').name} says how it was made: choose another output"
        )
    with hold_outputs(outputs):
        for path in outputs:
            require_free(path, arguments.overwrite)
        if arguments.fusion is None:
            fit(arguments)
        else:
            fusion = score_files.Fusion.load(arguments.fusion)
            apply(fusion, load_others(fusion.names, stored_readings(fusion, arguments), arguments), arguments)


def output_files(arguments: argparse.Namespace) -> list[Path]:
    """Return the files that will be written for any scores."""
    fitted = [] if arguments.fusion else [arguments.output_dir / name for name in ("fusion.json", "held_out.txt")]
    return [*fitted, *([arguments.output_file] if arguments.output_file else [])]


def fit(arguments: argparse.Namespace) -> None:
    """Fit, report and save a fusion, and fuse other files if there are any."""
    joint = load(arguments)
    readings = [
        {
            "higher_is": arguments.higher_is,
            "score_is": "confidence" if was_confidence else arguments.score_is,
            "scored_with": scored_with(path),
            "score_form": form,
        }
        for path, was_confidence, form in zip(arguments.scores, joint.were_confidences, joint.score_forms, strict=True)
    ]
    # Fail before the work if the other files cannot be fused.
    others = load_others(joint.names, readings, arguments) if arguments.apply else None
    fusion = score_files.fit_fusion(joint.scores, joint.labels, joint.names, prior=arguments.prior, l2=arguments.l2)
    report = score_files.cross_validate_fusion(
        joint,
        prior=arguments.prior,
        l2=arguments.l2,
        hold_out=arguments.hold_out,
        n_folds=arguments.folds,
        draws_over=arguments.bootstrap_over,
        n_draws=arguments.bootstrap,
        confidence=arguments.confidence,
        seed=arguments.seed,
    )
    systems = [
        replace(system, sha256=sha256_of(path) if Path(path).is_file() else None, **reading)
        for system, path, reading in zip(fusion.systems, arguments.scores, readings, strict=True)
    ]
    provenance = {
        "fitted_on": describe_files(keys=arguments.keys),
        "date": today(),
        "held_out": report.as_dict(),
    }
    fusion = replace(fusion, systems=tuple(systems), provenance=provenance)
    fusion.save(arguments.output_dir / "fusion.json")
    ids = report.utterance_ids.to_pylist()
    score_files.write_score_file(arguments.output_dir / "held_out.txt", ids, report.scores.tolist())
    print(report.describe(fusion))
    print(f"\n{arguments.output_dir / 'fusion.json'}\n{arguments.output_dir / 'held_out.txt'}")
    if others is not None:
        apply(fusion, others, arguments)


def apply(fusion: score_files.Fusion, others: score_files.JointScores, arguments: argparse.Namespace) -> None:
    """Fuse other files, and print which file is used for which system."""
    fused = score_files.apply_fusion(fusion, others)
    score_files.write_score_file(arguments.output_file, others.clips.utterance_ids.to_pylist(), fused.tolist())
    print()
    for system, source in zip(fusion.systems, others.sources, strict=True):
        print(f"{one_line(source)} has the weight of {one_line(system.name)}: {system.weight:.6g}")
    print(f"{len(others)} fused scores are in {arguments.output_file}")


def load(arguments: argparse.Namespace) -> score_files.JointScores:
    """Read the scores to fit on, and their labels."""
    has_keys = arguments.keys is not None
    systems = [read_scores(path, arguments, has_keys=has_keys) for path in arguments.scores]
    if has_keys:
        keys = read_keys(arguments.keys, arguments)
    else:
        systems, keys = score_files.own_keys(systems)
    joint = score_files.join_systems(systems, keys, allow_missing=True)
    check_missing(joint, arguments.output_dir / "missing.tsv", arguments.partial)
    return joint


def stored_readings(fusion: score_files.Fusion, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return how each system's file was read in the fit. Later files must be read in the same way."""
    for system in fusion.systems:
        if arguments.higher_is not in (None, system.higher_is or "bonafide"):
            raise score_files.ScoreFileError(
                f"{system.name} was fitted with --higher_is {system.higher_is or 'bonafide'}, but you passed "
                f"--higher_is {arguments.higher_is}. Leave it out: files are read as in the fit."
            )
    return [
        {
            "higher_is": system.higher_is,
            "score_is": arguments.score_is or system.score_is,
            "scored_with": system.scored_with,
            "score_form": system.score_form,
        }
        for system in fusion.systems
    ]


def load_others(
    names: Sequence[str], readings: Sequence[Mapping[str, Any]], arguments: argparse.Namespace
) -> score_files.JointScores:
    """Read the files to fuse, each as its system's file was read in the fit."""
    score_files.require_same_systems(names, arguments.apply)
    score_files.require_same_scoring(
        {name: reading["scored_with"] for name, reading in zip(names, readings, strict=True)},
        [(path, scored_with(path)) for path in arguments.apply],
    )
    systems = [
        read_scores(path, argparse.Namespace(**{**vars(arguments), **reading}), has_keys=True)
        for path, reading in zip(arguments.apply, readings, strict=True)
    ]
    for system, name, reading in zip(systems, names, readings, strict=True):
        score_files.require_same_form(system, reading["score_form"], name)
    others = score_files.join_systems(systems, allow_missing=True)
    output = arguments.output_file
    check_missing(others, output.with_name(f"{output.stem}_missing.tsv"), arguments.partial)
    return others


def scored_with(path: str | Path) -> dict[str, Any] | None:
    """Return the model and settings of a score file, if hf-gradalign score wrote it."""
    if not Path(path).with_suffix(".json").is_file():
        return None
    settings = hub.scoring_settings(path)
    if settings is None:
        return None
    return {name: settings.get(name) for name in ("model_sha256", "calibration")} | hub.windowing_of(settings)


def check_missing(joint: score_files.JointScores, path: Path, is_partial: bool) -> None:
    """Print notes, list the clips that are not in all files, and raise an error if there are too many."""
    for note in joint.notes:
        print(f"note: {one_line(note)}", file=sys.stderr)
    if not joint.missing:
        path.unlink(missing_ok=True)
        return
    joint.write_missing(path)
    print(f"note: {one_line(joint.describe_missing())} {path} lists all that are left out.", file=sys.stderr)
    if not is_partial:
        joint.require_complete()
