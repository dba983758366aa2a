"""Read the splits of a named corpus from its official layout."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_gradalign.data.corpora.folder_tree import FolderTree
from hf_gradalign.data.corpora.layout import Clips, Layout, Located
from hf_gradalign.data.corpora.missing_audio import MissingAudio, OnMissingAudio
from hf_gradalign.data.corpora.registry import LAYOUTS, CorpusSpec, corpus_root
from hf_gradalign.data.corpora.schema import make_dataset
from hf_gradalign.data.errors import CorpusError

logger = logging.getLogger(__name__)


def read_named(
    spec: CorpusSpec,
    wanted: Mapping[str, str],
    *,
    optional: frozenset[str] = frozenset(),
    subset: str | None = None,
    on_missing_audio: OnMissingAudio = "stop",
) -> dict[str, Dataset]:
    """Read splits of a corpus that has a layout of its own. No audio is opened.

    Args:
        spec: the corpus.
        wanted: the splits, in the project's or the corpus' own names, by what they shall be called.
        optional: those that may be absent.
        subset: which part of a split, where the corpus has parts.
        on_missing_audio: `stop` or `skip`, as for `load_corpus`.

    Returns:
        The splits, in the schema.

    Raises:
        CorpusError: if the corpus or a split is not there, a protocol cannot be read, or audio files are missing.
    """
    layout = spec.layout
    _check_subset(layout, subset)
    own = {name: layout.split_of(split) for name, split in wanted.items()}
    unknown = [wanted[name] for name, split in own.items() if split is None and name not in optional]
    if unknown:
        raise CorpusError(
            f"{layout.title} has no split {unknown[0]!r}; its splits are {', '.join(_named_splits(layout))}. Other "
            "splits are chosen with --train_split_name, --eval_split_name and --test_split_name, other corpora to "
            "validate and test on with --eval_corpus and --test_corpus."
        )
    located = _locate(layout, corpus_root(spec), own, optional)
    missing = MissingAudio(layout.title, on_missing_audio)
    corpus = {}
    for name, place in located.items():
        split = own[name]
        if name == "train" and not layout.is_partitioned:
            logger.warning(
                "%s has no partition: all of its clips are trained on. Do not report results on it.", layout.title
            )
        clips = layout.read(place, split, subset)
        shown = f"{layout.splits[split]} ({wanted[name]})" if layout.splits[split] != wanted[name] else wanted[name]
        is_there = pc.is_valid(clips.paths)
        missing.note(shown, is_there, _expected_files(clips, place))
        _require_unique(clips, layout, place)
        identity = (layout.name, split, subset, _stamp(place), len(clips.labels), pc.sum(is_there).as_py())
        if clips.paths.null_count:
            clips = clips.only(is_there)
        corpus[name] = make_dataset(clips.paths, clips.labels, clips.utterance_ids, clips.metadata, identity)
    missing.settle()
    return corpus


def _named_splits(layout: Layout) -> list[str]:
    return [split if split == own else f"{split} ({own})" for split, own in layout.splits.items()]


def _check_subset(layout: Layout, subset: str | None) -> None:
    if subset is not None and subset not in layout.subsets:
        there = f"its subsets are {', '.join(layout.subsets)}" if layout.subsets else "it has no subsets"
        raise CorpusError(f"{layout.title} has no subset {subset!r}: {there}.")


def _locate(layout: Layout, root: Path, own: Mapping[str, str | None], optional: frozenset[str]) -> dict[str, Located]:
    tree = FolderTree(root)
    while True:
        found = {name: layout.locate(tree, split) for name, split in own.items() if split is not None}
        if all(found.values()) or not tree.deepen():
            break
    absent = [name for name, place in found.items() if place is None and name not in optional]
    if absent:
        looked = "\n".join(f"  {split}: {layout.expects[split]}" for split in dict.fromkeys(own[n] for n in absent))
        raise CorpusError(
            f"{root} does not hold {'all of ' if any(found.values()) else ''}{layout.title}. Looked, there and in "
            f"folders below, for\n{looked}\nand found there: {tree.described()}.{_others(layout, tree)}\n"
            f"To get the corpus: {layout.home}. "
            f"Its page is docs/corpora/{layout.page}."
        )
    for name, place in found.items():
        if place is None:
            expected = layout.expects[own[name]]
            logger.warning("%s has no %s part of %s (%s): going on without it.", root, name, layout.title, expected)
    return {name: place for name, place in found.items() if place is not None}


def _others(layout: Layout, tree: FolderTree) -> str:
    """Other corpora that lie there."""
    there = [
        other.name
        for other in LAYOUTS.values()
        if other is not layout and other.is_partitioned and any(other.locate(tree, split) for split in other.splits)
    ]
    return f" It holds {' and '.join(there)}." if there else ""


def _expected_files(clips: Clips, place: Located) -> pa.Array | pa.ChunkedArray:
    # Under the first folder, where a single one is told; a protocol's own names otherwise.
    if len(place.folders) != 1:
        return clips.expected
    return pc.binary_join_element_wise(f"{place.folders[0]}/", clips.expected, "")


def _require_unique(clips: Clips, layout: Layout, place: Located) -> None:
    n_names = pc.count_distinct(clips.utterance_ids).as_py()
    if n_names != len(clips.labels):
        counts = pc.value_counts(clips.utterance_ids)
        first = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
        raise CorpusError(
            f"{place.protocol or layout.title} names {len(clips.labels) - n_names} utterances more than once, {first} "
            "among them; download it again."
        )


def _stamp(place: Located) -> tuple[str, int, tuple[str, ...]]:
    folders = tuple(str(folder) for folder in place.folders)
    if place.protocol is None:
        return "", 0, folders
    return str(place.protocol), place.protocol.stat().st_mtime_ns, folders
