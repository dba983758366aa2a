"""What is asked of a corpus, and how its splits are chosen."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from datasets import Dataset

logger = logging.getLogger(__name__)

OnMissingAudio = Literal["stop", "skip"]

Split = TypeVar("Split")

NO_COLUMN = "none"
"""Stands for a column that does not exist."""
LABEL_COLUMN = "label"
"""The default column of labels."""
ID_COLUMN = "utterance_id"
"""The default column of utterance ids."""
DEFAULT_TEST_SPLIT = "test"

# A constant, so that runs with different seeds are validated on the same clips.
_VALIDATION_SEED = 0
_OPTIONS = {"train": "--train_split_name", "validation": "--eval_split_name", "test": "--test_split_name"}


class CorpusError(ValueError):
    """A corpus that cannot be used as it is; the message says what was found and which option mends it."""


@dataclass(frozen=True)
class CorpusRequest:
    """The arguments of `load_corpus` and `stream_corpus`, which explain them, for the modules that do the work.

    Attributes:
        splits: The corpus' own name of each split, the training split first; None for splits that are not wanted.
        optional: Splits that may be missing.
        subset: Part of a split, for corpora with subsets.
        on_missing_audio: `stop` or `skip`.
        config_name: The data set's configuration.
        revision: The Hub repository's branch, tag or commit.
        token: The Hub token; None for the one that is logged in.
        audio_column: The column with audio.
        label_column: The column with labels; `NO_COLUMN` for none.
        label_map: The meaning of labels that are not known by name.
        id_column: The column with utterance ids; None for `utterance_id`, if it exists; `NO_COLUMN` for none.
        require_labels: Whether all clips must have labels.
        streaming: Whether to stream what `load_dataset` reads, without a copy on disk.
    """

    splits: Mapping[str, str | None]
    optional: frozenset[str] = frozenset()
    subset: str | None = None
    on_missing_audio: OnMissingAudio = "stop"
    config_name: str | None = None
    revision: str | None = None
    token: str | bool | None = None
    audio_column: str = "audio"
    label_column: str = LABEL_COLUMN
    label_map: Mapping[str, str] | None = None
    id_column: str | None = None
    require_labels: bool = True
    streaming: bool = False

    @property
    def split_names(self) -> tuple[str, ...]:
        """The corpus' own names of the wanted splits."""
        return tuple(name for name in self.splits.values() if name is not None)


def choose_splits(source: Mapping[str, Split], request: CorpusRequest, display_name: str) -> dict[str, Split]:
    """Choose the requested splits.

    Args:
        source: The corpus' splits by its own names.
        request: The wanted splits, and which may be missing.
        display_name: The corpus' name for messages.

    Raises:
        CorpusError: If a split is missing that is not optional.
    """
    chosen = {}
    for split, name in request.splits.items():
        if (own_name := _matching(source, name)) is not None:
            chosen[split] = source[own_name]
        elif name is not None and split not in request.optional:
            message = f"{display_name} has no split {name!r}; its splits are {', '.join(source)}."
            if split in _OPTIONS:
                hint = " or split part of the training data off with --validation_fraction 0.1"
                message += f" Name the {split} split with {_OPTIONS[split]}{hint if split == 'validation' else ''}"
                message += " (score_audio_spoof.py: --split)."
            raise CorpusError(message)
    names = [request.splits[split] for split in chosen]
    for name in {name for name in names if names.count(name) > 1}:
        logger.warning("The split %r serves more than one purpose: the results will be too good.", name)
    return chosen


def _matching(source: Mapping[str, Split], name: str | None) -> str | None:
    """Return the source's name of a split: equal, or the only one that is equal up to case and white space."""
    if name is None or name in source:
        return name
    alike = [own for own in source if own.strip().lower() == name.strip().lower()]
    return alike[0] if len(alike) == 1 else None


def split_off_validation(train: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    """Split off part of a training split for validation: always the same clips, stratified by class.

    Args:
        train: The training split, with the standard columns.
        fraction: The part that becomes the validation split, in (0, 1).

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
