import json
import logging
import os
import shutil
import socket
from concurrent.futures import Future
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from kill_simulation import Killed, every_kill, killed_before
from noise_clips import RATE, WINDOW, draw_clip
from tiny_detectors import make_detector

from hf_gradalign.data import CorpusError
from hf_gradalign.score_files.writing import read_score_file
from hf_gradalign.scoring import (
    DecisionRule,
    SpoofScorer,
    corpus_scoring,
    list_audio_files,
    progress,
    score_corpus,
    write_timelines,
    write_verdicts,
)
from hf_gradalign.scoring.fingerprint import digest_of_audio
from hf_gradalign.utils.file_locks import LockHeldError


@pytest.fixture
def scorer(detector, extractor):
    return SpoofScorer(detector, extractor, batch_size=4)


def test_scores_come_in_the_corpus_order(scorer, make_corpus, tmp_path):
    corpus = make_corpus(10)
    report = score_corpus(scorer, corpus, tmp_path / "scores.txt", progress=False)
    assert (report.n_clips, report.n_scored, report.bad_clips, report.was_complete) == (10, 10, [], False)
    scores = read_score_file(tmp_path / "scores.txt")
    assert list(scores) == corpus["utterance_id"][:]
    np.testing.assert_allclose(list(scores.values()), scorer.score(corpus["audio"]), atol=6e-7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.json", "scores.txt"]
    assert json.loads((tmp_path / "scores.json").read_text())["settings"]["windows"] == "first"


def test_columns(scorer, make_corpus, tmp_path):
    score_corpus(scorer, make_corpus(3), tmp_path / "scores.txt", columns=["label", "system"], progress=False)
    lines = [line.split("\t") for line in (tmp_path / "scores.txt").read_text().splitlines()]
    assert lines[0] == ["utterance_id", "score", "label", "system"]
    assert [(line[0], *line[2:]) for line in lines[1:]] == [
        ("utt_0000", "spoof", "A01"),
        ("utt_0001", "bonafide", "-"),
        ("utt_0002", "spoof", "A03"),
    ]


def test_bad_audio_is_listed_beside_the_scores(scorer, make_corpus, tmp_path):
    report = score_corpus(scorer, make_corpus(10, bad=(0, 5)), tmp_path / "scores.txt", progress=False)
    assert (report.n_clips, report.n_scored) == (10, 8)
    assert [clip.utterance_id for clip in report.bad_clips] == ["utt_0000", "utt_0005"]
    scores = read_score_file(tmp_path / "scores.txt")
    assert len(scores) == 8
    assert not {"utt_0000", "utt_0005"} & set(scores)
    lines = report.bad_audio_file.read_text().splitlines()
    assert lines[0] == "utterance_id\tpath\treason"
    assert lines[1].startswith("utt_0000\tclip_0.wav\tnot audio that libsndfile or FFmpeg can read")
    again = score_corpus(scorer, make_corpus(10, bad=(0, 5)), tmp_path / "scores.txt", progress=False)
    assert again.was_complete
    assert again.bad_clips == report.bad_clips


@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize("columns", [["label"], ["system", "label"], []])
def test_a_rerun_updates_the_columns(scorer, make_corpus, tmp_path, monkeypatch, is_complete, columns):
    corpus = make_corpus(9, bad=(2,))
    corrected = corpus.map(lambda row: {"label": 1 - row["label"]}, load_from_cache_file=False)
    score_corpus(scorer, corrected, tmp_path / "expected.txt", columns=columns, progress=False)
    path = tmp_path / "scores.txt"
    if is_complete:
        score_corpus(scorer, corpus, path, columns=["label"], progress=False)
        monkeypatch.setattr(SpoofScorer, "score_chunks", lambda *_: pytest.fail("scored again"))
    else:
        with killed_before(9), pytest.raises(Killed):
            score_corpus(scorer, corpus, path, columns=["label"], progress=False)
    if is_complete:  # as earlier versions wrote it
        content = json.loads((tmp_path / "scores.json").read_text())
        content["settings"]["columns"] = ["label"]
        (tmp_path / "scores.json").write_text(json.dumps(content))
    report = score_corpus(scorer, corrected, path, columns=columns, progress=False)
    assert report.was_complete == is_complete
    assert path.read_text() == (tmp_path / "expected.txt").read_text()
    assert not (tmp_path / "scores.lock").exists()


def test_deleted_list_of_bad_audio_is_restored(scorer, make_corpus, tmp_path):
    report = score_corpus(scorer, make_corpus(4, bad=(2,)), tmp_path / "scores.txt", progress=False)
    before = report.bad_audio_file.read_text()
    report.bad_audio_file.unlink()
    assert score_corpus(scorer, make_corpus(4, bad=(2,)), tmp_path / "scores.txt", progress=False).was_complete
    assert report.bad_audio_file.read_text() == before


@pytest.mark.parametrize("change", [lambda text: text.split("\n", 1)[1], lambda text: text + "x 1.0\n", lambda _: "?"])
def test_score_file_with_other_clips_is_not_complete(scorer, make_corpus, tmp_path, change):
    path = tmp_path / "scores.txt"
    score_corpus(scorer, make_corpus(3), path, progress=False)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=r"no longer has the clips that were scored.*--overwrite"):
        score_corpus(scorer, make_corpus(3), path, progress=False)


