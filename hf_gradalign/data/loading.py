"""Loads a corpus from any source with standard columns: encoded audio, labels by name, utterance ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from hf_gradalign.data.columns import audio_paths, to_standard_columns, with_audio_paths
from hf_gradalign.data.corpora import CorpusSpec, OnMissingAudio, parse_corpus, read_official_layout
from hf_gradalign.data.corpora.arena import label_map_of, with_notes
from hf_gradalign.data.files_on_disk import MissingAudio, find_on_disk
from hf_gradalign.data.labels import require_both_classes
from hf_gradalign.data.readers import read_source
from hf_gradalign.data.request import DEFAULT_TEST_SPLIT, CorpusError, CorpusRequest
from hf_gradalign.data.utterance_ids import refuse_contradictions_between, with_unique_ids

logger = logging.getLogger(__name__)

Split = TypeVar("Split")

# Constant, so that runs with different seeds are validated on the same clips.
_VALIDATION_SEED = 0
_OPTIONS = {"train": "--train_split_name", "validation": "--eval_split_name", "test": "--test_split_name"}


def load_corpus(
    name_or_path: str | Path | None = None,
    *,
    path: str | Path | None = None,
    splits: Sequence[str] | None = None,
    optional_splits: Sequence[str] = (),
    subset: str | None = None,
    on_missing_audio: OnMissingAudio = "stop",
    config_name: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    train_split: str = "train",
    validation_split: str = "validation",
    test_split: str | None = DEFAULT_TEST_SPLIT,
    validation_fraction: float | None = None,
    audio_column: str = "audio",
    label_column: str = "label",
    label_map: Mapping[str, str] | None = None,
    id_column: str | None = None,
    require_labels: bool = True,
) -> DatasetDict:
    """Load a corpus of bona fide and spoofed speech, without opening its audio.

    Args:
        name_or_path: One of

            - a named corpus with its path, `NAME:PATH` (or `NAME` and `path`, or only `NAME` if the environment
              variable HF_GRADALIGN_CORPORA names a folder that contains it): `asvspoof2019_la`, `asvspoof2019_pa`,
              `asvspoof2021_la`, `asvspoof2021_df`, `asvspoof2021_pa`, `asvspoof5`, `in_the_wild`, `for`, `mlaad` (see
              `docs/corpora/`). Case, hyphens, underscores and spaces do not matter;
            - `arena:NAME`: a data set of the Speech Anti-Spoofing Arena on the Hub, or a local folder in its format;
            - None or `demo`: the demo corpus, which ships with the package;
            - `owner/name` on the Hub; parquet or Arrow files; a CSV or JSON Lines file with a column `file_name`; one
              or more tar or zip archives (as a glob); a folder of any of these, of audio files with `metadata.csv` or
              `metadata.jsonl` or in class folders, or written by `save_to_disk` (see `docs/corpora/your_own.md`).
        path: The location of a named corpus: its root, a folder in it, or a folder that contains it.
        splits: The splits to load, all required: `train`, `validation`, `test`, or the corpus' own names (`dev`,
            `eval`). Defaults to the training and validation splits, which are required, and the test split, if it
            exists. Corpora for evaluation default to the test split.
        optional_splits: The splits among `splits` that may be missing.
        subset: For ASVspoof 2021: `eval` (the default, as in papers), `progress`, `hidden` or `all`. For data sets of
            the Arena with subsets, the default is `all`, as in the Arena.
        on_missing_audio: What to do if named audio files are not on disk: `stop` raises, `skip` leaves their clips out
            with a warning, `keep` keeps them, for uses that need only labels.
        config_name: The data set's configuration, if it has several.
        revision: The Hub repository's branch, tag or commit.
        token: The Hub token; None uses the token that you are logged in with.
        train_split: The corpus' own name of its training split.
        validation_split: The corpus' own name of its validation split.
        test_split: The corpus' own name of its test split. `test` may be missing, but any other name must exist. None
            loads no test split.
        validation_fraction: If there is no validation split, use this part of the training split, in (0, 1): always the
            same clips, stratified by class.
        audio_column: The column with audio files: their paths or bytes. This and the next two are not for named
            corpora.
        label_column: The column with labels.
        label_map: The meaning of labels that are not known by name (`parse_label_map`).
        id_column: The column with utterance ids as text, numbers or bytes. None uses `utterance_id`, if it exists;
            `none` names clips by their files.
        require_labels: Whether all clips must have labels. Clips without labels can be scored but not evaluated, and
            their `label` is None. -1, blanks, dashes, `unknown`, `?` and the like count as missing (`is_no_label`).

    Returns:
        The splits, by the requested names, each with the columns `audio` (`Audio(decode=False)`: `{"bytes", "path"}`),
        `label` (`ClassLabel` with `LABEL_NAMES`: 0 spoof, 1 bonafide) and `utterance_id` (from the corpus, otherwise
        from the file's name or the row's number). Named corpora also have the columns of `METADATA_COLUMNS`, null if
        unknown, and some have more. Other sources keep their columns.

    Raises:
        CorpusError: If the corpus, a split, a column or audio files are missing, a protocol has corrupt lines, a label
            is missing or unknown, utterance ids are missing or not unique, a clip has both labels, or the training
            split lacks a class (only without `splits`: splits requested by name may be one half of a mix).
    """
    if validation_fraction is not None and not 0 < validation_fraction < 1:
        raise CorpusError(f"--validation_fraction must lie between 0 and 1, not {validation_fraction}.")
    spec = parse_corpus(None if name_or_path is None else str(name_or_path), None if path is None else str(path))
    own_names = {"train": train_split, "validation": validation_split, "test": test_split}
    wanted = (
        _default_splits(spec, own_names) if splits is None else {name: own_names.get(name) or name for name in splits}
    )
    optional = set(optional_splits)
    if splits is None:
        if spec.is_arena:
            optional |= {"train", "validation"}
        elif test_split == DEFAULT_TEST_SPLIT and "train" in wanted:
            optional.add("test")
        if validation_fraction is not None:
            optional.add("validation")
    request = CorpusRequest(
        splits=wanted,
        optional=frozenset(optional),
        subset=subset,
        on_missing_audio=on_missing_audio,
        config_name=config_name,
        revision=revision,
        token=token,
        audio_column=audio_column,
        label_column=label_column,
        label_map=label_map,
        id_column=id_column,
        require_labels=require_labels,
    )
    corpus = load_requested(spec, request)
    if splits is None and "train" in corpus:
        require_both_classes(corpus["train"]["label"][:], train_split)
        if "validation" not in corpus and validation_fraction is not None:
            corpus["train"], corpus["validation"] = split_off_validation(corpus["train"], validation_fraction)
    order = dict.fromkeys(["train", "validation", "test", *wanted])
    return DatasetDict({split: corpus[split] for split in order if split in corpus})


def load_requested(spec: CorpusSpec, request: CorpusRequest) -> dict[str, Dataset]:
    """Load the requested splits with the standard columns. See `load_corpus`."""
    if spec.layout is not None:
        return read_official_layout(spec, request)
    source = cast("Mapping[str, Dataset]", read_source(spec, request))  # not streamed
    chosen = choose_splits(source, request, spec.display_name)
    if request.subset is not None and not spec.is_arena:
        raise CorpusError(f"{spec.display_name} has no subsets.")
    missing = MissingAudio(spec.display_name, request.on_missing_audio)
    corpus = {split: _standardize(spec, dataset, split, request, missing) for split, dataset in chosen.items()}
    refuse_contradictions_between({f"split {request.splits[split]!r}": dataset for split, dataset in corpus.items()})
    missing.report()
    return corpus


def choose_splits(source: Mapping[str, Split], request: CorpusRequest, display_name: str) -> dict[str, Split]:
    """Choose the requested splits.

    Args:
        source: The corpus' splits by its own names.
        request: The wanted splits, and which of them may be missing.
        display_name: The corpus' name for messages.

    Raises:
        CorpusError: If a required split is missing.
    """
    chosen = {}
    for split, name in request.splits.items():
        if (own_name := _find_split(source, name)) is not None:
            chosen[split] = source[own_name]
        elif name is not None and split not in request.optional:
            message = f"{display_name} has no split {name!r}; its splits are {', '.join(source)}."
            if split in _OPTIONS:
                hint = ", or split off part of the training data with --validation_fraction 0.1"
                message += f" Name the {split} split with {_OPTIONS[split]}{hint if split == 'validation' else ''}"
                message += " (score_audio_spoof.py: --split)."
            raise CorpusError(message)
    names = [request.splits[split] for split in chosen]
    for name in {name for name in names if names.count(name) > 1}:
        logger.warning("The split %r is used for more than one purpose, so results will be too good.", name)
    return chosen


def _find_split(source: Mapping[str, Split], name: str | None) -> str | None:
    """Return the source's name of a split: the same name, or the only one that differs just in case and white space."""
    if name is None or name in source:
        return name
    alike = [own for own in source if own.strip().lower() == name.strip().lower()]
    return alike[0] if len(alike) == 1 else None


