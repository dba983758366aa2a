"""Finds clips that two splits share, which would make an evaluation look too good."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_gradalign.data.arrow import arrow_column
from hf_gradalign.data.utterance_ids import AudioSources

# Clips given as bytes are read to compare them, up to this number in each data set.
_READ = 1000
# These bytes differ between most clips: some after the header, and some at the end for short clips.
_PARTS = ((1000, 1064), (-64, None))


@dataclass(frozen=True)
class SharedClips:
    """The clips of a data set that are also in others.

    Attributes:
        ids: The clips' utterance ids.
        are_all: False if not all clips were compared, so there may be more.
    """

    ids: list[str]
    are_all: bool


def find_shared_clips(clips: Dataset, others: Iterable[Dataset]) -> SharedClips:
    """Find the clips whose audio is also in other data sets.

    Audio is the same if it is the same file, under one path. Up to 1,000 clips given as bytes are compared with clips
    of the same name and length.

    Args:
        clips: With the standard columns.
        others: Other data sets, with the standard columns.
    """
    found: set[int] = set()
    are_all = True
    own = AudioSources(clips)
    for other in others:
        theirs = AudioSources(other)
        found.update(_rows(pc.is_in(own.files, value_set=theirs.files.drop_null())))
        equal, are_all_equal = _rows_with_equal_bytes(clips, own, other, theirs)
        found.update(equal)
        are_all &= are_all_equal
    return SharedClips(clips.select(sorted(found))["utterance_id"][:], are_all)


def _rows_with_equal_bytes(
    clips: Dataset, own: AudioSources, other: Dataset, theirs: AudioSources
) -> tuple[set[int], bool]:
    """Return the rows whose bytes are also in another data set, and whether all candidates were compared."""
    keys, their_keys = _keys(own), _keys(theirs)
    rows = _rows(pc.is_in(keys, value_set=their_keys.drop_null()))
    their_rows = _rows(pc.is_in(their_keys, value_set=keys.drop_null()))
    are_all = True
    if max(len(rows), len(their_rows)) > _READ:
        parts, their_parts = _sample_bytes(clips, rows), _sample_bytes(other, their_rows)
        candidates = _rows(pc.is_in(parts, value_set=their_parts))
        kept = _thin_out(candidates)
        their_candidates = _rows(pc.is_in(their_parts, value_set=parts.take(pa.array(kept))))
        their_kept = _thin_out(their_candidates)
        are_all = len(kept) == len(candidates) and len(their_kept) == len(their_candidates)
        rows, their_rows = rows[kept], their_rows[their_kept]
    hashes = {_hash(other, row) for row in their_rows.tolist()}
    return {row for row in rows.tolist() if _hash(clips, row) in hashes}, are_all


def _sample_bytes(clips: Dataset, rows: np.ndarray) -> pa.Array:
    """Return a few bytes of each clip."""
    audio = pc.struct_field(arrow_column(clips.select(rows), "audio"), "bytes")
    parts = [pc.binary_slice(audio, *bounds).cast(pa.binary()) for bounds in _PARTS]
    return pc.binary_join_element_wise(*parts, b"").combine_chunks()


def _thin_out(rows: np.ndarray) -> np.ndarray:
    return rows[:: -(-len(rows) // _READ) or 1]


def _keys(audio: AudioSources) -> pa.Array:
    """Return the name and length of clips given as bytes; null for other clips."""
    return pc.binary_join_element_wise(pc.fill_null(audio.paths, ""), audio.lengths.cast(pa.string()), "/")


def _rows(mask: pa.Array) -> np.ndarray:
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False))


def _hash(clips: Dataset, row: int) -> bytes:
    return hashlib.blake2b(clips[row]["audio"]["bytes"]).digest()
