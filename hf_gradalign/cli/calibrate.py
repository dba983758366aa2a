"""Calibrate scores: turn them into log-likelihood ratios, and store the calibration with the model.

hf-gradalign calibrate dev.txt keys.tsv
hf-gradalign calibrate dev.txt keys.tsv --model runs/my-run
hf-gradalign calibrate dev.txt keys.tsv --apply eval.txt --output_file eval_llr.txt

SCORES is a file with one raw score per utterance, higher for bona fide. Labels are in the same file or in KEYS, as for
hf-gradalign evaluate. The report is on held-out clips: no speaker is in both the fit and its evaluation. With --model,
everything that loads the model gives log-likelihood ratios from then on: hf-gradalign score, SpoofScorer, the
transformers pipeline, exports to ONNX and the Arena class. The reliability diagram needs matplotlib (the extra plots).
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
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
from hf_gradalign.utils.files import require_free, write_text_atomically
from hf_gradalign.utils.plain_text import one_line, today

_FROM = "calibrated_from"  # in the settings of calibrated scores
AFTER_INTERRUPT = "the same command with --overwrite starts again from the beginning"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser("calibrate", __doc__, "SCORES [KEYS]")
    parser.add_argument("scores", metavar="SCORES", help="the score file to fit on")
    parser.add_argument("keys", metavar="KEYS", nargs="?", help="the labels, if they are not in the score file")
    parser.add_argument("--model", metavar="DIR", type=Path, help="folder of the model, to store the calibration in it")
    parser.add_argument("--apply", metavar="OTHER_SCORES", help="a score file to calibrate")
    add_reading_options(parser)
    fit = parser.add_argument_group("fit")
    fit.add_argument(
        "--method",
        choices=["affine", "pav"],
        default="affine",
        help="affine: logistic regression; pav: any non-decreasing map, which needs thousands of clips (affine)",
    )
    fit.add_argument("--prior", type=float, default=0.5, help="prior probability of bona fide clips in the fit (0.5)")
    fit.add_argument("--bonafide_label", help="bona fide label of the model, if its label names do not say")
    fit.add_argument("--trust_remote_code", action="store_true", help="run modeling code that comes with the model")
    add_report_options(parser, draws="number of draws, 0 for no intervals (1000)")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output_dir",
        type=Path,
        default=Path("calibration"),
        help="folder for calibration.json and the reliability diagram (calibration)",
    )
    output.add_argument("--output_file", type=Path, help="file for the calibrated scores of --apply")
    output.add_argument(
        "--formats", nargs="+", default=["png", "svg"], help="formats of the diagram, or none (png svg)"
    )
    output.add_argument("--overwrite", action="store_true", help="replace existing files")
    output.add_argument("--no_progress", action="store_true", help="hide progress bars")
    arguments = parser.parse_args(argv)
    if bool(arguments.apply) != bool(arguments.output_file):
        parser.error("--apply and --output_file go together: the file to calibrate, and the file for the result")
    if arguments.bootstrap < 0 or arguments.bootstrap == 1:
        parser.error("--bootstrap must be 0 (no intervals) or at least 2")
    if arguments.model and (arguments.higher_is == "spoof" or arguments.score_is == "confidence"):
        parser.error("--model needs the model's own scores, higher for bona fide: leave out --higher_is and --score_is")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Calibrate from the command line, and return the exit status."""
    arguments = parse(argv)
    set_up_libraries(no_progress=arguments.no_progress)
    return run_with_warnings(run, arguments)


