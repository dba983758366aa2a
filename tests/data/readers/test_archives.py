import os
import shutil
import tarfile
from pathlib import Path

import pytest

from hf_gradalign.data import CorpusError, decode_audio, load_corpus
from hf_gradalign.data.readers import archives
from hf_gradalign.utils.file_locks import hold_lock


def labels(dataset):
    return dict(zip(dataset["utterance_id"], dataset["label"], strict=True))


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_metadata_in_an_archive(pack, clip, tmp_path, ending):
    metadata = b"file_name,label\na.wav,real\nsub/b.wav,fake\n"
    members = {"c/metadata.csv": metadata, "c/a.wav": clip(1), "c/sub/b.wav": clip(2), "__MACOSX/c/._a.wav": b"x"}
    path = pack(f"test.{ending}", members)
    for corpus in (path, path.parent):
        split = load_corpus(corpus, splits=("test",))["test"]
        assert labels(split) == {"a": 1, "b": 0}
    assert len(decode_audio(split[0]["audio"], None)) == 400


def test_class_folders_in_archives(pack, clip):
    names = ["real/a.wav", "fake/a.wav"]
    for number, name in enumerate(("train.zip", "test-00000.zip", "test-00001.zip")):
        pack(name, {member: clip(3 * number + place) for place, member in enumerate(names)})
    folder = pack("validation.zip", {"real/b.wav": clip(8)}).parent
    corpus = load_corpus(folder)
    assert {split: labels(dataset) for split, dataset in corpus.items()} == {
        "train": {"train/fake/a.wav": 0, "train/real/a.wav": 1},
        "validation": {"b": 1},
        "test": {
            "test-00000/fake/a.wav": 0,
            "test-00000/real/a.wav": 1,
            "test-00001/fake/a.wav": 0,
            "test-00001/real/a.wav": 1,
        },
    }


def test_archives_that_are_classes(pack, clip):
    folder = pack("real.zip", {"a.wav": clip(1), "b.wav": clip(2)}).parent
    pack("fake.tar.gz", {"a.wav": clip(3), "c/d.wav": clip(4)})
    split = load_corpus(folder, splits=("train",))["train"]
    # Repeated names get their path in the archive, without the cache's path.
    assert labels(split) == {"real/a.wav": 1, "b": 1, "fake/a.wav": 0, "d": 0}


def test_unpacked_once_and_again_when_it_changes(pack, clip, monkeypatch):
    path = pack("x.zip", {"real/a.wav": clip(1)})
    first = load_corpus(path, splits=("test",))["test"]
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_unpack", None)
        assert load_corpus(path, splits=("test",))["test"]["audio"][:] == first["audio"][:]
    pack("x.zip", {"fake/b.wav": clip(2)})
    assert labels(load_corpus(path, splits=("test",))["test"]) == {"b": 0}


