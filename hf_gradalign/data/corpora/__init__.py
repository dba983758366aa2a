"""Named corpora, with one file per official layout."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.data.corpora.layout import FEATURES, METADATA_COLUMNS
    from hf_gradalign.data.corpora.registry import (
        CORPORA_FOLDER,
        LAYOUTS,
        CorpusSpec,
        available_corpora,
        did_you_mean,
        parse_corpus,
        read_official_layout,
    )
    from hf_gradalign.data.request import OnMissingAudio
else:
    __getattr__, __dir__ = lazy_names(__name__)

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
    "read_official_layout",
]
