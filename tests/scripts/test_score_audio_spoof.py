import json
import os
import sys
import tarfile
import zipfile

import datasets
import forked_python
import pytest
import soundfile
from noise_clips import RATE, draw_clip
from tiny_detectors import make_detector

from hf_gradalign.models import SpoofDetectorFeatureExtractor

WINDOW = 1600


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    detector = make_detector(n_samples=WINDOW)
    detector.save_pretrained(folder)
    SpoofDetectorFeatureExtractor(n_samples=WINDOW).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def corpus(tmp_path):
    """A folder with a metadata.csv: three splits, a clip that is no audio."""
    folder = tmp_path / "my corpus"
    lines = ["file_name,label,split,system"]
    for split, count in (("train", 4), ("validation", 4), ("test", 9)):
        for i in range(count):
            name = f"{split}_{i}.wav"
            folder.mkdir(exist_ok=True)
            soundfile.write(folder / name, draw_clip(i, 2000 + 100 * i), RATE)
            lines.append(f"{name},{'bonafide' if i % 2 else 'spoof'},{split},{'-' if i % 2 else 'A01'}")
    (folder / "test_4.wav").write_bytes(b"no audio")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def script(load_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return load_script("score_audio_spoof")


def run(script, *words):
    return script.main([*map(str, words), "--no_progress", "--num_workers", "0"])


def test_a_corpus(script, model, corpus, capsys, tmp_path):
    assert run(script, model, "--corpus", corpus, "--columns", "label", "system") == 0
    path = tmp_path / "scores" / "tiny" / "my_corpus_test.txt"
    lines = path.read_text().splitlines()
    assert lines[0] == "utterance_id\tscore\tlabel\tsystem"
    assert [line.split("\t")[0] for line in lines[1:]] == [f"test_{i}" for i in range(9) if i != 4]
    printed = capsys.readouterr().out
    assert "8 of 9 clips" in printed
    assert "1 could not be scored; they are in scores/tiny/my_corpus_test_bad_audio.tsv" in printed
    assert "Equal error rate: " in printed
    assert run(script, model, "--corpus", corpus, "--columns", "label", "system") == 0
    assert "were scored already" in capsys.readouterr().out


def test_other_settings_need_a_word(script, model, corpus, capsys):
    assert run(script, model, "--corpus", corpus) == 0
    assert run(script, model, "--corpus", corpus, "--windows", "whole") == 2
    assert "windows was 'first' and is now 'whole'" in capsys.readouterr().err
    assert run(script, model, "--corpus", corpus, "--windows", "whole", "--overwrite") == 0


def test_another_split_and_several_corpora(script, model, corpus, tmp_path):
    other = tmp_path / "other"
    corpus.rename(other)
    assert run(script, model, "--corpus", other, other / "metadata.csv", "--split", "train", "--output_dir", "out") == 0
    expected = (tmp_path / "out" / "other_train.txt").read_text()
    assert len(expected.splitlines()) == 4
    assert (tmp_path / "out" / "metadata.csv_train.txt").read_text() == expected


def test_audio_without_a_corpus(script, model, corpus, tmp_path, capsys):
    assert (
        run(script, model, "--audio", corpus, "--output_file", "out.txt", "--windows", "all", "--combine", "min") == 0
    )
    names = [line.split()[0] for line in (tmp_path / "out.txt").read_text().splitlines()]
    assert names == sorted({path.name for path in corpus.glob("*.wav")} - {"test_4.wav"})
    assert "Equal error rate" not in capsys.readouterr().out


def test_scores_of_a_few_recordings_are_printed(script, model, corpus, tmp_path, capsys):
    for number in range(21):
        (tmp_path / f"{number}.wav").write_bytes((corpus / f"test_{number % 3}.wav").read_bytes())
    assert run(script, model, "--audio", "0.wav", "1.wav", "--output_file", "out.txt") == 0
    printed = capsys.readouterr().out.splitlines()
    scores = [line.split() for line in (tmp_path / "out.txt").read_text().splitlines()]
    assert printed[1:] == [
        *(f"{score}  {name}" for name, score in scores),
        "A higher score is more likely bona fide.",
        "Only the first 0.1 s of each recording are scored; --windows all scores all of it.",
    ]
    assert (
        run(script, model, "--audio", *sorted(tmp_path.glob("*.wav")), "--output_file", "many.txt", "--windows", "all")
        == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("labels", "words", "rate"),
    [
        (None, [], "No error rate: none of the 3 clips has a label."),
        (["spoof", "spoof", "spoof"], [], "No error rate: all 3 clips that have a label are spoof."),
        (["-", "unknown", ""], [], "No error rate: none of the 3 clips has a label."),
        (["-1", "spoof", "-1"], [], "No error rate: all 1 clips that have a label are spoof."),
        (["real", "?", "fake"], [], " % (of the 2 clips that have a label; 1 have none)"),
        (["a", "b", "c"], ["--label_column_name", "none"], "No error rate: none of the 3 clips has a label."),
    ],
)
def test_a_corpus_without_both_labels(script, model, corpus, tmp_path, capsys, labels, words, rate):
    lines = [f"{corpus.name}/test_{i}.wav" + (f",{labels[i]}" if labels else "") for i in range(3)]
    (tmp_path / "clips.csv").write_text("\n".join(["file_name" + (",label" if labels else ""), *lines]))
    assert run(script, model, "--corpus", "clips.csv", "--columns", "label", *words) == 0
    printed = capsys.readouterr().out
    assert "3 of 3 clips" in printed
    assert rate in printed
    rows = [line.split("\t") for line in (tmp_path / "scores/tiny/clips.csv_test.txt").read_text().splitlines()]
    expected = [{"fake": "spoof", "spoof": "spoof", "real": "bonafide"}.get(label, "") for label in labels or "   "]
    assert [row[2] for row in rows] == ["label", *expected]


def test_options_of_each_corpus(script, model, corpus, tmp_path, capsys):
    for name, labels, column in (("a", "01", "key"), ("b", "10", "label")):
        lines = [f"{corpus.name}/test_{i}.wav,{label}" for i, label in enumerate(labels)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"file_name,{column}", *lines]))
    words = [model, "--corpus", "a.csv", "b.csv", "--label_column_name", "a:key", "--columns", "label", "--output_dir"]
    assert run(script, *words, "out", "--label_map", "0=spoof", "1=bonafide") == 2
    assert "--label_map 0=spoof 1=bonafide names no corpus, but a and b may number" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # refused before any of them was scored
    maps = ["a:0=spoof", "a:1=bonafide", "b:0=bonafide", "b:1=spoof"]
    assert run(script, *words, "out", "--label_map", *maps) == 0
    for name in "ab":
        rows = [line.split("\t") for line in (tmp_path / "out" / f"{name}.csv_test.txt").read_text().splitlines()]
        assert [row[2] for row in rows] == ["label", "spoof", "bonafide"]


