"""The named corpora, and the parser of `NAME`, `NAME:PATH`, `arena:NAME`, paths and Hub ids."""

from __future__ import annotations

import difflib
import logging
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset

from hf_gradalign.data.arrow import Column
from hf_gradalign.data.corpora.arena import arena_repository, is_arena_folder, name_key
from hf_gradalign.data.corpora.asvspoof import (
    ASVspoof5,
    ASVspoof2019LA,
    ASVspoof2019PA,
    ASVspoof2021DF,
    ASVspoof2021LA,
    ASVspoof2021PA,
)
from hf_gradalign.data.corpora.fake_or_real import FakeOrReal
from hf_gradalign.data.corpora.in_the_wild import InTheWild
from hf_gradalign.data.corpora.layout import FolderTree, Layout, Located, SplitClips, make_dataset
from hf_gradalign.data.corpora.mlaad import MLAAD
from hf_gradalign.data.files_on_disk import MissingAudio, as_on_disk
from hf_gradalign.data.request import CorpusError, CorpusRequest
from hf_gradalign.utils.files import require_reachable
from hf_gradalign.utils.folder_listing import last_part
from hf_gradalign.utils.plain_text import split_at_colons

logger = logging.getLogger(__name__)

LAYOUTS: dict[str, Layout] = {
    kind.name: kind()
    for kind in (
        ASVspoof2019LA,
        ASVspoof2019PA,
        ASVspoof2021LA,
        ASVspoof2021DF,
        ASVspoof2021PA,
        ASVspoof5,
        InTheWild,
        FakeOrReal,
        MLAAD,
    )
}
"""The layout of each named corpus."""

DEMO = "demo"
ARENA = "arena"
CORPORA_FOLDER = "HF_GRADALIGN_CORPORA"
"""The environment variable with the folder of all named corpora, for names without a path."""

_YEAR = re.compile(r"(?<!\d)20\d\d(?!\d)")
_TRACK = re.compile(r"(la|pa|df)$")


@dataclass(frozen=True)
class CorpusSpec:
    """A parsed corpus argument.

    Attributes:
        text: The argument.
        name: A short name for messages and file names: the corpus' name, or the last part of its path.
        layout: The layout of a named corpus.
        path: The path, as written.
        hub_id: The repository, if the corpus is on the Hub.
        is_arena: Whether the corpus has the Arena's format.
        is_demo: Whether this is the demo corpus.
    """

    text: str
    name: str
    layout: Layout | None = None
    path: str | None = None
    hub_id: str | None = None
    is_arena: bool = False
    is_demo: bool = False

    @property
    def display_name(self) -> str:
        """The corpus' name in messages."""
        return "the demo corpus" if self.is_demo else self.hub_id or self.text


def available_corpora() -> list[str]:
    """Return the names that `load_corpus` accepts."""
    return [DEMO, *LAYOUTS, f"{ARENA}:NAME"]


def parse_corpus(text: str | None, path: str | None = None) -> CorpusSpec:
    """Parse a corpus argument.

    Args:
        text: A name (case, hyphens, underscores and spaces do not matter), optionally with a path after a colon;
            `arena:NAME`; a path; a Hub id; None for the demo corpus, or for `path`.
        path: The path, if it is not in `text`.

    Raises:
        CorpusError: If there are two paths, or the corpus takes no path.
    """
    if text is None:
        return CorpusSpec(DEMO, DEMO, is_demo=True) if path is None else parse_corpus(str(path))
    name, _, rest = text.partition(":")
    if rest and path is not None:
        raise CorpusError(f"{text} names a path, and path={path!r} another one; give one of them.")
    key = name_key(name)
    location = rest or (None if path is None else str(path))
    if key == DEMO:
        if location is not None:
            raise CorpusError("The demo corpus comes with the package and takes no path.")
        return CorpusSpec(text, DEMO, is_demo=True)
    if key == ARENA:
        return _parse_arena(text, rest, path)
    layout = _BY_KEY.get(key)
    if layout is not None:
        return CorpusSpec(text, layout.name, layout=layout, path=location)
    if path is not None:
        raise CorpusError(f"{text!r} is not a named corpus; only named corpora take a path.{did_you_mean(text)}")
    given = Path(text).expanduser()
    require_reachable(given)
    source = as_on_disk(given)
    is_on_hub = not source.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None
    name = unicodedata.normalize("NFC", source.stem if source.suffix else last_part(source))
    is_arena = is_arena_folder(source)
    location = text if source == given else str(source)
    return CorpusSpec(text, name, path=location, hub_id=text if is_on_hub else None, is_arena=is_arena)