def split_off_validation(train: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    """Split off part of a training split for validation: always the same clips, stratified by class.

    Args:
        train: The training split, with the standard columns.
        fraction: The fraction of clips for the validation split, in (0, 1).

    Returns:
        The new training split and the validation split.

    Raises:
        CorpusError: If there are too few clips.
    """
    try:
        parts = train.train_test_split(test_size=fraction, stratify_by_column="label", seed=_VALIDATION_SEED)
    except ValueError as error:
        raise CorpusError(
            f"--validation_fraction {fraction}: the training split's {len(train)} clips cannot be split so that both "
            f"parts have both classes ({error})."
        ) from error
    logger.info("Validation: %d clips split off the training data.", len(parts["test"]))
    return parts["train"], parts["test"]


def _default_splits(spec: CorpusSpec, own_names: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the splits to load by default. Corpora for evaluation have only a test split."""
    if spec.layout is None:
        return dict(own_names)
    available = {split for split, own in own_names.items() if own and spec.layout.split_of(own) is not None}
    if not spec.layout.is_partitioned:
        available -= {split for split in ("train", "validation") if own_names[split] == split}
    return {split: own for split, own in own_names.items() if own and (split in available or own != split)}


def _standardize(
    spec: CorpusSpec, dataset: Dataset, split: str, request: CorpusRequest, missing: MissingAudio
) -> Dataset:
    """Return one split with the standard columns and unique ids, without clips whose files are missing."""
    display_name = f"{spec.display_name}, split {request.splits[split]!r}"
    if spec.is_arena and request.label_column in dataset.features:
        label_map = label_map_of(dataset.features[request.label_column], request.label_map)
        request = replace(request, label_map=label_map)
    dataset = to_standard_columns(dataset, display_name, request)
    if spec.is_arena:
        dataset = _select_subset(with_notes(dataset), request.subset, display_name)
    paths = audio_paths(dataset)
    on_disk = find_on_disk(paths)
    dataset = with_unique_ids(with_audio_paths(dataset, paths, on_disk, display_name), display_name)
    paths = audio_paths(dataset)
    exists = pc.or_(pc.is_null(paths), pc.is_in(paths, value_set=on_disk.drop_null()))
    missing.add(str(request.splits[split]), exists, paths)
    kept = np.asarray(exists)
    return dataset if kept.all() or request.on_missing_audio == "keep" else dataset.select(np.flatnonzero(kept))


def _select_subset(dataset: Dataset, subset: str | None, display_name: str) -> Dataset:
    if subset is None or subset == "all":
        return dataset
    values = np.asarray(dataset["subset"][:]) if "subset" in dataset.column_names else np.array([])
    kept = np.flatnonzero(values == subset)
    if not len(kept):
        available = ", ".join(sorted({str(value) for value in values if value is not None})) or "none"
        raise CorpusError(f"{display_name} has no subset {subset!r}; its subsets: {available}.")
    return dataset.select(kept)
