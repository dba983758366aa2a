"""From a corpus to batches: load and check the corpus, decode, crop and augment its clips, collate them."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.data.checking import BadAudioError, BadClip, check_audio
    from hf_gradalign.data.collator import DeferredAugmentation, ViewCollator
    from hf_gradalign.data.corpora import METADATA_COLUMNS, CorpusSpec, available_corpora, parse_corpus
    from hf_gradalign.data.datasets import AudioDataset, ClipDataset, StreamedViewDataset, ViewDataset
    from hf_gradalign.data.decoding import AudioDecodingError, Window, crop, decode_audio, repeat_pad
    from hf_gradalign.data.labels import (
        LABEL_NAMES,
        canonical_label,
        is_no_label,
        map_labels,
        parse_label_map,
        require_both_classes,
    )
    from hf_gradalign.data.loading import load_corpus, split_off_validation
    from hf_gradalign.data.mixing import CorpusOptions, check_weights, mix_corpora, mix_streams, unique_names
    from hf_gradalign.data.readers import demo_corpus_files
    from hf_gradalign.data.request import CorpusError
    from hf_gradalign.data.streaming import stream_corpus
    from hf_gradalign.data.view_maker import draw_position, seeded_generators
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "LABEL_NAMES",
    "METADATA_COLUMNS",
    "AudioDataset",
    "AudioDecodingError",
    "BadAudioError",
    "BadClip",
    "ClipDataset",
    "CorpusError",
    "CorpusOptions",
    "CorpusSpec",
    "DeferredAugmentation",
    "StreamedViewDataset",
    "ViewCollator",
    "ViewDataset",
    "Window",
    "available_corpora",
    "canonical_label",
    "check_audio",
    "check_weights",
    "crop",
    "decode_audio",
    "demo_corpus_files",
    "draw_position",
    "is_no_label",
    "load_corpus",
    "map_labels",
    "mix_corpora",
    "mix_streams",
    "parse_corpus",
    "parse_label_map",
    "repeat_pad",
    "require_both_classes",
    "seeded_generators",
    "split_off_validation",
    "stream_corpus",
    "unique_names",
]
