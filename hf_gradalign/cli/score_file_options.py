"""Options, checks and messages shared by the commands that read score and key files."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from hf_gradalign import data, score_files
from hf_gradalign.utils.files import sha256_of
from hf_gradalign.utils.messages import error_line
from hf_gradalign.utils.plain_text import one_line


def add_reading_options(parser: argparse.ArgumentParser) -> Any:
    """Add the options, and return the group with the options for columns."""
    parser.add_argument("--subset", help="for keys with subsets (ASVspoof 2021): eval (default), progress, hidden, all")
    parser.add_argument("--split", default="test", help="split, if KEYS is a corpus (test)")
    parser.add_argument("--partial", action="store_true", help="allow more than 5 %% of the keys to have no score")
    columns = parser.add_argument_group("columns that are not detected (a name, or a number counted from 1)")
    columns.add_argument("--score_column", help="column with the scores")
    columns.add_argument("--id_column", help="column with the utterance ids in SCORES")
    columns.add_argument("--key_id_column", help="column with the utterance ids in KEYS")
    columns.add_argument("--label_column", help="column with the labels, in KEYS or, without KEYS, in SCORES")
    columns.add_argument("--label_map", nargs="+", help="meaning of other labels, such as 0=spoof 1=bonafide")
    columns.add_argument("--higher_is", choices=["bonafide", "spoof"], help="what a high score means (bonafide)")
    columns.add_argument(
        "--score_is",
        choices=["score", "confidence"],
        help="confidence: the probability of the predicted label in SCORES; score: rank as it is (default: detected)",
    )
    return columns


def add_report_options(parser: argparse.ArgumentParser, draws: str) -> None:
    """Add the options of a report on held-out clips; `draws` is the help text of --bootstrap."""
    report = parser.add_argument_group("report")
    report.add_argument(
        "--hold_out",
        metavar="COLUMN",
        help="what is held out as a whole: utterance, or a column (speaker, if there is one)",
    )
    report.add_argument("--folds", type=int, default=5, help="number of parts that are held out in turn (5)")
    report.add_argument("--bootstrap", type=int, default=1000, metavar="N", help=draws)
    report.add_argument("--bootstrap_over", metavar="COLUMN", help="what is drawn (default: what is held out)")
    report.add_argument("--confidence", type=float, default=0.95, help="coverage of the intervals (0.95)")
    report.add_argument("--seed", type=int, default=0, help="seed of the draws (0)")


def read_scores(
    path: str, arguments: argparse.Namespace, *, has_keys: bool, of_trials: bool = False
) -> score_files.Clips:
    """Read a score file with the options of the command line."""
    return score_files.read_scores(
        path,
        id_column=arguments.id_column,
        score_column=arguments.score_column,
        label_column=None if has_keys else arguments.label_column,
        label_map=data.parse_label_map(arguments.label_map),
        higher_is=arguments.higher_is,
        score_is=arguments.score_is,
        of_trials=of_trials,
        has_keys=has_keys,
    )


def read_keys(path: str, arguments: argparse.Namespace, *, of_trials: bool = False) -> score_files.Clips:
    """Read a key file, or the labels of a corpus, with the options of the command line."""
    if score_files.names_corpus(path):
        options = data.CorpusOptions([path])
        return score_files.read_keys_of_corpus(
            path,
            split=options.values("--split", arguments.split)[path] or "test",
            subset=arguments.subset,
            label_map=options.label_maps(arguments.label_map)[path],
            label_column=options.values("--label_column", arguments.label_column)[path],
            id_column=options.values("--key_id_column", arguments.key_id_column)[path],
        )
    return score_files.read_keys(
        path,
        subset=arguments.subset,
        id_column=arguments.key_id_column,
        label_column=arguments.label_column,
        label_map=data.parse_label_map(arguments.label_map),
        of_trials=of_trials,
    )


def describe_files(**paths: str | None) -> dict[str, str]:
    """Return the names and digests of files for JSON, without local paths.

    Args:
        paths: Files or corpora by role. `keys="dev/keys.tsv"` gives `keys` and `keys_sha256`.
    """
    described: dict[str, str] = {}
    for what, path in paths.items():
        if path is None:
            continue
        is_corpus = score_files.names_corpus(path)
        described[what] = path.partition(":")[0] if is_corpus else Path(path).name
        if not is_corpus and Path(path).is_file():
            described[f"{what}_sha256"] = sha256_of(path)
    return described


def require_score_file_name(path: Path | None) -> None:
    """Check that a score file with this name would be read as text.

    Raises:
        ValueError: If its suffix stands for another format.
    """
    if path is not None and path.suffix.lower() in (".json", ".jsonl", ".ndjson", ".parquet"):
        raise ValueError(f"{path} cannot be the score file, which is text: use a name like scores.txt")


def require_other_files(outputs: Iterable[Path], inputs: Iterable[str | Path | None]) -> None:
    """Check that no file to be written is one of the files to be read.

    Raises:
        FileExistsError: If one is; the message says which.
    """
    read = {Path(path).resolve() for path in inputs if path is not None}
    for path in outputs:
        if path.resolve() in read:
            raise FileExistsError(f"{path} is an input, and the output would replace it: choose another output")


def run_with_warnings(run: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    """Run a command, print its warnings once each, in a line, and return the exit status."""
    with warnings_in_lines():
        try:
            run(arguments)
        except (ValueError, OSError, ImportError) as error:
            print(error_line(error, arguments.output_dir), file=sys.stderr)
            return 2
    return 0


@contextlib.contextmanager
def warnings_in_lines() -> Generator[None]:
    """Print warnings once each, in a line, at the end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            messages = [str(item.message) for item in caught if issubclass(item.category, UserWarning)]
            for message in dict.fromkeys(messages):
                print(f"warning: {one_line(message)}", file=sys.stderr)