def run(arguments: argparse.Namespace) -> None:
    """Check all inputs, fit the calibration, and write it with its report."""
    file = arguments.output_dir / "calibration.json"
    outputs = [file, *([arguments.output_file] if arguments.output_file else [])]
    require_score_file_name(arguments.output_file)
    require_other_files(outputs, [arguments.scores, arguments.keys, arguments.apply])
    if arguments.output_file:
        require_own_settings(arguments.output_file, file)
    with hold_outputs(outputs):
        for path in outputs:
            require_free(path, arguments.overwrite)
        draws_figure = arguments.formats != ["none"] and has_matplotlib(arguments.formats)
        settings = hub.scoring_settings(arguments.scores)
        require_raw(arguments.scores, settings)
        clips, score_is = load(arguments)
        clips.require_no_trials()
        other = load_other(arguments, clips, score_is, settings) if arguments.apply else None
        model = open_model(arguments, settings) if arguments.model else None
        report = score_files.calibrate_scores(
            clips,
            method=arguments.method,
            prior=arguments.prior,
            hold_out=arguments.hold_out,
            n_folds=arguments.folds,
            draws_over=arguments.bootstrap_over,
            n_draws=arguments.bootstrap,
            confidence=arguments.confidence,
            seed=arguments.seed,
            progress=not arguments.no_progress,
        )
        for note in dict.fromkeys([*clips.notes, *(other.notes if other else ()), *report.problems]):
            print(f"note: {one_line(note)}", file=sys.stderr)
        print(report.describe())
        made = provenance(arguments, report, settings)
        content = {**report.calibration.as_dict(), **made, "date": today(), "report": report.as_dict()}
        write_text_atomically(file, json.dumps(content, indent=2) + "\n")
        print(f"\n{file}")
        if draws_figure:
            systems = {"before": clips.scores, "after, held out": report.held_out}
            figure = score_files.draw_reliability(systems, clips.labels)
            for path in score_files.save_figures({"reliability": figure}, arguments.output_dir, arguments.formats):
                print(path)
        if other is not None:
            assert other.scores is not None, "load_other raises if there are none"
            ids = other.utterance_ids.to_pylist()
            score_files.write_score_file(arguments.output_file, ids, report.calibration(other.scores).tolist())
            write_settings(arguments, report)
            print(f"{len(ids)} calibrated scores are in {arguments.output_file}")
        if model is not None:
            store(model, report, made)


def require_own_settings(output_file: Path, file: Path) -> None:
    """Check that the settings of the calibrated scores do not replace another file, even with --overwrite."""
    path = output_file.with_suffix(".json")
    settings = hub.scoring_settings(output_file) or {}
    if path.resolve() == file.resolve() or (path.exists() and _FROM not in settings):
        raise FileExistsError(
            f"the settings of {output_file} would be written to {path}, which is a different file: choose another "
            "output"
        )


def write_settings(arguments: argparse.Namespace, report: score_files.CalibrationReport) -> None:
    """Write next to the scores that they are calibrated, so that nobody calibrates them again."""
    settings = {"calibration": report.calibration.as_dict(), _FROM: Path(arguments.apply).name}
    content = {"settings": settings, "report": {"score_file": arguments.output_file.name}}
    write_text_atomically(arguments.output_file.with_suffix(".json"), json.dumps(content, indent=2) + "\n")


def has_matplotlib(formats: Sequence[str]) -> bool:
    """Return whether the diagram can be drawn; if not, print what is missing. An unknown format is a ValueError."""
    try:
        score_files.import_matplotlib(formats)
    except ImportError as error:
        print(f"note: no reliability diagram is drawn: {error}", file=sys.stderr)
        return False
    return True


def load(arguments: argparse.Namespace) -> tuple[score_files.Clips, str | None]:
    """Read the scores to fit on and their labels. Also return the --score_is that was passed or detected."""
    scores = read_scores(arguments.scores, arguments, has_keys=arguments.keys is not None)
    if arguments.keys is None:
        clips = score_files.with_own_labels(scores)
    else:
        keys = read_keys(arguments.keys, arguments)
        match = score_files.match_labels(scores, keys)
        clips = score_files.with_few_missing(match, scores, keys, allow_missing=arguments.partial)
    if arguments.model and clips.score_form in ("confidence", "probability"):
        which = "predicted labels" if clips.score_form == "confidence" else "both classes"
        raise score_files.ScoreFileError(
            f"{arguments.scores} has probabilities of {which} instead of a model's scores, so the calibration cannot "
            "be stored with --model. Score with hf-gradalign score"
        )
    return clips, "confidence" if clips.score_form == "confidence" else arguments.score_is


