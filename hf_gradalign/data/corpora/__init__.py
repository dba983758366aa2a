"""Corpora by name: one file a layout."""

from hf_gradalign.data.corpora.missing_audio import OnMissingAudio
from hf_gradalign.data.corpora.named import read_named
from hf_gradalign.data.corpora.registry import (
    CORPORA_FOLDER,
    LAYOUTS,
    CorpusSpec,
    available_corpora,
    did_you_mean,
    parse_corpus,
)
from hf_gradalign.data.corpora.schema import FEATURES, METADATA_COLUMNS

__all__ = [
    "CORPORA_FOLDER",
    "FEATURES",
    "LAYOUTS",
    "METADATA_COLUMNS",
    "CorpusSpec",
    "OnMissingAudio",
    "available_corpora",
    "did_you_mean",
    "parse_corpus",
    "read_named",
]
