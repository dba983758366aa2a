"""Load a corpus from wherever it is into one form: encoded audio, a label mapped by name, an utterance id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from hf_gradalign.data.common_form import NO_COLUMN, audio_paths, in_common_form, with_audio_paths
from hf_gradalign.data.corpora import CorpusSpec, OnMissingAudio, parse_corpus, read_named
from hf_gradalign.data.corpora.arena import label_map_of, with_notes
from hf_gradalign.data.corpora.missing_audio import MissingAudio
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.files_on_disk import find_on_disk
from hf_gradalign.data.labels import require_both_classes
from hf_gradalign.data.repeated_rows import refuse_contradictions_between, with_unique_ids
from hf_gradalign.data.sources import read_source
from hf_gradalign.data.splits import DEFAULT_TEST_SPLIT, choose_splits, split_off_validation
from hf_gradalign.data.wanted import Wanted


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
    """Load a corpus of bona fide and spoofed speech. No audio is opened.

    Args:
        name_or_path: one of

            - a named corpus with its path, `NAME:PATH` (or `NAME` and `path`, or `NAME` alone where the environment
              variable HF_GRADALIGN_CORPORA names a folder that holds it): `asvspoof2019_la`, `asvspoof2019_pa`,
              `asvspoof2021_la`, `asvspoof2021_df`, `asvspoof2021_pa`, `asvspoof5`, `in_the_wild`, `for`, `mlaad` (see
              `docs/corpora/`). Case, hyphens,
              underscores and spaces do not matter;
            - `arena:NAME`: a data set of the Speech Anti-Spoofing Arena on the Hub, or a local folder in its form;
            - None or `demo`: the demo corpus, which ships with the package;
            - `owner/name` on the Hub; parquet or Arrow files; a CSV or JSON Lines file with a column `file_name`; tar
              or zip archives, one or a glob of them; a folder of any of these, of audio files with `metadata.csv` or
              `metadata.jsonl` or in class folders, or one that `save_to_disk` wrote (see `docs/corpora/your_own.md`).
        path: where a named corpus is: its root, a folder in it, or one around it.
        splits: which splits to load, all of them needed: `train`, `validation`, `test`, or names of the corpus' own
            (`dev`, `eval`). By default the training and validation splits, which are needed, and the test split, if it
            is there; of a corpus for evaluation only, the test split.
        optional_splits: those of `splits` that may be absent.
        subset: of ASVspoof 2021: `eval` (the default, as in papers), `progress`, `hidden` or `all`; also of data sets
            of the Arena that know it, where the default is `all`, as the Arena has it.
        on_missing_audio: what to do about audio files that are named but not on disk: `stop` raises, `skip` leaves
            their clips out, with a warning.
        config_name: the data set's configuration, where it has several.
        revision: the Hub repository's branch, tag or commit.
        token: the Hub token; None for the one that is logged in.
        train_split: the corpus' name for its training split.
        validation_split: the corpus' name for its validation split.
        test_split: the corpus' name for its test split. `test` may be absent, any other name must be there; None
            leaves the test split out.
        validation_fraction: where there is no validation split, this part of the training split, in (0, 1), becomes
            it: always the same clips, with the classes in proportion.
        audio_column: the column with audio files: their paths or their bytes. Not for named corpora, as the next two.
        label_column: the column with labels.
        label_map: what the corpus' labels mean, where their names do not say (`parse_label_map`).
        id_column: the column with utterance ids, of text, numbers or bytes; None for `utterance_id`, if it is there;
            `none` to name clips by their files.
        require_labels: whether all clips must have labels; without them they can be scored, but no more. Their `label`
            is then None. No label are also -1, blanks, dashes, `unknown`, `?` and their like (`is_no_label`).

    Returns:
        The splits, by the names that they were asked for, each with the columns `audio` (`Audio(decode=False)`:
        `{"bytes", "path"}`), `label` (`ClassLabel` with `LABEL_NAMES`: 0 spoof, 1 bonafide) and `utterance_id` (the
        corpus' own, else made from the file's name or the row's number). Named corpora have the columns of
        `METADATA_COLUMNS` too, null where nothing is known, and some have further ones; other sources all of their own.

    Raises:
        CorpusError: if the corpus, a split, a column or audio files are not found, if a protocol has corrupt lines, if
            a label's meaning is not known or missing, if utterance ids are missing or not unique, if a clip has both
            labels, or if the training split lacks a class (without `splits`: what is asked for by name may be one half
            of a mix).
    """
    if validation_fraction is not None and not 0 < validation_fraction < 1:
        raise CorpusError(f"--validation_fraction must lie between 0 and 1, not {validation_fraction}.")
    spec = parse_corpus(None if name_or_path is None else str(name_or_path), None if path is None else str(path))
    wanted = wanted_splits(spec, splits, train_split, validation_split, test_split)
    optional = set(optional_splits)
    if splits is None:
        if spec.is_arena:
            optional |= {"train", "validation"}
        elif test_split == DEFAULT_TEST_SPLIT and "train" in wanted:
            optional.add("test")
        if validation_fraction is not None:
            optional.add("validation")
    if spec.layout is not None:
        corpus = read_named(
            spec, wanted, optional=frozenset(optional), subset=subset, on_missing_audio=on_missing_audio
        )
    else:
        source = read_source(
            spec,
            Wanted(
                splits=tuple(name for name in wanted.values() if name is not None),
                audio_column=audio_column,
                label_column=None if label_column == NO_COLUMN else label_column,
                label_map=label_map,
                requires_labels=require_labels,
                config_name=config_name,
            ),
            revision=revision,
            token=token,
        )
        chosen = choose_splits(source, wanted, frozenset(optional), shown_name(spec))
        columns: dict[str, Any] = {
            "audio_column": audio_column,
            "label_column": label_column,
            "label_map": label_map,
            "id_column": id_column,
            "require_labels": require_labels,
        }
        corpus = _in_one_form(spec, chosen, wanted, subset, on_missing_audio, columns)
    if splits is None and "train" in corpus:
        require_both_classes(corpus["train"]["label"][:], train_split)
        if "validation" not in corpus and validation_fraction is not None:
            corpus["train"], corpus["validation"] = split_off_validation(corpus["train"], validation_fraction)
    order = dict.fromkeys(["train", "validation", "test", *wanted])
    return DatasetDict({split: corpus[split] for split in order if split in corpus})


def wanted_splits(
    spec: CorpusSpec, splits: Sequence[str] | None, train_split: str, validation_split: str, test_split: str | None
) -> dict[str, str | None]:
    """The corpus' names of the splits that are to be loaded, by what they shall be called."""
    names = {"train": train_split, "validation": validation_split, "test": test_split}
    if splits is not None:
        return {split: names.get(split) or split for split in splits}
    if spec.layout is None:
        return names
    # Corpora for evaluation have their test split alone, and nobody asked for others.
    has = {split for split, own in names.items() if own and spec.layout.split_of(own) is not None}
    if not spec.layout.is_partitioned:
        has -= {split for split in ("train", "validation") if names[split] == split}
    return {split: own for split, own in names.items() if own and (split in has or own != split)}


def shown_name(spec: CorpusSpec) -> str:
    """What messages call a corpus."""
    return "the demo corpus" if spec.is_demo else spec.hub_id or spec.text


def _in_one_form(
    spec: CorpusSpec,
    chosen: Mapping[str, Dataset],
    wanted: Mapping[str, str | None],
    subset: str | None,
    on_missing_audio: OnMissingAudio,
    columns: Mapping[str, Any],
) -> dict[str, Dataset]:
    if subset is not None and not spec.is_arena:
        raise CorpusError(f"{shown_name(spec)} has no subsets.")
    missing = MissingAudio(shown_name(spec), on_missing_audio)
    corpus = {}
    for split, dataset in chosen.items():
        shown = f"{shown_name(spec)}, split {wanted[split]!r}"
        named = dict(columns)
        if spec.is_arena and named["label_column"] in dataset.features:
            named["label_map"] = label_map_of(dataset.features[named["label_column"]], named["label_map"])
        dataset = in_common_form(dataset, shown, **named)
        if spec.is_arena:
            dataset = _subset(with_notes(dataset), subset, shown)
        paths = audio_paths(dataset)
        found = find_on_disk(paths)
        dataset = with_unique_ids(with_audio_paths(dataset, paths, found, shown), shown)
        paths = audio_paths(dataset)
        is_there = pc.or_(pc.is_null(paths), pc.is_in(paths, value_set=found.drop_null()))
        missing.note(str(wanted[split]), is_there, paths)
        there = np.asarray(is_there)
        corpus[split] = dataset if there.all() else dataset.select(np.flatnonzero(there))
    refuse_contradictions_between({f"split {wanted[split]!r}": dataset for split, dataset in corpus.items()})
    missing.settle()
    return corpus


def _subset(dataset: Dataset, subset: str | None, shown: str) -> Dataset:
    if subset is None or subset == "all":
        return dataset
    values = np.asarray(dataset["subset"][:]) if "subset" in dataset.column_names else np.array([])
    kept = np.flatnonzero(values == subset)
    if not len(kept):
        there = ", ".join(sorted({str(value) for value in values if value is not None})) or "none"
        raise CorpusError(f"{shown} has no subset {subset!r}; its subsets: {there}.")
    return dataset.select(kept)