def test_two_corpora_with_one_score_file(script, model, corpus, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    for folder in (tmp_path, tmp_path / "b"):
        (folder / "clips.csv").write_text(f"file_name,label\n{corpus}/test_0.wav,real\n")
    assert run(script, model, "--corpus", "clips.csv", "b/clips.csv", "--overwrite") == 2
    assert "would be written to the same file clips.csv_test.txt: score" in capsys.readouterr().err


def test_numbers_as_utterance_ids(script, model, corpus, tmp_path, capsys):
    lines = [json.dumps({"file_name": f"test_{i}.wav", "label": "real", "utterance_id": 1000 + i}) for i in range(3)]
    (corpus / "clips.jsonl").write_text("\n".join(lines))
    assert run(script, model, "--corpus", corpus / "clips.jsonl", "--output_file", "out.txt") == 0
    assert [line.split()[0] for line in (tmp_path / "out.txt").read_text().splitlines()] == ["1000", "1001", "1002"]


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--corpus", "no/such/corpus/here"], "no/such/corpus/here is neither a local path"),
        (["--audio", "nowhere"], "nowhere does not exist"),
        (["--window_seconds", "-1"], "window_seconds must be at least 0.1"),
        (["--columns", "codec"], "no column codec; its columns are"),
        (["--split", "tset"], "has no split 'tset'; its splits are train, validation, test.\n"),
    ],
)
def test_mistakes(script, model, words, printed, capsys):
    assert run(script, model, *words) == 2
    assert printed in capsys.readouterr().err


def test_no_such_model(script, capsys):
    assert run(script, "./no/such/model") == 2
    assert "cannot load the model ./no/such/model" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--corpus", "a", "--audio", "b"], ["--corpus", "a", "b", "--output_file", "c"]])
def test_options_that_do_not_go_together(script, model, words, capsys):
    with pytest.raises(SystemExit):
        run(script, model, *words)