def test_verdicts_and_timelines_of_older_scores_are_deleted(scorer, make_corpus, tmp_path):
    corpus, path, folder = make_corpus(2), tmp_path / "scores.txt", tmp_path / "scores_timeline"
    score_corpus(scorer, corpus, path, progress=False)
    write_verdicts(tmp_path / "scores_verdicts.jsonl", read_score_file(path), DecisionRule(False))
    write_timelines(scorer, corpus, folder, progress=False)
    assert score_corpus(scorer, corpus, path, progress=False).was_complete
    assert len([*folder.iterdir()]) == 7
    (folder / "notes.md").touch()
    score_corpus(scorer, corpus, path, overwrite=True, progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["scores.json", "scores.txt", "scores_timeline"]
    assert [file.name for file in folder.iterdir()] == ["notes.md"]


def test_samples_outside_the_range_are_reported(scorer, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    for number, scale in enumerate((1, 2**15, 1, 1, 1, 20)):
        soundfile.write(tmp_path / f"{number}.wav", scale * draw_clip(number, 2000), RATE, subtype="FLOAT")
    corpus = list_audio_files([tmp_path])
    for _ in range(2):  # and again with existing scores
        report = score_corpus(scorer, corpus, tmp_path / "scores.txt", progress=False)
        assert report.n_scored == 6
        assert report.out_of_range.startswith("2 of 6 clips have samples outside [-1, 1]: up to ")
        assert report.out_of_range in caplog.text
        assert ", in 1.wav. They look like 16-bit integers: divide them by 32768." in report.out_of_range
        caplog.clear()


@pytest.mark.parametrize("windows", ["first", "all", "whole"])
def test_silent_clips_are_scored_and_reported(detector, extractor, tmp_path, caplog, monkeypatch, windows):
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    scorer = SpoofScorer(detector, extractor, batch_size=2, windows=windows)
    signal, silence = draw_clip(0, 2 * WINDOW), np.zeros(2 * WINDOW)
    clips = {"cancels": np.stack([signal, -signal], 1), "late": np.r_[silence, signal], "silent": silence, "x": signal}
    for name, clip in clips.items():
        soundfile.write(tmp_path / f"{name}.wav", clip, RATE)
    expected = ["cancels.wav", "late.wav", "silent.wav"] if windows == "first" else ["cancels.wav", "silent.wav"]
    for _ in range(2):  # and again with existing scores
        report = score_corpus(scorer, list_audio_files([tmp_path]), tmp_path / "scores.txt", progress=False)
        assert (report.n_scored, report.silent_clips) == (4, expected)
        assert f"{len(expected)} of 4 clips are silent in the part that the model scores" in caplog.text
        assert f": {', '.join(expected)}. Their scores say nothing about speech." in caplog.text
        caplog.clear()


def test_a_corpus_with_only_bad_audio(scorer, make_corpus, tmp_path):
    with pytest.raises(ValueError, match=r"none of the 3 clips can be scored:\n  utt_0000"):
        score_corpus(scorer, make_corpus(3, bad=range(3)), tmp_path / "scores.txt", progress=False)
    assert not (tmp_path / "scores.txt").exists()


def test_killed_before_every_change_on_the_disk(scorer, make_corpus, tmp_path):
    corpus = make_corpus(9, bad=(2,))
    whole = tmp_path / "whole.txt"
    score_corpus(scorer, corpus, whole, columns=["label"], progress=False)

    def attempt(change):
        folder = tmp_path / str(change)
        folder.mkdir()
        killed = False
        try:
            with killed_before(change):
                score_corpus(scorer, corpus, folder / "scores.txt", columns=["label"], progress=False)
        except Killed:
            killed = True
        score_corpus(scorer, corpus, folder / "scores.txt", columns=["label"], progress=False)
        assert (folder / "scores.txt").read_bytes() == whole.read_bytes()
        assert (folder / "scores_bad_audio.tsv").read_bytes() == (tmp_path / "whole_bad_audio.tsv").read_bytes()
        assert not (folder / "scores.txt.partial").exists()
        return not killed

    assert every_kill(attempt) > 8


def test_scored_clips_are_not_scored_again(scorer, make_corpus, tmp_path, monkeypatch):
    corpus = make_corpus(12)
    forwards = []
    original = SpoofScorer._forward
    monkeypatch.setattr(SpoofScorer, "_forward", lambda self, batch: forwards.append(1) or original(self, batch))

    def fail(self, *arguments):
        if len(forwards) == 3:
            raise KeyboardInterrupt
        return scored(self, *arguments)

    scored = SpoofScorer._clip_scores
    monkeypatch.setattr(SpoofScorer, "_clip_scores", fail)
    monkeypatch.setattr(Future, "done", Future.result)  # results are kept back until the settings are described
    with pytest.raises(KeyboardInterrupt):
        score_corpus(scorer, corpus, tmp_path / "scores.txt", progress=False)
    before = len(forwards)
    score_corpus(scorer, corpus, tmp_path / "scores.txt", progress=False)
    assert before == 3
    assert len(forwards) - before == 2  # of three chunks one was written
    assert score_corpus(scorer, corpus, tmp_path / "scores.txt", progress=False).was_complete
    assert len(forwards) - before == 2


def test_all_processes_must_share_the_folder(scorer, make_corpus, tmp_path):
    with patch.object(corpus_scoring, "require_shared_folder", side_effect=OSError("not shared")) as check:
        with pytest.raises(OSError, match="not shared"):
            score_corpus(scorer, make_corpus(1), tmp_path / "scores.txt")
        check.assert_called_once_with(tmp_path)


@pytest.mark.parametrize("is_complete", [True, False])
def test_another_model_corpus_or_setting_is_refused(detector, extractor, make_corpus, tmp_path, is_complete):
    scorer = SpoofScorer(detector, extractor, batch_size=4)
    path = tmp_path / "scores.txt"
    if is_complete:
        score_corpus(scorer, make_corpus(6), path, progress=False)
    else:
        change = 0
        while not (tmp_path / "scores.txt.partial" / "settings.json").exists():
            with killed_before(change), pytest.raises(Killed):
                score_corpus(scorer, make_corpus(6), path, progress=False)
            change += 1
    other = make_detector()
    next(iter(other.parameters())).data.add_(0.01)
    for changed, corpus, message in [
        (SpoofScorer(other, extractor, batch_size=4), make_corpus(6), "model_sha256"),
        (scorer, make_corpus(7), "clips was 6 and is now 7"),
        (SpoofScorer(detector, extractor, batch_size=4, windows="all"), make_corpus(6), "windows was 'first'"),
    ]:
        with pytest.raises(ValueError, match=rf"{message}.*--overwrite"):
            score_corpus(changed, corpus, path, progress=False)
    report = score_corpus(scorer, make_corpus(7), path, overwrite=True, progress=False)
    assert report.n_scored == 7
    assert not report.was_complete


def test_a_score_file_of_unknown_origin_is_not_overwritten(scorer, make_corpus, tmp_path):
    (tmp_path / "scores.txt").write_text("precious")
    with pytest.raises(ValueError, match="but the settings it was scored with are missing"):
        score_corpus(scorer, make_corpus(3), tmp_path / "scores.txt", progress=False)
    assert (tmp_path / "scores.txt").read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", ['{"EER": 1}', "[1, 2]", "not JSON at all", None])
def test_a_file_where_the_settings_go_is_left_alone(scorer, make_corpus, tmp_path, content, overwrite):
    corpus, settings_file = make_corpus(2), tmp_path / "scores.json"
    if content is None:  # settings of a score file with another suffix
        score_corpus(scorer, corpus, tmp_path / "scores.tsv", progress=False)
        content = settings_file.read_text()
    settings_file.write_text(content)
    with pytest.raises(ValueError, match=r"which (is another file|belongs to scores.tsv): give the score file"):
        score_corpus(scorer, corpus, tmp_path / "scores.txt", overwrite=overwrite, progress=False)
    assert settings_file.read_text() == content
    assert not list(tmp_path.glob("scores.txt*"))


def test_a_folder_where_the_settings_go_is_reported(scorer, make_corpus, tmp_path):
    (tmp_path / "scores.json").mkdir()
    with pytest.raises(ValueError, match=r"scores.json, which is another file"):
        score_corpus(scorer, make_corpus(2), tmp_path / "scores.txt", progress=False)


@pytest.mark.parametrize(
    ("content", "is_replaced"),
    [(b"RIFF\x00\xff", False), (b"file_name,label\na.wav,spoof\n", False), (b"a 1.0\n", True), (b"", True)],
    ids=["a recording", "metadata", "scores", "empty"],
)
def test_overwrite_replaces_scores_and_nothing_else(scorer, make_corpus, tmp_path, content, is_replaced):
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    if is_replaced:
        score_corpus(scorer, make_corpus(2), path, overwrite=True, progress=False)
        assert len(read_score_file(path)) == 2
    else:
        with pytest.raises(ValueError, match=r"file.txt exists and is not a score file"):
            score_corpus(scorer, make_corpus(2), path, overwrite=True, progress=False)
        assert path.read_bytes() == content


@pytest.mark.parametrize("overwrite", [False, True])
def test_renamed_scores_and_settings_are_recognized(scorer, make_corpus, tmp_path, overwrite):
    corpus = make_corpus(2)
    score_corpus(scorer, corpus, tmp_path / "scores.txt", progress=False)
    for suffix in ("txt", "json"):
        (tmp_path / f"scores.{suffix}").rename(tmp_path / f"first.{suffix}")
    report = score_corpus(scorer, corpus, tmp_path / "first.txt", overwrite=overwrite, progress=False)
    assert report.was_complete != overwrite
    assert json.loads((tmp_path / "first.json").read_text())["report"]["n_scored"] == 2


def test_refusals(scorer, make_corpus, tmp_path):
    corpus = make_corpus(3)
    with pytest.raises(CorpusError, match="no column speaker; its columns are"):
        score_corpus(scorer, corpus, tmp_path / "scores.txt", columns=["speaker"])
    for ids, message in (
        (["a", "b", "a"], "'a': rename"),
        (["b", " a", "a"], "' a' and 'a', which score files cannot tell"),
    ):
        same = corpus.remove_columns("utterance_id").add_column("utterance_id", ids)
        with pytest.raises(CorpusError, match=f"1 utterance ids are not unique, such as {message}"):
            score_corpus(scorer, same, tmp_path / "scores.txt")
    with pytest.raises(CorpusError, match="no clips"):
        score_corpus(scorer, corpus.select([]), tmp_path / "scores.txt")


def test_other_audio_of_the_same_names_is_another_scoring(scorer, make_corpus, tmp_path):
    folders = [tmp_path / name for name in ("original", "coded", "moved")]
    for seed, folder in enumerate(folders[:2]):
        folder.mkdir()
        for i in range(5):
            soundfile.write(folder / f"{i}.wav", draw_clip(10 * seed + i, 2000), RATE)
    score_corpus(scorer, list_audio_files([folders[0]]), tmp_path / "scores.txt", progress=False)
    with pytest.raises(ValueError, match=r"was scored with other settings: audio_sha256 was '.*--overwrite"):
        score_corpus(scorer, list_audio_files([folders[1]]), tmp_path / "scores.txt", progress=False)
    folders[0].rename(folders[2])
    assert score_corpus(scorer, list_audio_files([folders[2]]), tmp_path / "scores.txt", progress=False).was_complete
    # The same for audio in the table.
    corpus = make_corpus(3)
    other = corpus.map(lambda row: {"audio": {"bytes": row["audio"]["bytes"] + b"\0", "path": row["audio"]["path"]}})
    assert digest_of_audio(corpus["audio"][:]) == digest_of_audio(make_corpus(3)["audio"][:])
    assert digest_of_audio(corpus["audio"][:]) != digest_of_audio(other["audio"][:])


def test_invalid_score_files_and_columns(scorer, make_corpus, tmp_path):
    for path in (tmp_path, tmp_path / "scores.json"):
        with pytest.raises(ValueError, match=r"cannot be the score file: give a name like scores\.txt"):
            score_corpus(scorer, make_corpus(3), path, progress=False)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe is a device or a pipe, not a file"):
        score_corpus(scorer, make_corpus(3), tmp_path / "pipe", overwrite=True, progress=False)
    with pytest.raises(CorpusError, match="audio, utterance_id cannot be additional columns"):
        score_corpus(scorer, make_corpus(3), tmp_path / "scores.txt", columns=["label", "utterance_id", "audio"])
    with pytest.raises(TypeError, match=r"must be a datasets\.Dataset, not IterableDataset; load_corpus returns one"):
        score_corpus(scorer, make_corpus(3).to_iterable_dataset(), tmp_path / "scores.txt")


def test_a_second_scoring_names_the_first(scorer, make_corpus, tmp_path, monkeypatch):
    path = tmp_path / "scores.txt"
    second = []

    def interrupt(numbers):
        # During the first scoring: the same file, and one that shares its settings file.
        for name in ("scores.txt", "scores.tsv"):
            for overwrite in (False, True):
                with pytest.raises(LockHeldError) as told:
                    score_corpus(scorer, make_corpus(7), tmp_path / name, overwrite=overwrite, progress=False)
                second.append(str(told.value))
        return score_chunks(numbers[0], numbers[1])

    score_chunks = scorer.score_chunks
    with monkeypatch.context() as patch:
        patch.setattr(scorer, "score_chunks", lambda *arguments: interrupt(arguments))
        report = score_corpus(scorer, make_corpus(6), path, progress=False)
    assert report.n_scored == 6
    assert all(f"is in use by process {os.getpid()} on {socket.gethostname()} since 20" in line for line in second)
    assert str(path) in second[0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["scores.json", "scores.txt"]  # no lock remains


def test_finished_scores_are_known_in_a_folder_that_cannot_be_written_to(scorer, make_corpus, tmp_path, monkeypatch):
    path = tmp_path / "scores.txt"
    score_corpus(scorer, make_corpus(3), path, progress=False)
    monkeypatch.setattr(progress, "hold_lock", lambda *_: pytest.fail("nothing is to be written"))
    assert score_corpus(scorer, make_corpus(3), path, progress=False).was_complete


@pytest.fixture
def replacing(detector, extractor, make_corpus, tmp_path):
    """Old scores, including bad audio, and a scoring that replaces them. Returns the files' contents."""
    first, second = SpoofScorer(detector, extractor, batch_size=4), SpoofScorer(detector, extractor, batch_size=2)

    def contents(folder):
        files = sorted(path for path in folder.iterdir() if path.name not in ("scores.lock", "scores.lock.holder"))
        return {path.name: path.read_bytes() for path in files if path.is_file() and path.suffix != ".draft"}

    (tmp_path / "old").mkdir()
    score_corpus(first, make_corpus(6, bad=(2,)), tmp_path / "old" / "scores.txt", progress=False)

    def start(folder):
        shutil.copytree(tmp_path / "old", folder)
        return contents(folder)

    def replace(folder, overwrite):
        return score_corpus(second, make_corpus(7), folder / "scores.txt", overwrite=overwrite, progress=False)

    start(tmp_path / "new")
    replace(tmp_path / "new", True)
    return start, replace, contents, contents(tmp_path / "new")


def test_old_scores_stay_until_new_ones_are_complete(replacing, tmp_path, monkeypatch):
    start, replace, contents, new = replacing
    before = start(tmp_path / "folder")

    def fail(*_):
        assert contents(tmp_path / "folder") == before
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SpoofScorer, "score_chunks", fail)
        with pytest.raises(OSError, match="No space left"):
            replace(tmp_path / "folder", True)
    assert contents(tmp_path / "folder") == before
    with pytest.raises(ValueError, match="was scored with other settings"):
        replace(tmp_path / "folder", False)
    replace(tmp_path / "folder", True)
    assert contents(tmp_path / "folder") == new
    assert "scores_bad_audio.tsv" in before
    assert "scores_bad_audio.tsv" not in new


def test_a_killed_replacement_mixes_no_scores(replacing, tmp_path, detector, extractor, make_corpus):
    start, replace, contents, new = replacing

    def attempt(change):
        folder = tmp_path / str(change)
        before = start(folder)
        killed = False
        try:
            with killed_before(change):
                replace(folder, True)
        except Killed:
            killed = True
        found = contents(folder)
        assert found["scores.txt"] in (before["scores.txt"], new["scores.txt"])
        if json.loads(found["scores.json"])["settings"] == json.loads(before["scores.json"])["settings"]:
            assert found == before  # the old settings belong to the old scores
            first = SpoofScorer(detector, extractor, batch_size=4)
            assert score_corpus(first, make_corpus(6, bad=(2,)), folder / "scores.txt", progress=False).was_complete
        replace(folder, killed and not (folder / "scores.txt.partial" / "settings.json").exists())
        assert contents(folder) == new
        return not killed

    assert every_kill(attempt) > 8
