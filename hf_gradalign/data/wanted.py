"""What is asked of a corpus: its columns, its splits, and what its labels mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    """What a reader of a source needs to know of the question.

    Attributes:
        splits: the splits that will be asked for, the training split first; names for files that say nothing.
        audio_column: the column with audio.
        label_column: the column with labels; None where none are wanted.
        label_map: what labels mean, where their names do not say.
        requires_labels: whether there must be labels.
        config_name: the configuration, where a data set has several.
        streaming: whether to read what `load_dataset` reads as it is gone through, without a copy on disk.
    """

    splits: tuple[str, ...]
    audio_column: str = "audio"
    label_column: str | None = "label"
    label_map: Mapping[str, str] | None = None
    requires_labels: bool = True
    config_name: str | None = None
    streaming: bool = False
