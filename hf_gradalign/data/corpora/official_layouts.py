"""Read the splits of a named corpus from its official layout."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_gradalign.data.corpora.layout import FolderTree, Layout, Located, SplitClips
from hf_gradalign.data.corpora.registry import LAYOUTS, CorpusSpec, corpus_root
from hf_gradalign.data.corpora.schema import make_dataset
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.files_on_disk import MissingAudio
from hf_gradalign.data.request import CorpusRequest

logger = logging.getLogger(__name__)


def read_official_layout(spec: CorpusSpec, request: CorpusRequest) -> dict[str, Dataset]:
    """Read splits of a named corpus from its official layout. No audio is opened.

    Args:
        spec: The corpus.
        request: What is asked for. Split names may be the project's or the corpus' own.

    Returns:
        The splits, with the columns of `FEATURES`.

    Raises:
        CorpusError: If the corpus, a split or audio files are missing, or a protocol cannot be read.
    """
    layout = spec.layout
    _check_subset(layout, request.subset)
    wanted = request.splits
    own = {name: layout.split_of(split) for name, split in wanted.items()}
    unknown = [wanted[name] for name, split in own.items() if split is None and name not in request.optional]
    if unknown:
        raise CorpusError(
            f"{layout.title} has no split {unknown[0]!r}; its splits are {', '.join(_named_splits(layout))}. Other "
            "splits are chosen with --train_split_name, --eval_split_name and --test_split_name, other corpora to "
            "validate and test on with --eval_corpus and --test_corpus."
        )
    located = _locate(layout, corpus_root(spec), own, request.optional)
    missing = MissingAudio(layout.title, request.on_missing_audio)
    corpus = {}
    for name, where in located.items():
        split = own[name]
        if name == "train" and not layout.is_partitioned:
            logger.warning(
                "%s has no partition: all of its clips are trained on. Do not report results on it.", layout.title
            )
        clips = layout.read(where, split, request.subset)
        display_name = (
            f"{layout.splits[split]} ({wanted[name]})" if layout.splits[split] != wanted[name] else wanted[name]
        )
        exists = pc.is_valid(clips.paths)
        missing.add(display_name, exists, _expected_files(clips, where))
        _require_unique(clips, layout, where)
        identity = (layout.name, split, request.subset, _stamp(where), len(clips.labels), pc.sum(exists).as_py())
        if clips.paths.null_count:
            clips = clips.only(exists)
        corpus[name] = make_dataset(clips.paths, clips.labels, clips.utterance_ids, clips.metadata, identity)
    missing.report()
    return corpus


def _named_splits(layout: Layout) -> list[str]:
    return [split if split == own else f"{split} ({own})" for split, own in layout.splits.items()]


def _check_subset(layout: Layout, subset: str | None) -> None:
    if subset is not None and subset not in layout.subsets:
        available = f"its subsets are {', '.join(layout.subsets)}" if layout.subsets else "it has no subsets"
        raise CorpusError(f"{layout.title} has no subset {subset!r}: {available}.")


def _locate(layout: Layout, root: Path, own: Mapping[str, str | None], optional: frozenset[str]) -> dict[str, Located]:
    tree = FolderTree(root)
    while True:
        found = {name: layout.locate(tree, split) for name, split in own.items() if split is not None}
        if all(found.values()) or not tree.deepen():
            break
    absent = [name for name, where in found.items() if where is None and name not in optional]
    if absent:
        looked = "\n".join(f"  {split}: {layout.expects[split]}" for split in dict.fromkeys(own[n] for n in absent))
        raise CorpusError(
            f"{root} does not hold {'all of ' if any(found.values()) else ''}{layout.title}. Searched it and "
            f"its subfolders for\n{looked}\nand found there: {tree.described()}.{_others(layout, tree)}\n"
            f"To get the corpus: {layout.home}. "
            f"Its page is docs/corpora/{layout.page}."
        )
    for name, where in found.items():
        if where is None:
            expected = layout.expects[own[name]]
            logger.warning("%s has no %s part of %s (%s): continuing without it.", root, name, layout.title, expected)
    return {name: where for name, where in found.items() if where is not None}


def _others(layout: Layout, tree: FolderTree) -> str:
    """A hint at other corpora in the same place."""
    others = [
        other.name
        for other in LAYOUTS.values()
        if other is not layout and other.is_partitioned and any(other.locate(tree, split) for split in other.splits)
    ]
    return f" It holds {' and '.join(others)}." if others else ""


def _expected_files(clips: SplitClips, where: Located) -> pa.Array | pa.ChunkedArray:
    # With several folders, only the protocol's names are known.
    if len(where.folders) != 1:
        return clips.expected
    return pc.binary_join_element_wise(f"{where.folders[0]}/", clips.expected, "")


def _require_unique(clips: SplitClips, layout: Layout, where: Located) -> None:
    n_names = pc.count_distinct(clips.utterance_ids).as_py()
    if n_names != len(clips.labels):
        counts = pc.value_counts(clips.utterance_ids)
        first = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
        raise CorpusError(
            f"{where.protocol or layout.title} names {len(clips.labels) - n_names} utterances more than once, {first} "
            "among them; download it again."
        )


def _stamp(where: Located) -> tuple[str, int, tuple[str, ...]]:
    folders = tuple(str(folder) for folder in where.folders)
    if where.protocol is None:
        return "", 0, folders
    return str(where.protocol), where.protocol.stat().st_mtime_ns, folders