def corpus_root(spec: CorpusSpec) -> Path:
    """Return the folder to search for a named corpus.

    Raises:
        CorpusError: If no path is known, or it does not exist. The message says what to download from where.
    """
    layout = spec.layout
    assert layout is not None
    path = spec.path or os.environ.get(CORPORA_FOLDER)
    if path is None:
        raise CorpusError(
            f"{layout.title} needs a path, as in {layout.name}:/data/{layout.name}. To get the corpus: {layout.home}. "
            f"docs/corpora/{layout.page} has the details. If all your corpora are in one folder, set "
            f"{CORPORA_FOLDER} to it."
        )
    root = as_on_disk(Path(path).expanduser())
    require_reachable(root)
    if not root.exists():
        source = "" if spec.path else f" (from {CORPORA_FOLDER})"
        raise CorpusError(f"{layout.title}: {root}{source} does not exist. To get the corpus: {layout.home}.")
    return root


def did_you_mean(text: str) -> str:
    """Return a hint about a similar corpus name, or an empty string.

    Names with a year are compared only with corpora of the same year and track.
    """
    name, colon, rest = text.partition(":")
    key = name_key(name)
    year = _YEAR.search(key)
    known = [*_BY_KEY, DEMO, ARENA]
    if year is not None:
        known = [other for other in known if year[0] in other]
        track = _TRACK.search(key)
        if known and track is not None and not any(other.endswith(track[0]) for other in known):
            return f" There are {' and '.join(dict.fromkeys(_BY_KEY[other].name for other in known))}."
        known = [other for other in known if track is None or other.endswith(track[0])]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if not close:
        return ""
    layout = _BY_KEY.get(close[0])
    return f" Did you mean {layout.name if layout else close[0]}{colon}{rest}?"


def _parse_arena(text: str, rest: str, path: str | None) -> CorpusSpec:
    name, *words = split_at_colons(rest)
    location = ":".join(words)
    if not name:
        raise CorpusError(f"{text}: name a data set of the Arena, as in arena:ASVspoof2019_LA, or arena:NAME:FOLDER.")
    if path is not None and location:
        raise CorpusError(f"{text} names a path, and path={path!r} another one; give one of them.")
    location = location or path
    if location is None and Path(name).expanduser().is_dir():
        location, name = name, Path(name).name  # a local folder in the Arena's format
    hub_id = None if location else arena_repository(name)
    short_name = hub_id.partition("/")[2] if hub_id else name
    return CorpusSpec(text, short_name, path=location and str(location), hub_id=hub_id, is_arena=True)


_BY_KEY = {name_key(name): layout for layout in LAYOUTS.values() for name in (layout.name, *layout.aliases)}


