"""Clips that two data sets share, by their files or their bytes."""

import pytest
from datasets import Dataset

from hf_gradalign.data.columns import to_standard_columns
from hf_gradalign.data.overlap import shared_clips
from hf_gradalign.data.request import CorpusRequest
from hf_gradalign.data.utterance_ids import with_unique_ids


def clips(*audio):
    rows = [{"audio": value, "label": "spoof", "utterance_id": f"u{number}"} for number, value in enumerate(audio)]
    request = CorpusRequest(splits={"train": "train"})
    return with_unique_ids(to_standard_columns(Dataset.from_list(rows), "mine", request), "mine")


def encoded(content, path="a.wav"):
    return {"bytes": content, "path": path}


@pytest.mark.parametrize(
    ("audio", "others", "shared"),
    [
        (["/x/a.wav", "/x/b.wav"], ["/x/b.wav", "/y/a.wav"], ["u1"]),
        (["/x/./a.wav"], ["/x//a.wav"], ["u0"]),
        ([encoded(b"1"), encoded(b"2")], [encoded(b"2"), encoded(b"3")], ["u1"]),
        ([encoded(b"1"), encoded(b"2", None)], [encoded(b"1", "b.wav"), encoded(b"2", None)], ["u1"]),
        ([encoded(b"1")], ["a.wav"], []),
    ],
)
def test_shared(audio, others, shared):
    assert shared_clips(clips(*audio), [clips(*others)]) == shared
    assert shared_clips(clips(*audio), []) == []


def test_many_clips_of_one_name_and_length_take_a_bounded_time(monkeypatch):
    monkeypatch.setattr("hf_gradalign.data.overlap._READ", 10)
    same = clips(*[encoded(bytes([number])) for number in range(200)])
    assert 0 < len(shared_clips(same, [same])) <= 10
