"""Clips that two data sets share, by their files or their bytes."""

import pytest
from datasets import Dataset

from hf_gradalign.data.columns import to_standard_columns
from hf_gradalign.data.overlap import SharedClips, find_shared_clips
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
    assert find_shared_clips(clips(*audio), [clips(*others)]) == SharedClips(shared, are_all=True)
    assert find_shared_clips(clips(*audio), []) == SharedClips([], are_all=True)


@pytest.fixture
def _few_are_read(monkeypatch):
    monkeypatch.setattr("hf_gradalign.data.overlap._READ", 10)


def numbered(start, end, name):
    return [encoded(b"%08d" % number * 20, name and name.format(number)) for number in range(start, end)]


@pytest.mark.usefixtures("_few_are_read")
@pytest.mark.parametrize("name", ["{}.wav", "a.wav", None])
def test_more_clips_than_are_read_are_a_lower_bound(name):
    same = clips(*numbered(0, 200, name))
    shared = find_shared_clips(same, [same.select([*range(199, -1, -1)])])
    assert (len(shared.ids), shared.are_all) == (10, False)
    part = find_shared_clips(same, [clips(*numbered(195, 400, name))])
    assert (part.ids, part.are_all) == ([f"u{number}" for number in range(195, 200)], True)


@pytest.mark.usefixtures("_few_are_read")
def test_many_clips_that_differ_in_other_places_take_a_bounded_time():
    same = clips(*[encoded(bytes([number]) + bytes(99)) for number in range(200)])
    shared = find_shared_clips(same, [same])
    assert 0 < len(shared.ids) <= 10
    assert not shared.are_all
