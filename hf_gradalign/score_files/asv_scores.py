"""Read the error rates of a speaker verifier, which the tandem detection cost needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
        keys: For ASVspoof 2021, `ASV/trial_metadata.txt`. Default: where it is in the archive.
        subset: For ASVspoof 2021: `eval` (the default), `progress`, `hidden` or `all`.

    Raises:
        ScoreFileError: If a file cannot be read, or the files do not match.
        ValueError: As `asv_error_rates`.
    """
    if str(path) in _KNOWN and not Path(path).exists():
        return _KNOWN[str(path)]
    path = _score_file(Path(path))
    table = read_table(path)
    types = _trial_types(table)
    scores = read_numbers(table.columns[_score_column(table)], table.source, "score")
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
    _require_same_trials(table, trials)
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


def _require_same_trials(scores: TextTable, trials: TextTable) -> None:
    if scores.n_rows != trials.n_rows:
        raise ScoreFileError(
            f"{scores.source} has {scores.n_rows} trials but {trials.source} has {trials.n_rows}: they belong to "
            "different verifiers or sets. Give both files of the same set."
        )
    names = list(scores.columns.values())[:-1]
    keys = list(trials.columns.values())
    # In both files, the utterance is the second column. The same line must be the same trial.
    if len(names) > 1 and len(keys) > 1 and not pc.all(pc.equal(as_text(names[1]), as_text(keys[1]))).as_py():
        index = pc.index(pc.equal(as_text(names[1]), as_text(keys[1])), False).as_py()
        raise ScoreFileError(
            f"Line {index + 1} of {scores.source} is {names[1][index]}, but that of {trials.source} is "
            f"{keys[1][index]}. The trials must be in the same order."
        )


def _chosen(trials: TextTable, subset: str | None) -> NDArray[np.bool_]:
    column = next((name for name in trials.columns if set(trials.sample(name)) <= SUBSETS), None)
    if column is None or subset == "all":
        return np.ones(trials.n_rows, dtype=bool)
    wanted = ["hidden", "hidden_track"] if subset in ("hidden", "hidden_track") else [subset or "eval"]
    chosen = np.isin(np.array(trials.columns[column].to_pylist()), wanted)
    if not chosen.any():
        raise ScoreFileError(f"{trials.source} has no trials of the subset {wanted[0]}. Choose another --subset.")
    return chosen
