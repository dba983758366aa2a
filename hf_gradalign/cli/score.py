"""Score corpora with a trained detector: one line `utterance_id score` per clip, higher for bona fide.

python scripts/score_audio_spoof.py runs/my-run
python scripts/score_audio_spoof.py you/your-detector --corpus asvspoof2021_df:/data/DF in_the_wild:/data/itw
python scripts/score_audio_spoof.py runs/my-run --audio recordings/ interview.wav --windows all --combine min
torchrun --nproc_per_node 8 -m hf_gradalign.cli score you/your-detector --corpus asvspoof5:/data/asvspoof5

To resume an interrupted scoring, run the same command again. scripts/evaluate_scores.py computes error rates. A model
calibrated by hf-gradalign calibrate gives log-likelihood ratios, and --verdict turns them into decisions.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gradalign import data, metrics, scoring, training
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.cli.commands import CONVERSION_OPTIONS_HELP, conversion_options, set_up_libraries
from hf_gradalign.scoring import companions
from hf_gradalign.utils.figure_style import import_matplotlib
from hf_gradalign.utils.folder_listing import is_utf8, last_part, printable
from hf_gradalign.utils.messages import error_line
from hf_gradalign.utils.plain_text import one_line

if TYPE_CHECKING:
    from datasets import Dataset

_OF_CORPORA = (
    "split",
    "subset",
    "on_missing_audio",
    "config_name",
    "audio_column_name",
    "label_column_name",
    "id_column_name",
    "label_map",
    "columns",
)
_DECIDING = ("p_spoof", "c_miss", "c_fa", "undecided_band")
AFTER_INTERRUPT = "run the same command again, without --overwrite, to resume"
_SHOWN = 20  # scores of up to this many recordings are also printed


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser("score", __doc__, "MODEL")
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder or Hub id of a trained detector, or of any two-class audio classifier, or the path of a published "
        "detector's file",
    )
    parser.add_argument(
        "--corpus",
        nargs="+",
        metavar="NAME[:PATH]",
        help="corpora to score: a name with its path (asvspoof2019_la:PATH, ...), a folder, a file or a Hub id "
        "(default: the demo corpus)",
    )
    parser.add_argument("--audio", nargs="+", type=Path, help="audio files, or folders with them, instead of a corpus")
    parser.add_argument("--split", nargs="+", help="train, validation or test (test)")
    parser.add_argument("--subset", help="for corpora with subsets (ASVspoof 2021: eval, progress, hidden or all)")
    parser.add_argument(
        "--on_missing_audio",
        choices=["stop", "skip"],
        help="what to do if files of the corpus are missing (stop)",
    )
    columns = parser.add_argument_group("columns of all corpora, or CORPUS:VALUE for one corpus (also for --split)")
    columns.add_argument("--config_name", nargs="+", help="configuration of a dataset that has several")
    columns.add_argument("--audio_column_name", nargs="+", help="column with the audio (audio)")
    columns.add_argument("--label_column_name", nargs="+", help="column with the label (label), or none")
    columns.add_argument(
        "--id_column_name",
        nargs="+",
        help="column with the utterance ids (utterance_id, if it exists); none: file names",
    )
    columns.add_argument("--label_map", nargs="+", help="meaning of other labels: 0=spoof 1=bonafide, CORPUS:0=spoof")
    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", type=Path, help="folder for the score files (scores/<model>)")
    output.add_argument("--output_file", type=Path, help="the score file, if there is one corpus")
    output.add_argument("--columns", nargs="+", default=[], help="more columns for the file, such as label system")
    output.add_argument(
        "--overwrite", action="store_true", help="start over; the old scores stay until the new ones are complete"
    )
    output.add_argument(
        "--timeline",
        action="store_true",
        help="also write where in each recording scores change, as JSON Lines, RTTM and Audacity labels, into a folder "
        "next to the score file",
    )
    output.add_argument(
        "--timeline_figures",
        action="store_true",
        help="also draw each timeline under the waveform and the spectrogram (matplotlib, the extra plots)",
    )
    hearing = parser.add_argument_group("windows")
    hearing.add_argument(
        "--windows",
        choices=["first", "all", "whole"],
        help="the first window (the protocol), windows over the whole clip, or the whole clip at once "
        "(default: as saved "
        "with the model)",
    )
    hearing.add_argument(
        "--window_seconds", type=float, help="length of a window (default: as saved with the model, or 4.175)"
    )
    hearing.add_argument(
        "--hop_seconds",
        type=float,
        help="distance between windows, with --windows all (the length of a window) and --timeline (0.5)",
    )
    hearing.add_argument(
        "--share_encoder",
        action="store_true",
        help="with --timeline, compute the encoder once for overlapping windows: much cheaper, but other scores",
    )
    hearing.add_argument(
        "--combine",
        default="mean",
        choices=["mean", "median", "min", "max"],
        help="how to combine the scores of windows (mean)",
    )
    hearing.add_argument("--rms_level", type=float, help="first scale clips to this root mean square")
    hearing.add_argument(
        "--bonafide_label",
        help="bona fide label of the model (name or number), if its label names do not say; none for a model with one "
        "output that is higher for spoof",
    )
    deciding = parser.add_argument_group("verdicts")
    deciding.add_argument(
        "--verdict",
        action="store_true",
        help="also decide: bona fide, spoof or undecided, in a file that ends in _verdicts.jsonl",
    )
    deciding.add_argument("--p_spoof", type=float, help="prior probability of a spoof (0.05)")
    deciding.add_argument("--c_miss", type=float, help="cost of rejecting bona fide speech (1)")
    deciding.add_argument("--c_fa", type=float, help="cost of accepting spoofed speech (10)")
    deciding.add_argument(
        "--undecided_band",
        type=float,
        metavar="NATS",
        help="undecided if the log-likelihood ratio is closer than this to the threshold (0)",
    )
    deciding.add_argument("--raw_scores", action="store_true", help="scores of a calibrated model before calibration")
    work = parser.add_argument_group("performance")
    work.add_argument("--batch_size", type=int, default=16, help="windows per forward pass (16)")
    work.add_argument("--num_workers", type=int, help="processes that decode audio (2; up to 12 with a GPU)")
    work.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16", "float16", "auto"], help="precision (float32)"
    )
    work.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: the accelerator, if there is one)")
    work.add_argument("--no_progress", action="store_true", help="hide the progress bar")
    hub = parser.add_argument_group("Hub")
    hub.add_argument("--revision", help="branch, tag or commit of the model")
    hub.add_argument("--conversion_options", metavar="JSON", help=CONVERSION_OPTIONS_HELP)
    hub.add_argument("--token", help="access token (default: the one from `hf auth login`)")
    hub.add_argument("--trust_remote_code", action="store_true", help="run modeling code that comes with the model")
    arguments = parser.parse_args(argv)
    if unnamable := [printable(word) for word in argv if not is_utf8(word)]:
        parser.error(f"{', '.join(unnamable[:_SHOWN])}: the name is not UTF-8. Rename it, for example with convmv")
    if arguments.corpus and arguments.audio:
        parser.error("pass --corpus or --audio, not both")
    if arguments.audio and (given := [f"--{name}" for name in _OF_CORPORA if getattr(arguments, name)]):
        parser.error(f"{', '.join(given)}: only for a corpus, not with --audio")
    if arguments.output_file and arguments.output_dir:
        parser.error("pass --output_file or --output_dir, not both")
    if arguments.output_file and len(arguments.corpus or ()) > 1:
        parser.error("--output_file is for one corpus; use --output_dir for several")
    if not arguments.verdict and (given := [f"--{name}" for name in _DECIDING if getattr(arguments, name) is not None]):
        parser.error(f"{', '.join(given)}: only with --verdict")
    arguments.timeline |= arguments.timeline_figures
    if arguments.share_encoder and not arguments.timeline:
        parser.error("--share_encoder is for --timeline")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Score from the command line and return the exit status."""
    arguments = parse(argv)
    set_up_libraries(no_progress=arguments.no_progress)
    from transformers.utils import logging  # slow to import

    state = scoring.process_state()
    if not state.is_main_process:
        logging.set_verbosity_error()
    try:
        if arguments.timeline_figures:
            import_matplotlib()  # fail before the work if it is missing
        scorer = scoring.SpoofScorer(
            arguments.model,
            batch_size=arguments.batch_size,
            device=arguments.device or state.device,
            dtype=arguments.dtype,
            windows=arguments.windows,
            window_seconds=arguments.window_seconds,
            # Unless all windows are scored, the hop is for the timeline.
            hop_seconds=None if arguments.timeline and arguments.windows != "all" else arguments.hop_seconds,
            combine=arguments.combine,
            rms_level=arguments.rms_level,
            bonafide_label=arguments.bonafide_label,
            num_workers=arguments.num_workers,
            raw_scores=arguments.raw_scores,
            revision=arguments.revision,
            conversion_options=conversion_options(arguments.conversion_options),
            token=arguments.token,
            trust_remote_code=arguments.trust_remote_code,
        )
        deciding = {name: value for name in _DECIDING if (value := getattr(arguments, name)) is not None}
        rule = scoring.rule_for(scorer, **deciding) if arguments.verdict else None  # fails before the work
        if arguments.timeline:  # an impossible hop should not appear after hours of scoring
            scoring.timeline.timeline_windows(scorer, arguments.window_seconds, arguments.hop_seconds)
        for corpus, split, dataset in load(arguments):
            output = score(scorer, corpus, split, dataset, arguments, rule)
            if arguments.timeline:
                write_timelines(scorer, dataset, output, arguments, rule)
    except (ValueError, OSError, ImportError) as error:
        print(error_line(error, arguments.output_file or arguments.output_dir or "scores"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "the same command" + " without --overwrite" * arguments.overwrite
        print(f"\ninterrupted; {again} resumes", file=sys.stderr)
        return 130
    return 0


def load(arguments: argparse.Namespace) -> list[tuple[str, str, Dataset]]:
    """Load all corpora before the scoring starts. Return a name, the split and the clips of each."""
    if arguments.audio:
        return [("audio", "", scoring.list_audio_files(arguments.audio))]
    with scoring.process_state().main_process_first():
        return load_splits(arguments.corpus or ["demo"], arguments)


def load_splits(corpora: Sequence[str], arguments: argparse.Namespace) -> list[tuple[str, str, Dataset]]:
    """Load the requested split of each corpus, in the form that `load` returns."""
    options = data.CorpusOptions(corpora)
    splits: Any = options.values("--split", arguments.split, "test")
    configs = options.values("--config_name", arguments.config_name)
    audio: Any = options.values("--audio_column_name", arguments.audio_column_name, "audio")
    labels: Any = options.values("--label_column_name", arguments.label_column_name, "label")
    ids = options.values("--id_column_name", arguments.id_column_name)
    label_maps = options.label_maps(arguments.label_map)
    stems = [output_stem(corpus, splits[corpus], arguments) for corpus in corpora]
    if again := [stem for stem in dict.fromkeys(stems) if stems.count(stem) > 1]:
        raise data.CorpusError(
            f"The scores of several corpora would be written to the same file {again[0]}.txt: score them one "
            "by one with "
            "different values of --output_file."
        )
    loaded = []
    for corpus in corpora:
        dataset = data.load_corpus(
            corpus,
            splits=(splits[corpus],),
            subset=arguments.subset,
            on_missing_audio=arguments.on_missing_audio or "stop",
            require_labels=False,
            config_name=configs[corpus],
            token=arguments.token,
            audio_column=audio[corpus],
            label_column=labels[corpus],
            label_map=label_maps[corpus],
            id_column=ids[corpus],
        )[splits[corpus]]
        loaded.append((corpus, splits[corpus], dataset))
    options.check_label_maps(label_maps)
    return loaded


def score(
    scorer: scoring.SpoofScorer,
    corpus: str,
    split: str,
    dataset: Dataset,
    arguments: argparse.Namespace,
    rule: scoring.DecisionRule | None = None,
) -> Path:
    """Score one corpus, print the result, and return the score file."""
    state = scoring.process_state()
    name = corpus if arguments.audio else output_stem(corpus, split, arguments)
    folder = arguments.output_dir or Path("scores", file_stem(arguments.model))
    output = arguments.output_file or folder / f"{name}.txt"
    output.parent.mkdir(parents=True, exist_ok=True)
    report = scoring.score_corpus(
        scorer,
        dataset,
        output,
        columns=arguments.columns,
        overwrite=arguments.overwrite,
        progress=not arguments.no_progress,
    )
    if not state.is_main_process:
        return output
    done = "were scored already" if report.was_complete else "are scored"
    print(f"{report.n_scored} of {report.n_clips} clips of {corpus} {done}: {output}")
    if report.bad_clips:
        print(f"{len(report.bad_clips)} could not be scored; they are in {report.bad_audio_file}")
    if arguments.audio and report.n_scored <= _SHOWN:
        for name, value in scoring.read_score_file(output).items():
            verdict = "" if rule is None else f"  {rule(value, name in report.silent_clips).describe()}"
            print(f"{value:.6f}{verdict}  {one_line(name)}")
        print("A higher score is more likely bona fide.")
    if arguments.audio and scorer.windowing.mode == "first":
        seconds = scorer.windowing.n_samples / scorer.sampling_rate
        print(f"Only the first {seconds:.3g} s of each recording are scored; --windows all scores all of it.")
    if rule is not None:
        file = companions.verdict_file(output)
        counts = scoring.write_verdicts(file, scoring.read_score_file(output), rule, report.silent_clips)
        print(f"{', '.join(f'{count} {label}' for label, count in counts.items())} ({rule.describe()}): {file}")
    if "label" in dataset.column_names:
        print(error_rate(dataset, scoring.read_score_file(output)))
    return output


def write_timelines(
    scorer: scoring.SpoofScorer,
    dataset: Dataset,
    output: Path,
    arguments: argparse.Namespace,
    rule: scoring.DecisionRule | None = None,
) -> None:
    """Write the timelines of a corpus into a folder next to its score file."""
    report = scoring.write_timelines(
        scorer,
        dataset,
        companions.timeline_folder(output),
        window_seconds=arguments.window_seconds,
        hop_seconds=arguments.hop_seconds,
        share_encoder=arguments.share_encoder,
        threshold=None if rule is None else rule.threshold,
        figures=arguments.timeline_figures,
        overwrite=arguments.overwrite,
        progress=not arguments.no_progress,
    )
    if scoring.process_state().is_main_process:
        print(f"{report.n_written} of {len(dataset)} timelines: {report.folder}")


def error_rate(dataset: Dataset, scores: Mapping[str, float]) -> str:
    """Return a sentence with the equal error rate of the clips that have a score and a label, or why there is none."""
    labels = dict(zip(dataset["utterance_id"][:], dataset["label"][:], strict=True))
    truth = {name: labels[name] for name in scores if labels[name] is not None}
    if not truth:
        return f"No error rate: none of the {len(scores)} clips has a label."
    if len(set(truth.values())) == 1:
        only = data.LABEL_NAMES[next(iter(truth.values()))]
        return f"No error rate: all {len(truth)} clips that have a label are {only}."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        rate = metrics.equal_error_rate([scores[name] for name in truth], list(truth.values()))["eer"]
    remarks = "".join(f"\nwarning: {message}" for message in dict.fromkeys(str(item.message) for item in caught))
    unlabeled = len(scores) - len(truth)
    left_out = f" (of the {len(truth)} clips that have a label; {unlabeled} have none)" if unlabeled else ""
    return f"Equal error rate: {100 * rate:.2f} %{left_out}{remarks}"


def output_stem(corpus: str, split: str, arguments: argparse.Namespace) -> str:
    """Return the name of the score file of a corpus, without its suffix."""
    return f"{file_stem(corpus)}_{split}" + (f"_{arguments.subset}" if arguments.subset else "")


def file_stem(name: str) -> str:
    """Turn the name of a corpus or model into a file name."""
    known, is_path, _ = name.partition(":")
    stem = known if is_path and len(known) > 1 else last_part(Path(name))
    return re.sub(r"[^\w.-]+", "_", stem).strip("_").lstrip(".") or "model"


def at_end() -> None:
    """Leave the process group of a distributed scoring."""
    training.leave_process_group()
