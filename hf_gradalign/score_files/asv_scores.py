"""Reads the error rates of a speaker verifier, which the tandem detection cost needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.metrics import ASVSPOOF5_ASV, TRIAL_TYPES, AsvErrorRates, asv_error_rates
from hf_gradalign.score_files.clips import ScoreFileError, as_text, read_numbers
from hf_gradalign.score_files.columns import SUBSETS, is_number, plain_name
from hf_gradalign.score_files.table_reading import TextTable, read_table

_KEYS = "trial_metadata.txt"
_SCORES = ("score.txt", "ASVTorch_Kaldi/score.txt", "ASVtorch_kaldi/score.txt")
_KNOWN = {"asvspoof5": ASVSPOOF5_ASV}


def read_asv_error_rates(
    path: str | Path, keys: str | Path | None = None, *, subset: str | None = None
) -> AsvErrorRates:
    """Read a verifier's error rates at its equal error point from the organizers' files.

    Args:
        path: One of

            - ASVspoof 2019's `ASVspoof2019.LA.asv.<set>.gi.trl.scores.txt`, lines `attack key score` with a key of
              target, nontarget or spoof;
            - ASVspoof 2021's `ASV/ASVTorch_Kaldi/score.txt`, lines `speaker utterance score`, or the folder `ASV`;
            - any file with a header, a column of trial types (`asv-label`) and a column of scores (`asv-score`);
            - `asvspoof5`: the rates in the evaluation package of ASVspoof 5.
        keys: For ASVspoof 2021, `ASV/trial_metadata.txt`; by default at its place in the archive. Trials may be in
            another order than in `path` if both files name them by the same columns.
        subset: For ASVspoof 2021: `eval` (the default), `progress`, `hidden` or `all`.

    Raises:
        ScoreFileError: If a file cannot be read, or the files do not match.
        ValueError: As for `asv_error_rates`.
    """
    if str(path) in _KNOWN and not Path(path).exists():
        return _KNOWN[str(path)]
    path = _score_file(Path(path))
    table = read_table(path)
    types = _trial_types(table)
    score_column = _score_column(table)
    scores = read_numbers(table.columns[score_column], table.source, "score")
    if types is not None:
        return asv_error_rates(scores, types)
    keys = Path(keys) if keys is not None else _keys_near(path)
    trials = read_table(keys)
    types = _trial_types(trials)
    if types is None:
        raise ScoreFileError(
            f"{trials.source} has no column with trial types ({', '.join(TRIAL_TYPES)}). Give the verifier's keys "
            "(ASV/trial_metadata.txt) with --asv_keys."
        )
    scores = scores[_rows_of_trials(table, score_column, trials)]
    chosen = _chosen(trials, subset)
    return asv_error_rates(scores[chosen], types[chosen])


def _score_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for folder in (path, path / "ASV"):
        for name in _SCORES:
            if (folder / name).is_file():
                return folder / name
    raise ScoreFileError(
        f"{path} is a folder without {' or '.join(_SCORES)} in it. Give the path of the verifier's score file."
    )


def _trial_types(table: TextTable) -> NDArray | None:
    for name in reversed(table.columns):
        if set(table.sample(name)) <= set(TRIAL_TYPES):
            return np.array(table.columns[name].to_pylist())
    return None


def _score_column(table: TextTable) -> str:
    if table.has_header:
        for wanted in ("asv_score", "score"):
            match = next((name for name in table.columns if plain_name(name) == wanted), None)
            if match is not None:
                return match
    numeric = [name for name in table.columns if all(map(is_number, table.sample(name)))]
    if len(numeric) == 1:
        return numeric[0]
    raise ScoreFileError(
        f"{table.source}: it is unclear which of the columns {', '.join(table.columns)} has the verifier's scores. "
        "Name it asv_score in a header."
    )


def _keys_near(path: Path) -> Path:
    for folder in (path.parent.parent, path.parent):
        if (folder / _KEYS).is_file():
            return folder / _KEYS
    raise ScoreFileError(
        f"{path} does not say which trials are target, nontarget and spoof, and there is no {_KEYS} in its folder or "
        "the one above. Give the keys of the verifier's trials (ASV/trial_metadata.txt) with --asv_keys."
    )


def _rows_of_trials(scores: TextTable, score_column: str, trials: TextTable) -> NDArray[np.int64]:
    """Return the row of each trial's score.

    Trials are named by the columns that have the same values in both files, such as speaker and utterance.
    """
    if scores.n_rows != trials.n_rows:
        raise ScoreFileError(
            f"{scores.source} has {scores.n_rows} trials but {trials.source} has {trials.n_rows}: they belong to "
            "different verifiers or sets. Give both files of the same set."
        )
    ours = {name: as_text(column) for name, column in scores.columns.items() if name != score_column}
    theirs = {name: as_text(column) for name, column in trials.columns.items()}
    shared = _shared_columns(ours, theirs)
    if not shared:
        raise ScoreFileError(
            f"No column of {scores.source} has the same values as one of {trials.source}, so it is unknown which trial "
            "each score belongs to. Name the trials in both files by speaker and utterance."
        )
    our_names, their_names = (
        pc.binary_join_element_wise(*columns, " ", null_handling="replace")
        for columns in ([ours[name] for name in shared], [theirs[name] for name in shared.values()])
    )
    is_unique = pc.count_distinct(our_names).as_py() == scores.n_rows
    n_distinct = {name: pc.count_distinct(column).as_py() for name, column in ours.items()}
    finest = max(ours, key=n_distinct.__getitem__)
    # Trials of other utterances may have the same speakers in the same order.
    if not is_unique and n_distinct[finest] > max(n_distinct[name] for name in shared):
        known = {value for column in theirs.values() for value in pc.unique(column).to_pylist()}
        example = next((value for value in ours[finest].to_pylist() if value not in known), ours[finest][0])
        raise ScoreFileError(
            f"No column of {trials.source} has the same values as {finest} of {scores.source} (such as "
            f"{example}), and {', '.join(shared)} of the latter does not tell trials apart. They belong to "
            "different sets, or name utterances differently. Give both files of the same set."
        )
    if our_names.equals(their_names):
        return np.arange(scores.n_rows)
    rows = pc.index_in(their_names, our_names)
    if rows.null_count or not is_unique or pc.count_distinct(their_names).as_py() != scores.n_rows:
        index = pc.index(pc.equal(our_names, their_names), False).as_py()
        raise ScoreFileError(
            f"Line {index + 1} of {scores.source} is {our_names[index]}, but that of {trials.source} is "
            f"{their_names[index]}. The trials must be in the same order, unless both files have the same ones, each "
            "once."
        )
    return rows.to_numpy(zero_copy_only=False).astype(np.int64)


def _shared_columns(ours: dict[str, pa.Array], theirs: dict[str, pa.Array]) -> dict[str, str]:
    """Return the names of columns with the same values, in any order, in both files."""
    values = {name: set(pc.unique(column).to_pylist()) for name, column in theirs.items()}
    shared: dict[str, str] = {}
    for name, column in ours.items():
        own = set(pc.unique(column).to_pylist())
        match = next((other for other in values if values[other] == own and other not in shared.values()), None)
        if match is not None:
            shared[name] = match
    return shared


def _chosen(trials: TextTable, subset: str | None) -> NDArray[np.bool_]:
    column = next((name for name in trials.columns if set(trials.sample(name)) <= SUBSETS), None)
    if column is None or subset == "all":
        return np.ones(trials.n_rows, dtype=bool)
    wanted = ["hidden", "hidden_track"] if subset in ("hidden", "hidden_track") else [subset or "eval"]
    chosen = np.isin(np.array(trials.columns[column].to_pylist()), wanted)
    if not chosen.any():
        raise ScoreFileError(f"{trials.source} has no trials of the subset {wanted[0]}. Choose another --subset.")
    return chosen