def test_the_scores_of_a_run_are_found_again(finished_run, load_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = load_script("score_audio_spoof")
    assert run(script, finished_run, "--output_file", "again.txt", "--batch_size", "5") == 0
    again = dict(line.split() for line in (tmp_path / "again.txt").read_text().splitlines())
    before = dict(line.split() for line in (finished_run / "scores_test.txt").read_text().splitlines())
    assert len(before) == 12  # a quick run evaluates on as many
    assert len(again) == 32
    assert all(abs(float(again[name]) - float(score)) < 2e-5 for name, score in before.items())


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_under_torchrun(model, corpus, tmp_path):
    script = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "score_audio_spoof.py")
    words = [script, model, "--corpus", str(corpus), "--batch_size", "2", "--output_file"]
    one = [sys.executable, *words, "one.txt"]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *words, "two.txt"]
    for command in (one, two):
        done = forked_python.run(command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("8 of 9 clips") == 1
    assert (tmp_path / "one.txt").read_bytes() == (tmp_path / "two.txt").read_bytes()


def test_every_file_of_a_folder_is_accounted_for(script, model, tmp_path, capsys, caplog):
    folder = tmp_path / "recordings"
    for number, name in enumerate(("real/a.wav", "real/b.FLAC", "fake/c.ogg", "elsewhere/d.wav", "real/.hidden.wav")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, draw_clip(number, 2000), RATE)
    (folder / "elsewhere").rename(tmp_path / "elsewhere")
    (folder / "fake" / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "fake" / "loop").symlink_to(folder)
    (folder / "fake" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    for name in ("real/voice.M4A", "real/stream.aac", "fake/empty.wav", "real/._a.wav", "notes.txt", "cover.jpg"):
        (folder / name).write_bytes(b"" if name == "fake/empty.wav" else b"no audio")
    assert run(script, model, "--audio", folder, "--output_file", "audio.txt") == 0
    assert run(script, model, "--corpus", folder, "--output_file", "corpus.txt", "--columns", "label") == 0
    scored = {"fake/c.ogg", "fake/linked/d.wav", "real/a.wav", "real/b.FLAC"}
    bad = {"fake/empty.wav", "fake/gone.wav", "real/stream.aac", "real/voice.M4A"}
    assert {line.split()[0] for line in (tmp_path / "audio.txt").read_text().splitlines()} == scored
    assert {line.split()[0] for line in (tmp_path / "audio_bad_audio.tsv").read_text().splitlines()[1:]} == bad
    assert (tmp_path / "corpus.txt").read_text().count("spoof") == 2
    assert "4 of 8 clips" in capsys.readouterr().out
    assert f"{folder}: 8 audio files. Left out: 2 hidden files or folders, 2 files that are not audio" in caplog.text
    assert caplog.text.count("Left out: 2 hidden") == 1  # both commands read it, and it is reported once


def test_shards_and_zipped_folders(script, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for number, name in enumerate(("a", "b")):
        soundfile.write(tmp_path / f"{name}.flac", draw_clip(number, 2000), RATE)
        (tmp_path / f"{name}.cls").write_text(str(number))
    with tarfile.open(tmp_path / "test-00000.tar", "w") as tar, zipfile.ZipFile(tmp_path / "test.zip", "w") as zipped:
        for number, name in enumerate(("a", "b")):
            tar.add(tmp_path / f"{name}.flac", f"{name}.flac")
            tar.add(tmp_path / f"{name}.cls", f"{name}.cls")
            zipped.write(tmp_path / f"{name}.flac", f"{('real', 'fake')[number]}/{name}.flac")
    columns = ["--audio_column_name", "flac", "--label_column_name", "cls", "--label_map", "0=bonafide", "1=spoof"]
    assert run(script, model, "--corpus", tmp_path / "test-00000.tar", *columns, "--output_file", "tar.txt") == 0
    assert run(script, model, "--corpus", tmp_path / "test.zip", "--output_file", "zip.txt") == 0
    lines = [sorted((tmp_path / name).read_text().splitlines()) for name in ("tar.txt", "zip.txt")]
    assert lines[0] == lines[1]
    assert capsys.readouterr().out.count("Equal error rate: ") == 2


def test_odd_scores_are_remarked_on_in_a_line(load_script, recwarn):
    clips = {"utterance_id": ["a", "b", "c", "d"], "label": [1, 0, 1, 0]}
    scores = {"a": 0.0, "b": 1.0, "c": 0.1, "d": 2.0}
    rate, remark = load_script("score_audio_spoof").error_rate(clips, scores).splitlines()
    assert rate == "Equal error rate: 100.00 %"
    assert remark.startswith("warning: The equal error rate is 1.0000, above 0.5: the scores may be inverted.")
    assert not recwarn.list


def test_verdicts_of_a_model_without_calibration(script, model, corpus, capsys, tmp_path):
    words = [model, "--corpus", str(corpus), "--output_file", tmp_path / "scores.txt", "--verdict"]
    assert run(script, *words) == 0
    assert "(by the sign of scores without a calibration)" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "scores_verdicts.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert all(row["label"] == ("bonafide" if row["score"] >= 0 else "spoof") for row in rows)
    assert {row["posterior"] for row in rows} == {None}
    # Before anything is scored:
    assert run(script, *words[:-3], tmp_path / "other.txt", "--verdict", "--undecided_band", "1") == 2
    assert "Calibrate the model (hf-gradalign calibrate)" in capsys.readouterr().err
    assert not (tmp_path / "other.txt").exists()


def test_options_of_verdicts_need_verdicts(script, model, capsys):
    with pytest.raises(SystemExit):
        run(script, model, "--p_spoof", "0.5", "--c_fa", "1")
    assert "--p_spoof, --c_fa: only with --verdict" in capsys.readouterr().err