def test_leftovers_of_a_killed_process_are_removed(pack, clip, cache, monkeypatch):
    path = pack("x.zip", {"real/a.wav": clip(1)})
    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "rmtree", lambda *_, **__: None)  # as if it were killed in the middle
        patch.setattr(archives, "_measure", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load_corpus(path, splits=("test",))
    assert len(list(cache.rglob("a.wav"))) == 1
    assert labels(load_corpus(path, splits=("test",))["test"]) == {"a": 1}
    assert len(list(cache.rglob("a.wav"))) == 1
    assert not list(cache.rglob("*.partial-*"))


def test_another_process_that_unpacks_the_same_is_waited_for(pack, clip, cache, monkeypatch, caplog):
    path = pack("x.zip", {"real/a.wav": clip(1)})
    load_corpus(path, splits=("test",))
    [lock] = cache.rglob("*.lock")
    shutil.rmtree(lock.with_suffix(""))
    with hold_lock(lock, "the archive"):
        monkeypatch.setattr(archives, "_log_wait", lambda holder: (_ for _ in ()).throw(TimeoutError(holder)))
        with pytest.raises(TimeoutError, match=f"process {os.getpid()} on"):
            load_corpus(path, splits=("test",))


@pytest.mark.parametrize("damage", ["unlink", "touch"])
def test_unpacked_again_when_unpacked_files_are_gone(pack, clip, damage, caplog):
    path = pack("x.zip", {"real/a.wav": clip(1), "fake/b.wav": clip(2)})
    file = Path(load_corpus(path, splits=("test",))["test"]["audio"][0]["path"])
    content = file.read_bytes()
    file.unlink()
    if damage == "touch":
        file.touch()
    caplog.clear()
    clips = load_corpus(path, splits=("test",))["test"]
    assert labels(clips) == {"a": 1, "b": 0}
    assert file.read_bytes() == content
    assert "because its content differs from what was unpacked" in caplog.text


def test_unpacked_files_are_kept_beside_new_ones_and_without_a_record(pack, clip, cache, monkeypatch):
    path = pack("x.tar", {"real/a.wav": clip(1), "real/.hidden": b"x"})
    file = Path(load_corpus(path, splits=("test",))["test"]["audio"][0]["path"])
    [record] = cache.rglob("*.json")
    content = record.read_bytes()
    record.unlink()  # as of older versions
    (file.parent / ".DS_Store").write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_unpack", None)
        assert labels(load_corpus(path, splits=("test",))["test"]) == {"a": 1}
        assert record.read_bytes() == content
        (file.parent / "notes.txt").touch()
        assert labels(load_corpus(path, splits=("test",))["test"]) == {"a": 1}
    record.unlink()
    file.unlink()
    assert labels(load_corpus(path, splits=("test",))["test"]) == {"a": 1}


def test_unlabelled_archives_are_scored(pack, clip):
    path = pack("recordings.zip", {"a.wav": clip(1), "b.M4A": b"", "notes.txt": b""})
    split = load_corpus(path, splits=("test",), require_labels=False)["test"]
    assert split["utterance_id"][:] == ["a", "b"]
    with pytest.raises(CorpusError, match=r"recordings.zip, unpacked: .* contains audio files but no metadata"):
        load_corpus(path, splits=("test",))


def test_names_that_windows_wrote(pack, clip):
    path = pack("x.zip", {"train\\real\\a.wav": clip(1)})
    assert labels(load_corpus(path, splits=("train",))["train"]) == {"a": 1}


@pytest.mark.parametrize("name", ["../evil.wav", "real/../../evil.wav", "/evil.wav", "C:/evil.wav", "..\\evil.wav"])
@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_names_outside_the_folder_are_refused(pack, clip, cache, tmp_path, name, ending):
    if ending == "tar" and "\\" in name:
        return  # a plain name in the archive
    path = pack(f"x.{ending}", {"real/a.wav": clip(1), name: clip(2)})
    with pytest.raises(
        CorpusError, match=r"is not unpacked, because it contains a file with a path outside of it, .*evil.wav'"
    ):
        load_corpus(path, splits=("test",))
    assert not list(cache.rglob("*.wav"))
    assert not list(tmp_path.rglob("evil.wav"))


def test_links_within_a_tar(pack, clip):
    path = pack("x.tar", {"real/a.wav": clip(1)})
    with tarfile.open(path, "a") as file:
        for kind, name, target in (
            (tarfile.LNKTYPE, "real/hard.wav", "real/a.wav"),
            (tarfile.SYMTYPE, "fake/soft.wav", "../real/a.wav"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            file.addfile(link)
    split = load_corpus(path, splits=("test",))["test"]
    assert labels(split) == {"soft": 0, "a": 1, "hard": 1}
    assert all(len(decode_audio(audio, None)) == 400 for audio in split["audio"])
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("real/passwd.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with pytest.raises(CorpusError, match=r"links to files that are not in it: real/passwd.wav"):
        load_corpus(path, splits=("test",))


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_a_multipart_archive_is_refused(pack, clip, cache, ending):
    path = pack(f"x.{ending}", {"real/a.wav": clip(1), "fake/b.wav": clip(2)})
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(CorpusError, match=r"Cannot unpack .*x\..*Download it again"):
        load_corpus(path, splits=("test",))
    assert not list(cache.rglob("*.wav"))


def test_joined_tars_are_refused(pack, clip):
    path = pack("x.tar", {"real/a.wav": clip(1)})
    other = pack("y.tar", {"fake/b.wav": clip(2)})
    path.write_bytes(path.read_bytes() + other.read_bytes())
    with pytest.raises(CorpusError, match=r"has data after its end"):
        load_corpus(path, splits=("test",))


def test_a_tar_without_an_end_is_reported(pack, clip, caplog):
    path = pack("x.tar", {"real/a.wav": clip(1)})
    path.write_bytes(path.read_bytes().rstrip(b"\0").ljust(1536, b"\0"))
    load_corpus(path, splits=("test",))
    assert "x.tar has no end mark: it may be truncated" in caplog.text


def test_a_repeated_name_is_refused(pack, clip):
    path = pack("x.tar", {"real/a.wav": clip(1)})
    with tarfile.open(path, "a") as file:
        file.addfile(tarfile.TarInfo("./real/a.wav"))
    with pytest.raises(CorpusError, match=r"contains './real/a.wav' twice"):
        load_corpus(path, splits=("test",))


def test_names_that_differ_in_case_only(pack, clip, monkeypatch):
    path = pack("x.zip", {"real/a.wav": clip(1), "real/A.wav": clip(2)})
    assert len(load_corpus(path, splits=("test",))["test"]) == 2
    exists = Path.exists

    def exists_in_any_case(path):  # as on the disks of macOS
        return exists(path) or (
            exists(path.parent) and path.name.lower() in (p.name.lower() for p in path.parent.iterdir())
        )

    path = pack("y.zip", {"real/a.wav": clip(1), "real/A.wav": clip(2)})
    monkeypatch.setattr(Path, "exists", exists_in_any_case)
    with pytest.raises(CorpusError, match=r"contains 'real/A.wav' twice"):
        load_corpus(path, splits=("test",))


def test_a_full_disk(pack, clip, monkeypatch):
    path = pack("x.zip", {"real/a.wav": clip(1)})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(CorpusError, match=r"No space to unpack .*HF_DATASETS_CACHE"):
        load_corpus(path, splits=("test",))


def test_audio_files_beside_the_archive_that_they_came_in(pack, clip, write_clip, caplog):
    folder = pack("download.zip", {"real/a.wav": clip(1)}).parent
    write_clip("set/real/a.wav", 400)
    assert len(load_corpus(folder, splits=("test",))["test"]) == 1
    assert "archives next to audio files or metadata are not read: " in caplog.text
    assert "Left out: 1 file that is not audio (1 .zip)" in caplog.text