def read_official_layout(spec: CorpusSpec, request: CorpusRequest) -> dict[str, Dataset]:
    """Read splits of a named corpus from its official layout. No audio is opened.

    Args:
        spec: The corpus.
        request: What to load. Splits may have the project's names or the corpus' own.

    Returns:
        The splits, with the columns of `FEATURES`.

    Raises:
        CorpusError: If the corpus, a split or audio files are missing, or a protocol cannot be read.
    """
    layout = spec.layout
    assert layout is not None
    _check_subset(layout, request.subset)
    wanted = request.splits
    own = {name: layout.split_of(split) for name, split in wanted.items() if split is not None}
    unknown = [wanted[name] for name, split in own.items() if split is None and name not in request.optional]
    if unknown:
        names = [split if split == own_name else f"{split} ({own_name})" for split, own_name in layout.splits.items()]
        raise CorpusError(
            f"{layout.title} has no split {unknown[0]!r}; its splits are {', '.join(names)}. Other "
            "splits are chosen with --train_split_name, --eval_split_name and --test_split_name, other corpora to "
            "validate and test on with --eval_corpus and --test_corpus."
        )
    located = _locate(layout, corpus_root(spec), own, request.optional)
    missing = MissingAudio(layout.title, request.on_missing_audio)
    corpus = {}
    for name, (split, where) in located.items():
        if name == "train" and not layout.is_partitioned:
            logger.warning(
                "%s has no partition, so all of its clips are used for training. Do not report results on it.",
                layout.title,
            )
        clips = layout.read(where, split, request.subset)
        asked, own_name = wanted[name] or name, layout.splits[split]
        display_name = f"{own_name} ({asked})" if own_name != asked else asked
        exists = pc.is_valid(clips.paths)
        missing.add(display_name, exists, _expected_files(clips, where))
        _require_unique(clips, layout, where)
        identity = (
            layout.name,
            split,
            request.subset,
            _describe_files(where),
            len(clips.labels),
            pc.sum(exists).as_py(),
        )
        if clips.paths.null_count and request.on_missing_audio != "keep":
            clips = clips.select(exists)
        corpus[name] = make_dataset(clips.paths, clips.labels, clips.utterance_ids, clips.metadata, identity)
    missing.report()
    return corpus


def _check_subset(layout: Layout, subset: str | None) -> None:
    if subset is not None and subset not in layout.subsets:
        available = f"its subsets are {', '.join(layout.subsets)}" if layout.subsets else "it has no subsets"
        raise CorpusError(f"{layout.title} has no subset {subset!r}: {available}.")


def _locate(
    layout: Layout, root: Path, own: Mapping[str, str | None], optional: frozenset[str]
) -> dict[str, tuple[str, Located]]:
    """Find the splits. Return the layout's name of each split, and where it is."""
    wanted = {name: split for name, split in own.items() if split is not None}
    tree = FolderTree(root)
    while True:
        located = {name: layout.locate(tree, split) for name, split in wanted.items()}
        is_done = all(located.values()) and not layout.is_scattered
        if is_done or not tree.deepen():
            break
    absent = [name for name, where in located.items() if where is None and name not in optional]
    if absent:
        searched = "\n".join(
            f"  {split}: {layout.expects[split]}" for split in dict.fromkeys(wanted[n] for n in absent)
        )
        raise CorpusError(
            f"{root} does not contain {'all of ' if any(located.values()) else ''}{layout.title}. Searched it and "
            f"its subfolders for\n{searched}\nand found: "
            f"{tree.describe()}.{_hint_at_other_corpora(layout, tree)}\nTo get the corpus: {layout.home}. Its page is "
            f"docs/corpora/{layout.page}."
        )
    for name, where in located.items():
        if where is None:
            expected = layout.expects[wanted[name]]
            logger.warning("%s has no %s part of %s (%s): continuing without it.", root, name, layout.title, expected)
    return {name: (wanted[name], where) for name, where in located.items() if where is not None}


def _hint_at_other_corpora(layout: Layout, tree: FolderTree) -> str:
    """Return a hint about other corpora in the same folder."""
    others = [
        other.name
        for other in LAYOUTS.values()
        if other is not layout and other.is_partitioned and any(other.locate(tree, split) for split in other.splits)
    ]
    return f" It contains {' and '.join(others)}." if others else ""


def _expected_files(clips: SplitClips, where: Located) -> Column:
    # With several folders, only the names in the protocol are known.
    if len(where.folders) != 1:
        return clips.expected
    return pc.binary_join_element_wise(f"{where.folders[0].as_posix()}/", clips.expected, "")


def _require_unique(clips: SplitClips, layout: Layout, where: Located) -> None:
    n_names = pc.count_distinct(clips.utterance_ids).as_py()
    if n_names != len(clips.labels):
        counts = pc.value_counts(clips.utterance_ids)
        first = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
        raise CorpusError(
            f"{where.protocol or layout.title} names {len(clips.labels) - n_names} utterances more than once, such as "
            f"{first}; download it again."
        )


def _describe_files(where: Located) -> tuple[str, int, tuple[str, ...]]:
    folders = tuple(str(folder) for folder in where.folders)
    if where.protocol is None:
        return "", 0, folders
    return str(where.protocol), where.protocol.stat().st_mtime_ns, folders
