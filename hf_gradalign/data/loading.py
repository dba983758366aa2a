"""Load a corpus from wherever it is into one form: encoded audio, a label mapped by name, an utterance id."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import PurePath

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Value

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import LABEL_NAMES, map_labels, require_both_classes
from hf_gradalign.data.sources import read_source

logger = logging.getLogger(__name__)

_DEFAULT_TEST_SPLIT = "test"
# A constant, so that runs with different seeds are validated on the same clips.
_VALIDATION_SEED = 0


def load_corpus(
    name_or_path: str | None = None,
    *,
    config_name: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    train_split: str = "train",
    validation_split: str = "validation",
    test_split: str | None = _DEFAULT_TEST_SPLIT,
    validation_fraction: float | None = None,
    audio_column: str = "audio",
    label_column: str = "label",
    label_map: Mapping[str, str] | None = None,
) -> DatasetDict:
    """Load a corpus of bona fide and spoofed speech.

    Args:
        name_or_path: None for the demo corpus, which ships with the package; `owner/name` on the Hub; a folder that
            `load_dataset` or `load_from_disk` reads; a parquet file or a glob of them; a folder with a `metadata.csv`
            or `metadata.jsonl` that has a column `file_name`.
        config_name: the data set's configuration, where it has several.
        revision: the Hub repository's branch, tag or commit.
        token: the Hub token; None for the one that is logged in.
        train_split: the corpus' name for its training split.
        validation_split: the corpus' name for its validation split.
        test_split: the corpus' name for its test split. `test` may be absent, any other name must be there; None
            leaves the test split out.
        validation_fraction: where there is no validation split, this part of the training split, in (0, 1), becomes
            it: always the same clips, with the classes in proportion.
        audio_column: the column with audio files: their paths or their bytes.
        label_column: the column with labels.
        label_map: what the corpus' labels mean, where their names do not say (`parse_label_map`).

    Returns:
        The splits `train`, `validation` and, if there is one, `test`, each with the columns `audio`
        (`Audio(decode=False)`: `{"bytes", "path"}`), `label` (`ClassLabel` with `LABEL_NAMES`: 0 spoof, 1 bonafide) and
        `utterance_id` (the corpus' own, else made from the file's name or the row's number), beside all others.

    Raises:
        CorpusError: if the corpus, a split or a column is not found, if a label's meaning is not known or missing, or
            if the training split lacks a class.
    """
    if validation_fraction is not None and not 0 < validation_fraction < 1:
        raise CorpusError(f"--validation_fraction must lie between 0 and 1, not {validation_fraction}.")
    wanted = {"train": train_split, "validation": validation_split, "test": test_split}
    source = read_source(
        name_or_path,
        config_name=config_name,
        revision=revision,
        token=token,
        audio_column=audio_column,
        split_names=tuple(name for name in wanted.values() if name is not None),
    )
    shown = name_or_path or "the demo corpus"
    chosen = _choose_splits(source, wanted, may_lack_validation=validation_fraction is not None, shown=shown)
    corpus = DatasetDict(
        {
            split: _in_common_form(dataset, f"{shown}, split {wanted[split]!r}", audio_column, label_column, label_map)
            for split, dataset in chosen.items()
        }
    )
    require_both_classes(corpus["train"]["label"][:], train_split)
    if "validation" not in corpus and validation_fraction is not None:
        corpus["train"], corpus["validation"] = _split_off_validation(corpus["train"], validation_fraction)
    return DatasetDict({split: corpus[split] for split in wanted if split in corpus})


def _choose_splits(
    source: DatasetDict, wanted: Mapping[str, str | None], *, may_lack_validation: bool, shown: str
) -> dict[str, Dataset]:
    options = {"train": "--train_split_name", "validation": "--eval_split_name", "test": "--test_split_name"}
    chosen = {}
    for split, name in wanted.items():
        if name in source:
            chosen[split] = source[name]
            continue
        if name is None or (split == "test" and name == _DEFAULT_TEST_SPLIT):
            continue
        if split == "validation" and may_lack_validation:
            continue
        hint = " or split part of the training data off with --validation_fraction 0.1" if split == "validation" else ""
        raise CorpusError(
            f"{shown} has no split {name!r}; its splits are {', '.join(source)}. "
            f"Name the {split} split with {options[split]}{hint}."
        )
    names = [wanted[split] for split in chosen]
    for name in {name for name in names if names.count(name) > 1}:
        logger.warning("The split %r serves more than one purpose: the results will be too good.", name)
    return chosen


def _in_common_form(
    dataset: Dataset, shown: str, audio_column: str, label_column: str, label_map: Mapping[str, str] | None
) -> Dataset:
    for column, option in ((audio_column, "--audio_column_name"), (label_column, "--label_column_name")):
        if column not in dataset.column_names:
            raise CorpusError(
                f"{shown} has no column {column!r}; its columns are {', '.join(dataset.column_names)}. "
                f"Name the right one with {option}."
            )
    dataset = _with_audio(dataset, shown, audio_column)
    dataset = _with_labels(dataset, shown, label_column, label_map)
    return _with_utterance_ids(dataset)


def _with_audio(dataset: Dataset, shown: str, column: str) -> Dataset:
    # Columns of audio must not be decoded by datasets: that takes torchcodec and FFmpeg.
    for name, feature in dataset.features.items():
        if name == column or isinstance(feature, datasets.Audio):
            try:
                dataset = dataset.cast_column(name, datasets.Audio(decode=False))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise CorpusError(
                    f"{shown}: the column {name!r} holds {feature}, not audio files (paths or encoded bytes). "
                    "Name the right one with --audio_column_name."
                ) from error
    return _renamed(dataset, column, "audio")


def _with_labels(dataset: Dataset, shown: str, column: str, label_map: Mapping[str, str] | None) -> Dataset:
    feature = dataset.features[column]
    if not isinstance(feature, ClassLabel | Value):
        raise CorpusError(f"{shown}: the column {column!r} holds {feature}, not one label a clip.")
    names = feature.names if isinstance(feature, ClassLabel) else None
    try:
        labels = map_labels(dataset[column][:], names=names, label_map=label_map)
    except CorpusError as error:
        raise CorpusError(f"{shown}, column {column!r}: {error}") from error
    dataset = _renamed(dataset, column, "label").remove_columns("label")
    return dataset.add_column("label", labels, feature=ClassLabel(names=list(LABEL_NAMES)))


def _with_utterance_ids(dataset: Dataset) -> Dataset:
    if "utterance_id" in dataset.column_names:
        return dataset
    # Through Arrow, which does not copy the audio beside the paths.
    table = dataset.select_columns(["audio"]).with_format("arrow")[:]
    paths = pc.struct_field(table["audio"], "path").to_pylist()
    stems = [PurePath(path).stem if path else "" for path in paths]
    candidates = (stems, [path or "" for path in paths])
    rows = [f"row_{index:06d}" for index in range(len(paths))]
    ids = next((names for names in candidates if all(names) and len(set(names)) == len(names)), rows)
    return dataset.add_column("utterance_id", ids)


def _renamed(dataset: Dataset, column: str, name: str) -> Dataset:
    if column == name:
        return dataset
    if name in dataset.column_names:
        logger.warning("The column %r is left out: %r is used in its place.", name, column)
        dataset = dataset.remove_columns(name)
    return dataset.rename_column(column, name)


def _split_off_validation(train: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    try:
        parts = train.train_test_split(test_size=fraction, stratify_by_column="label", seed=_VALIDATION_SEED)
    except ValueError as error:
        raise CorpusError(
            f"--validation_fraction {fraction}: the training split's {len(train)} clips cannot be split so that both "
            f"parts have both classes ({error})."
        ) from error
    logger.info("Validation: %d clips split off the training data.", len(parts["test"]))
    return parts["train"], parts["test"]
