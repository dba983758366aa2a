"""Which of a corpus' splits is which, and how to make a validation split where there is none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypeVar

from datasets import Dataset

from hf_gradalign.data.errors import CorpusError

logger = logging.getLogger(__name__)

Split = TypeVar("Split")

DEFAULT_TEST_SPLIT = "test"
# A constant, so that runs with different seeds are validated on the same clips.
_VALIDATION_SEED = 0
_OPTIONS = {"train": "--train_split_name", "validation": "--eval_split_name", "test": "--test_split_name"}


def choose_splits(
    source: Mapping[str, Split], wanted: Mapping[str, str | None], optional: frozenset[str], shown: str
) -> dict[str, Split]:
    """Take the wanted splits out of a source.

    Args:
        source: its splits by its own names.
        wanted: its names by what the splits shall be called; None for one that is not wanted.
        optional: those that may be absent.
        shown: what errors call the corpus.

    Raises:
        CorpusError: if a split is absent that may not be.
    """
    chosen = {}
    for split, name in wanted.items():
        if (found := _matching(source, name)) is not None:
            chosen[split] = source[found]
        elif name is not None and split not in optional:
            message = f"{shown} has no split {name!r}; its splits are {', '.join(source)}."
            if split in _OPTIONS:
                hint = " or split part of the training data off with --validation_fraction 0.1"
                message += f" Name the {split} split with {_OPTIONS[split]}{hint if split == 'validation' else ''}"
                message += " (score_audio_spoof.py: --split)."
            raise CorpusError(message)
    names = [wanted[split] for split in chosen]
    for name in {name for name in names if names.count(name) > 1}:
        logger.warning("The split %r serves more than one purpose: the results will be too good.", name)
    return chosen


def _matching(source: Mapping[str, Split], name: str | None) -> str | None:
    """A source's own name of a split: the same, or but for case and blanks the same, if that is one alone."""
    if name is None or name in source:
        return name
    alike = [own for own in source if own.strip().lower() == name.strip().lower()]
    return alike[0] if len(alike) == 1 else None


def split_off_validation(train: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    """Divide a training split: always the same clips, with the classes in proportion.

    Args:
        train: the training split, in the common form.
        fraction: the part that becomes the validation split, in (0, 1).

    Returns:
        The new training split and the validation split.

    Raises:
        CorpusError: if there are too few clips.
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
