#!/usr/bin/env python
"""Calibrate a model of the demo corpus in three ways, and report what each gains and how many clips stay undecided.

python scripts/run_audio_spoof.py --align_gradients --output_dir runs/demo
python scripts/calibrate_demo_model.py runs/demo --output_dir calibration_demo

The clips are from the test split, whose speakers and spoofing systems the model does not know. Each way fits the
calibration on other clips: the validation split, the other speakers of the test split, or any other clips of the test
split. Writes the tables of docs/verdicts.md to report.md, and reliability diagrams.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hf_gradalign.cli.commands import run_command
from hf_gradalign.data import load_corpus
from hf_gradalign.metrics import Interval, bootstrap_intervals, fit_calibration
from hf_gradalign.score_files import Clips, calibrate_scores, draw_reliability, save_figures
from hf_gradalign.score_files.calibrating import REPORTED
from hf_gradalign.score_files.report import markdown_table
from hf_gradalign.scoring import DecisionRule, SpoofScorer
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.messages import error_line

BANDS = (0.0, 0.5, 1.0, 2.0)


def main(argv: Sequence[str]) -> int:
    """Score, calibrate and write the report, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model that was trained on the demo corpus")
    parser.add_argument("--output_dir", type=Path, default=Path("calibration_demo"), help="folder for the report")
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of the intervals (1000)")
    arguments = parser.parse_args(argv)
    try:
        scorer = SpoofScorer(arguments.model, raw_scores=True)
        validation, test = (scored_split(scorer, split) for split in ("validation", "test"))
    except (ValueError, OSError) as error:
        print(error_line(error), file=sys.stderr)
        return 2
    scores, labels = test.scores_and_labels()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few speakers: some draws lack a class
        ratios = {
            "not calibrated": scores,
            "fitted on the validation split": fit_calibration(*validation.scores_and_labels())(scores),
            "fitted on the other speakers": calibrate_scores(test, n_draws=0).held_out,
            "fitted on other clips": calibrate_scores(test, hold_out="utterance", n_draws=0).held_out,
        }
        speakers = test.columns["speaker"].to_pylist()
        options = {"clusters": speakers, "n_draws": arguments.bootstrap}
        measured = {
            name: bootstrap_intervals(list(REPORTED.values()), values, labels, **options)
            for name, values in ratios.items()
        }
    report = f"{gains(measured)}\n\n{shares(ratios, labels)}\n"
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    write_text_atomically(arguments.output_dir / "report.md", report)
    print(report)
    for path in save_figures({"reliability": draw_reliability(ratios, labels)}, arguments.output_dir):
        print(path)
    return 0


def scored_split(scorer: SpoofScorer, split: str) -> Clips:
    """Return a split of the demo corpus with raw scores, labels and speakers."""
    dataset = load_corpus("demo", splits=(split,))[split]
    scores = scorer.score(dataset.with_format(None)["audio"][:])
    names = pa.array([str(name) for name in dataset["utterance_id"][:]])
    speakers = pa.array([str(name) for name in dataset["speaker"][:]])
    return Clips(f"demo, {split}", names, scores, np.array(dataset["label"][:]), columns={"speaker": speakers})


def gains(measured: dict[str, dict[str, Interval]]) -> str:
    """Format the metrics of each calibration."""
    header = ["calibration", *(metric.title for metric in REPORTED.values())]
    rows = [
        [name, *(f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})" for value in values.values())]
        for name, values in measured.items()
    ]
    return markdown_table(header, rows)


def shares(ratios: dict[str, NDArray[np.float64]], labels: NDArray[np.int64]) -> str:
    """Format the share of undecided clips, and that of errors among the others, for several bands."""
    header = ["calibration", *(f"band {band:g}: undecided, errors of the rest" for band in BANDS)]
    rows = []
    for name, values in list(ratios.items())[1:]:
        cells = [name]
        for band in BANDS:
            decided = [verdict.label for verdict in DecisionRule(True, undecided_band=band).decide(values)]
            truth = ["bonafide" if label else "spoof" for label in labels]
            kept = [(found, true) for found, true in zip(decided, truth, strict=True) if found != "undecided"]
            wrong = sum(found != true for found, true in kept) / max(len(kept), 1)
            cells.append(f"{100 * (1 - len(kept) / len(labels)):.0f} %, {100 * wrong:.0f} %")
        rows.append(cells)
    return markdown_table(header, rows)


if __name__ == "__main__":
    run_command(main)