def load_other(
    arguments: argparse.Namespace, fitted: score_files.Clips, score_is: str | None, settings: Mapping[str, Any] | None
) -> score_files.Clips:
    """Read the clips to calibrate, in the same way as those of the fit. Their labels are not needed."""
    others = hub.scoring_settings(arguments.apply)
    require_raw(arguments.apply, others)
    if settings and others:
        if settings.get("model_sha256") != others.get("model_sha256"):
            raise score_files.ScoreFileError(
                f"{arguments.apply} has scores of another model than {arguments.scores}, but a calibration is valid "
                "only for the scores of one model."
            )
        if hub.windowing_of(settings) != hub.windowing_of(others):
            warnings.warn(
                f"{arguments.apply} was scored with other windows than {arguments.scores}, so the calibration may not "
                "fit it.",
                UserWarning,
                stacklevel=2,
            )
    reading = argparse.Namespace(**{**vars(arguments), "score_is": score_is})
    other = read_scores(arguments.apply, reading, has_keys=True)
    score_files.require_same_form(other, fitted.score_form, fitted.source)
    scores, fitted_scores = score_files.unlabeled_scores(other), fitted.scores_and_labels()[0]
    score_files.warn_if_outside(
        scores, other.source, float(fitted_scores.min()), float(fitted_scores.max()), fitted.source
    )
    return replace(other, scores=scores)


def require_raw(path: str, settings: Mapping[str, Any] | None) -> None:
    """Check that scores are not calibrated yet."""
    if settings and settings.get("calibration"):
        raise score_files.ScoreFileError(
            f"{path} has calibrated scores already (its settings in {Path(path).with_suffix('.json').name} say so): "
            "score with hf-gradalign score ... --raw_scores"
        )


def open_model(arguments: argparse.Namespace, settings: Mapping[str, Any] | None) -> hub.CalibratedFolder:
    """Open the model's folder, and check that the scores come from this model."""
    model = hub.CalibratedFolder(
        arguments.model, arguments.bonafide_label, trust_remote_code=arguments.trust_remote_code
    )
    model.require_method(arguments.method, hub.windowing_of(settings) if settings else None)
    if settings and settings.get("model_sha256"):
        model.require_same_model(settings["model_sha256"])
    else:
        warnings.warn(
            f"{Path(arguments.scores).with_suffix('.json').name}, in which hf-gradalign score writes how it made the "
            f"scores, is not next to {arguments.scores}. So it is unknown whether these are raw scores of "
            f"{arguments.model}.",
            UserWarning,
            stacklevel=2,
        )
    return model


def provenance(
    arguments: argparse.Namespace, report: score_files.CalibrationReport, settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what the calibration was fitted on, without local paths."""
    return {
        "fitted_on": describe_files(scores=arguments.scores, keys=arguments.keys),
        "n_bonafide": report.n_bonafide,
        "n_spoof": report.n_spoof,
        **({"windowing": hub.windowing_of(settings)} if settings else {}),
    }


def store(model: hub.CalibratedFolder, report: score_files.CalibrationReport, made: Mapping[str, Any]) -> None:
    """Store the calibration with the model, and print what changed."""
    earlier = model.earlier
    model.store(report.calibration, **made, table=report.table())
    if earlier is not None:
        print(f"The model's calibration of {one_line(earlier.get('date', 'an unknown date'))} is replaced.")
    print(f"{model.folder} is calibrated: its scores are log-likelihood ratios now (raw: --raw_scores).")
    if left := model.unused_weights():
        print(
            f"It also has {', '.join(left)}, with the weights from before the calibration, which are no longer loaded."
        )
