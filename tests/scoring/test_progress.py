import pytest

from hf_gradalign.scoring.progress import ProgressStore, ScoredChunk, ScoredPart

SETTINGS = {"model": "a", "batch_size": 4}


@pytest.fixture
def store(tmp_path):
    store = ProgressStore(tmp_path / "scores.txt.partial")
    store.open(SETTINGS)
    return store


def test_chunks_of_all_processes_are_read(store):
    chunks = [ScoredChunk(0, [1.5, None], {1: "bad"}), ScoredChunk(2, [0.1 + 0.2], {})]
    store.append(0, chunks[1], SETTINGS)
    store.append(3, chunks[0], SETTINGS)
    assert store.read(SETTINGS) == {0: chunks[0], 2: chunks[1]}


def test_a_partial_line_is_removed(store):
    store.append(0, ScoredChunk(0, [1.0], {}), SETTINGS)
    path = store.folder / "process-0.jsonl"
    whole = path.read_bytes()
    store.append(0, ScoredChunk(1, [2.0], {}), SETTINGS)
    for torn in range(len(whole), len(path.read_bytes())):
        content = path.read_bytes()
        path.write_bytes(content[:torn])
        store.recover(0)
        assert path.read_bytes() == whole
        path.write_bytes(content)
    store.recover(0)
    assert set(store.read(SETTINGS)) == {0, 1}
    store.recover(7)  # a process that wrote nothing


def test_other_settings_are_refused_and_named(store, tmp_path):
    store.append(0, ScoredChunk(0, [1.0], {}), SETTINGS)
    again = ProgressStore(store.folder)
    again.open(dict(SETTINGS))
    assert set(again.read(SETTINGS)) == {0}
    with pytest.raises(ValueError, match="batch_size was 4 and is now 8"):
        again.open({**SETTINGS, "batch_size": 8})


def test_progress_of_versions_that_noted_the_columns_resumes(tmp_path):
    store, before = ProgressStore(tmp_path / "scores.txt.partial"), {**SETTINGS, "columns": ["label"]}
    store.open(before)
    store.append(0, ScoredChunk(0, [1.0], {}), before)
    store.open(SETTINGS)
    store.append(0, ScoredChunk(1, [2.0], {}), SETTINGS)
    store.append(1, ScoredChunk(2, [3.0], {}), {**SETTINGS, "batch_size": 8})  # by a survivor
    assert set(store.read(SETTINGS)) == {0, 1}


def test_lines_without_settings_are_ignored(store):
    store.append(0, ScoredChunk(0, [1.0], {}), SETTINGS)
    (store.folder / "settings.json").unlink()
    store.open(SETTINGS)
    assert store.read(SETTINGS) == {}


def test_remove(store):
    store.append(0, ScoredChunk(0, [1.0], {}), SETTINGS)
    store.remove()
    assert not store.folder.exists()
    store.remove()


def test_parts_are_joined_as_far_as_they_follow_each_other(store):
    parts = [ScoredPart(3, 0, [0, 0], [1.5, None]), ScoredPart(3, 2, [1], [2.5]), ScoredPart(3, 4, [1], [9.0])]
    for process, part in zip((1, 0, 0), parts, strict=True):
        store.append(process, part, SETTINGS)
    store.append(2, parts[0], SETTINGS)  # once more
    store.append(2, ScoredPart(5, 1, [0], [1.0]), SETTINGS)
    store.append(2, ScoredPart(3, 3, [1], [7.0]), {**SETTINGS, "model": "b"})
    assert store.read(SETTINGS) == {}
    found = store.read_parts(SETTINGS)
    assert found[3] == ScoredPart(3, 0, [0, 0, 1], [1.5, None, 2.5])
    assert found[5].owners == []


def test_chunks_of_another_scoring_in_the_folder_do_not_count(store):
    # A process of a killed scoring may live on, and write into the folder of the next one.
    store.append(0, ScoredChunk(0, [1.0], {}), SETTINGS)
    store.append(1, ScoredChunk(0, [7.0], {}), {**SETTINGS, "model": "b"})
    store.append(1, ScoredChunk(1, [8.0], {}), {**SETTINGS, "model": "b"})
    assert store.read(SETTINGS) == {0: ScoredChunk(0, [1.0], {})}
