"""A request for a corpus: the arguments of `load_corpus` in one object, and the error for requests that fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

OnMissingAudio = Literal["stop", "skip", "keep"]

NO_COLUMN = "none"
"""Stands for a column that does not exist."""
LABEL_COLUMN = "label"
"""The default column of labels."""
ID_COLUMN = "utterance_id"
"""The default column of utterance ids."""
DEFAULT_TEST_SPLIT = "test"


class CorpusError(ValueError):
    """A corpus cannot be used. The message says what was found and which option helps."""


@dataclass(frozen=True)
class CorpusRequest:
    """The arguments of `load_corpus` and `stream_corpus` (see there), for the modules that do the work.

    Attributes:
        splits: The corpus' own name of each split, the training split first; None for splits that are not wanted.
        optional: Splits that may be missing.
        subset: Part of a split, for corpora with subsets.
        on_missing_audio: `stop`, `skip` or `keep`.
        config_name: The data set's configuration.
        revision: The Hub repository's branch, tag or commit.
        token: The Hub token; None uses the token that you are logged in with.
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
