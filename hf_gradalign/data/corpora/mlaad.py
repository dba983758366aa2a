"""MLAAD, the multi-language audio anti-spoofing data set (Müller et al., IJCNN 2024; arXiv 2401.09512)."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.data.corpora.audio_listing import AudioListing, warn_about_left_out
from hf_gradalign.data.corpora.layout import FolderTree, Layout, Located, SplitClips
from hf_gradalign.data.corpora.protocol_file import first_words, read_delimited
from hf_gradalign.data.labels import LABEL_NAMES
from hf_gradalign.data.request import CorpusError

_META = "meta.csv"


class MLAAD(Layout):
    """Folders `fake/<language>/<model>/` with audio and a `meta.csv` delimited by `|`. All clips are spoof."""

    name = "mlaad"
    title = "MLAAD"
    home = "MLAAD from https://deepfake-total.com/mlaad"
    page = "mlaad.md"
    splits: ClassVar[Mapping[str, str]] = {"test": "all"}
    is_partitioned = False
    is_scattered = True
    expects: ClassVar[Mapping[str, str]] = {"test": "fake/<language>/<model>/meta.csv, in the folder of the audio"}

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        metas = [path for path in tree.files if path.name == _META and _is_mlaad_metadata(path)]
        if not metas:
            return None
        # Compare real paths, because a link to a folder is not another copy.
        folders = set({os.path.realpath(path.parent): path.parent for path in reversed(metas)}.values())
        roots = {_root_of(folder, tree.root) for folder in folders}
        undescribed = [path for path in tree.folders if path not in folders and not roots.isdisjoint(path.parents)]
        return Located(None, tuple(sorted(folders)), tuple(sorted(undescribed)))

    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """See `Layout`."""
        listings = [AudioListing([folder]) for folder in located.folders]
        parts = [_read_model(*each) for each in zip(located.folders, listings, strict=True)]
        _refuse_copies(located.folders, parts)
        table = pa.concat_tables([part for part in parts if part.num_rows])
        listings += [AudioListing([folder]) for folder in located.undescribed]
        files = pa.concat_arrays([listing.paths for listing in listings])
        left_out = files.filter(pc.invert(pc.is_in(files, value_set=table["path"].combine_chunks())))
        warn_about_left_out(left_out.to_pylist(), len(files), "the meta.csv of their folders")
        labels = pa.repeat(LABEL_NAMES.index("spoof"), table.num_rows).cast(pa.int64())
        metadata = {"language": table["language"], "system": table["system"]}
        paths = table["path"].combine_chunks()
        return SplitClips(labels, table["utterance_id"], paths, table["expected"], metadata)


def _is_mlaad_metadata(path: Path) -> bool:
    header = " ".join(first_words(path))
    return "|" in header and "path" in header.split("|")


def _root_of(folder: Path, root: Path) -> Path:
    """Return the corpus folder above a model's folder: `fake`, or the parent of the languages, if below `root`."""
    above = [path for path in folder.parents if path == root or root in path.parents]
    return next((path for path in above if path.name == "fake"), [folder, *above][:3][-1])


def _prefix(folder: Path) -> str:
    """Return the prefix of the utterance ids of a model's clips."""
    return "/".join(folder.parts[-3:] if "fake" in folder.parts[-3:] else folder.parts[-2:])


def _refuse_copies(folders: Sequence[Path], parts: Sequence[pa.Table]) -> None:
    """Refuse folders of the same model that share utterances. A model's clips may be in several folders."""
    earlier: dict[str, list[tuple[Path, pa.Table]]] = defaultdict(list)
    for folder, part in zip(folders, parts, strict=True):
        ids = part["utterance_id"]
        for other, other_part in earlier[_prefix(folder)]:
            if pc.any(pc.is_in(ids, value_set=other_part["utterance_id"])).as_py():
                raise CorpusError(
                    f"There are two copies or versions of MLAAD: {other} and {folder}. Name a folder that contains "
                    "only the one you mean."
                )
        earlier[_prefix(folder)].append((folder, part))


def _read_model(folder: Path, listing: AudioListing) -> pa.Table:
    meta = folder / _META
    try:
        # Quotation marks are part of the transcripts. Two stray ones would join all lines between them.
        table = read_delimited(meta, "|", quoted=False)
    except CorpusError:
        table = read_delimited(meta, "|")
    # In some releases, paths are relative to the corpus' root, in others to this folder.
    files = pc.replace_substring_regex(table["path"], r"^.*/", "")
    names = pc.replace_substring_regex(files, r"\.[^.]*$", "")
    language = table["language"] if "language" in table.column_names else pa.repeat(folder.parent.name, len(table))
    system = table["model_name"] if "model_name" in table.column_names else pa.repeat(folder.name, len(table))
    return pa.table(
        {
            # Score files need ids without spaces, but vendors' folder names may contain them.
            "utterance_id": pc.replace_substring_regex(
                pc.binary_join_element_wise(f"{_prefix(folder)}/", names, ""), r"\s+", "_"
            ),
            "path": listing.find(names),
            "expected": pc.binary_join_element_wise(f"{folder.as_posix()}/", files, ""),
            "language": language,
            "system": system,
        }
    )
