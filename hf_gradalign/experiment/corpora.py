"""Loads the corpora of a run, chooses clips, and sets aside validation and test splits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset
from transformers.utils import logging

from hf_gradalign.data import (
    LABEL_NAMES,
    CorpusError,
    CorpusOptions,
    check_audio,
    load_corpus,
    mix_corpora,
    mix_streams,
    parse_corpus,
    require_both_classes,
    split_off_validation,
    stream_corpus,
    unique_names,
)
from hf_gradalign.data.checking import OnBadAudio
from hf_gradalign.data.overlap import find_shared_clips
from hf_gradalign.data.utterance_ids import refuse_contradictions_between
from hf_gradalign.experiment.arguments import (
    CHECKED_BY_DEFAULT,
    OF_CORPORA,
    AudioSpoofTrainingArguments,
    DataArguments,
    RunArguments,
)

logger = logging.get_logger(__name__)

# The options for the corpus of each split, and for the name of the split in its corpus.
_CORPUS_OF = {"validation": "eval_corpus", "test": "test_corpus"}
_NAME_OF = {"train": "train_split_name", "validation": "eval_split_name", "test": "test_split_name"}
_NOT_OF_STREAMS = {"train_split", "validation_split", "test_split"}


def limit_clips(clips: Dataset, size: int | None) -> Dataset:
    """Return at most `size` clips, always the same and with the same class proportions. None returns all clips."""
    if size is None or size >= len(clips):
        return clips
    # Corpora are often sorted by label, so the first clips may all be of one class.
    labels = np.asarray(clips["label"][:])
    order = np.random.default_rng(0).permutation(len(labels))
    classes = [order[labels[order] == label] for label in np.unique(labels)]
    ranks = np.concatenate([np.arange(len(members)) / len(members) for members in classes])
    return clips.select(sorted(np.concatenate(classes)[np.argsort(ranks, kind="stable")][:size].tolist()))


def check_clips(
    clips: Dataset, data_args: DataArguments, sampling_rate: int, *, of_any_number: bool = False
) -> Dataset:
    """Check clips by decoding them if the options or their number call for it, and drop bad ones if these are skipped.

    Args:
        clips: The clips of one split.
        data_args: The run's arguments.
        sampling_rate: Rate to which clips will be resampled, in Hz.
        of_any_number: Whether to decode by default regardless of how many clips there are.

    Raises:
        BadAudioError: If clips are bad and are not skipped.
    """
    is_checked = data_args.check_audio
    if is_checked is None:
        is_checked = of_any_number or len(clips) <= CHECKED_BY_DEFAULT
    if not is_checked:
        logger.info(f"{len(clips)} clips are not decoded before training; use --check_audio to check them.")
        return clips
    return check_audio(
        clips,
        sampling_rate=sampling_rate,
        num_proc=data_args.preprocessing_num_workers,
        on_bad_audio=cast("OnBadAudio", data_args.on_bad_audio),
    )


@dataclass
class RunCorpora:
    """The clips that a run trains, validates and tests on.

    Attributes:
        splits: `train` (unless it is streamed), `validation` and, if there is one, `test`.
        eval_sources: The corpus of the validation and test split, as given by the user; None for the demo corpus.
        remarks: Warnings about clips that splits share, one sentence each.
    """

    splits: DatasetDict
    eval_sources: dict[str, str | None]
    remarks: tuple[str, ...] = ()


def load_run_corpora(run: RunArguments, sampling_rate: int) -> RunCorpora:
    """Load, check and mix the clips that a run trains, validates and tests on.

    The validation and test splits come from `eval_corpus` and `test_corpus`, or from the first training corpus that has
    them. A training corpus without official splits is used for training as a whole.

    Args:
        run: The run's arguments.
        sampling_rate: Rate to which clips will be resampled, in Hz.

    Raises:
        ValueError: If a corpus or split is missing or cannot be used, or clips cannot be decoded.
    """
    data_args = run.data
    _require_subsets(data_args)
    options = _Options(run)
    parts: dict[str, Dataset] = {}
    held_out: dict[str, Dataset] = {}
    eval_sources: dict[str, str | None] = {}
    for name, text in _named_corpora(data_args):
        loaded = _load(text, held_out, data_args, options)
        if "train" in loaded:
            parts[name] = loaded.pop("train")
        held_out.update({str(split): clips for split, clips in loaded.items()})
        eval_sources.update(dict.fromkeys(map(str, loaded), text))
    for split, option in _CORPUS_OF.items():
        text = getattr(data_args, option)
        if text is not None:
            held_out[split] = load_corpus(text, splits=(split,), **options.of(text))[split]
            eval_sources[split] = text
    options.check()
    refuse_contradictions_between(
        {f"the training data of {name}": clips for name, clips in parts.items()}
        | {f"the {split} split": clips for split, clips in held_out.items()}
    )
    if "validation" not in held_out and data_args.validation_fraction is not None:
        held_out["validation"] = _split_off(parts, data_args.validation_fraction)
    _require_held_out(held_out, data_args, options)

    splits = {split: limit_clips(clips, data_args.max_eval_samples) for split, clips in held_out.items()}
    parts = {name: limit_clips(clips, data_args.max_train_samples) for name, clips in parts.items()}
    remarks = _shared_clip_remarks(parts.values(), splits)
    for remark in remarks:
        logger.warning(remark)
    # A bad clip here would end the run at an evaluation, or after all training for the test split.
    splits = {
        split: check_clips(clips, data_args, sampling_rate, of_any_number=not run.training.dry_run)
        for split, clips in splits.items()
    }
    if parts:
        parts = {name: check_clips(clips, data_args, sampling_rate) for name, clips in parts.items()}
        mixed = mix_corpora(
            parts,
            weights=data_args.corpus_weights,
            balance_classes=data_args.balance_classes,
            seed=data_seed(run.training),
        )
        splits["train"] = limit_clips(mixed, data_args.max_train_samples)
    for split, clips in splits.items():
        # An equal error rate needs both classes. Check this now rather than after training.
        try:
            require_both_classes(clips["label"][:], split)
        except CorpusError:
            if split != "test" or not len(clips):
                raise
            logger.warning(
                f"All {len(clips)} clips of the test split are {LABEL_NAMES[clips['label'][0]]}: they are scored, but "
                "there is no equal error rate, which needs both classes. Use --test_split_name none to skip them."
            )
    in_order = DatasetDict({split: splits[split] for split in _NAME_OF if split in splits})
    return RunCorpora(in_order, eval_sources, remarks)


def stream_training_corpora(run: RunArguments) -> IterableDataset:
    """Return the training stream of a run with `streaming`: mixed, but not yet shuffled or divided among processes.

    Raises:
        ValueError: If a corpus or split is missing or cannot be used.
    """
    data_args = run.data
    readers = max(1, run.training.dataloader_num_workers) * run.training.world_size
    options = _Options(run)
    streams = {}
    for name, text in _named_corpora(data_args):
        given = options.of(text)
        split = given["train_split"]
        given = {option: value for option, value in given.items() if option not in _NOT_OF_STREAMS}
        streams[name] = stream_corpus(text, split=split, min_shards=readers, **given)
    options.check()
    return mix_streams(
        streams,
        weights=data_args.corpus_weights,
        balance_classes=data_args.balance_classes,
        seed=data_seed(run.training),
    )


def data_seed(args: AudioSpoofTrainingArguments) -> int:
    """Return the seed for everything that concerns the data."""
    return args.seed if args.data_seed is None else args.data_seed


def _named_corpora(data_args: DataArguments) -> list[tuple[str, str | None]]:
    names = unique_names([parse_corpus(text).name for text in data_args.corpora])
    return list(zip(names, data_args.corpora, strict=True))


def system_column(data_args: DataArguments, corpus: str | None) -> str | None:
    """Return the column with the spoofing systems in this corpus; None is the demo corpus."""
    name = "system_column_name"
    options = CorpusOptions(_all_corpora(data_args))
    return options.values(f"--{name}", getattr(data_args, name), OF_CORPORA[name])[corpus]


class _Options:
    """The options of a run for each of its corpora."""

    def __init__(self, run: RunArguments) -> None:
        data_args = run.data
        self._corpora = CorpusOptions(_all_corpora(data_args))
        self._values = {
            name: self._corpora.values(f"--{name}", getattr(data_args, name), default)
            for name, default in OF_CORPORA.items()
        }
        self._label_maps = self._corpora.label_maps(data_args.label_map)
        self._common = {"on_missing_audio": data_args.on_missing_audio, "token": run.training.hub_token}
        self._subset = data_args.subset

    def of(self, text: str | None) -> dict[str, Any]:
        """Return the options of `load_corpus` for a corpus."""
        value = {name: values[text] for name, values in self._values.items()}
        return {
            "subset": self._subset if _has_subsets(text) else None,
            "config_name": value["dataset_config_name"],
            "revision": value["dataset_revision"],
            "train_split": value["train_split_name"],
            "validation_split": value["eval_split_name"],
            "test_split": None if value["test_split_name"] == "none" else value["test_split_name"],
            "audio_column": value["audio_column_name"],
            "label_column": value["label_column_name"],
            "id_column": value["id_column_name"],
            "label_map": self._label_maps[text],
            **self._common,
        }

    def split_name(self, split: str, text: str | None) -> str:
        """Return the name of a split in a corpus."""
        return cast("str", self._values[_NAME_OF[split]][text])  # every split has a default name

    def check(self) -> None:
        """Check, after loading, that no label map without a corpus was applied to the numbers of two corpora."""
        self._corpora.check_label_maps(self._label_maps)


def _all_corpora(data_args: DataArguments) -> list[str | None]:
    return [*data_args.corpora, *(text for text in (data_args.eval_corpus, data_args.test_corpus) if text)]


def _load(text: str | None, held_out: Iterable[str], data_args: DataArguments, options: _Options) -> DatasetDict:
    """Load the training split, and the other splits unless an option or an earlier corpus provides them."""
    layout = parse_corpus(text).layout
    wanted = [
        split
        for split, option in _CORPUS_OF.items()
        if split not in held_out
        and getattr(data_args, option) is None
        and (layout is None or layout.is_partitioned)
        and not (split == "test" and options.of(text)["test_split"] is None)
    ]
    is_alone = len(data_args.corpora) == 1
    optional = [split for split in wanted if not is_alone or _may_be_absent(split, text, data_args, options)]
    training = [] if data_args.streaming else ["train"]
    if not training and not wanted:
        return DatasetDict()
    return load_corpus(text, splits=[*training, *wanted], optional_splits=optional, **options.of(text))


def _may_be_absent(split: str, text: str | None, data_args: DataArguments, options: _Options) -> bool:
    if split == "validation":
        return data_args.validation_fraction is not None
    return options.split_name(split, text) == split


def _has_subsets(text: str | None) -> bool:
    spec = parse_corpus(text)
    return spec.is_arena or (spec.layout is not None and bool(spec.layout.subsets))


def _require_subsets(data_args: DataArguments) -> None:
    if data_args.subset is not None and not any(_has_subsets(text) for text in _all_corpora(data_args)):
        raise CorpusError(f"--subset {data_args.subset}: none of the corpora has subsets; remove the option.")


def _split_off(parts: dict[str, Dataset], fraction: float) -> Dataset:
    validation = []
    for name, clips in parts.items():
        parts[name], split_off = split_off_validation(clips, fraction)
        validation.append(split_off)
    return validation[0] if len(validation) == 1 else mix_corpora(dict(zip(parts, validation, strict=True)))


def _shared_clip_remarks(parts: Iterable[Dataset], splits: Mapping[str, Dataset]) -> tuple[str, ...]:
    remarks = []
    earlier = {"trained on": [*parts]}
    for split in sorted(splits, reverse=True):  # validation, test
        for use, others in earlier.items():
            shared = find_shared_clips(splits[split], others)
            if shared.ids:
                number = f"{'' if shared.are_all else 'at least '}{len(shared.ids)}"
                remarks.append(
                    f"{split.capitalize()} split: {number} of {len(splits[split])} clips are also {use}, such as "
                    f"{shared.ids[0]}, so the error rate is too good."
                )
        earlier[f"in the {split} split"] = [splits[split]]
    return tuple(remarks)


def _require_held_out(held_out: Iterable[str], data_args: DataArguments, options: _Options) -> None:
    for split, option in _CORPUS_OF.items():
        names = list(dict.fromkeys(options.split_name(split, text) for text in data_args.corpora))
        if split in held_out or (split == "test" and set(names) <= {split, "none"}):
            continue
        raise CorpusError(
            f"None of the corpora has a {split} split {' or '.join(map(repr, names))}: choose a corpus that has one "
            f"with --{option}, or the name of the split with --{_NAME_OF[split]}"
            + (", or split off part of the training data with --validation_fraction 0.1." if split != "test" else ".")
        )
