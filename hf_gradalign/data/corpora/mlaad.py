"""MLAAD, the multi-language audio anti-spoofing data set (Müller et al., IJCNN 2024; arXiv 2401.09512)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.data.corpora.layout import AudioListing, FolderTree, Layout, Located, SplitClips
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
    expects: ClassVar[Mapping[str, str]] = {"test": "fake/<language>/<model>/meta.csv, in the folder of the audio"}

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        metas = [path for path in tree.files if path.name == _META and _is_mine(path)]
        if not metas:
            return None
        return Located(None, tuple(sorted(path.parent for path in metas)))

    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """See `Layout`."""
        parts = [_read_model(folder) for folder in located.folders]
        table = pa.concat_tables([part for part in parts if part.num_rows])
        labels = pa.repeat(LABEL_NAMES.index("spoof"), table.num_rows).cast(pa.int64())
        metadata = {"language": table["language"], "system": table["system"]}
        paths = table["path"].combine_chunks()
        return SplitClips(labels, table["utterance_id"], paths, table["expected"], metadata)


def _is_mine(path: Path) -> bool:
    header = " ".join(first_words(path))
    return "|" in header and "path" in header.split("|")


def _read_model(folder: Path) -> pa.Table:
    meta = folder / _META
    try:
        # Quotation marks belong to the transcripts: two single ones would join all lines between them.
        table = read_delimited(meta, "|", quoted=False)
    except CorpusError:
        table = read_delimited(meta, "|")
    # Some releases have paths relative to the corpus' root, others relative to this folder.
    files = pc.replace_substring_regex(table["path"], r"^.*/", "")
    names = pc.replace_substring_regex(files, r"\.[^.]*$", "")
    prefix = "/".join(folder.parts[-3:] if "fake" in folder.parts[-3:] else folder.parts[-2:])
    language = table["language"] if "language" in table.column_names else pa.repeat(folder.parent.name, len(table))
    system = table["model_name"] if "model_name" in table.column_names else pa.repeat(folder.name, len(table))
    return pa.table(
        {
            # Score files need ids without spaces, which vendors' folder names may have.
            "utterance_id": pc.replace_substring_regex(
                pc.binary_join_element_wise(f"{prefix}/", names, ""), r"\s+", "_"
            ),
            "path": AudioListing([folder]).find(names),
            "expected": pc.binary_join_element_wise(f"{folder}/", files, ""),
            "language": language,
            "system": system,
        }
    )
