import json
import logging

import numpy as np
import pytest
import soundfile
from datasets import Dataset

from hf_gradalign.data import AudioDecodingError, BadAudioError, ViewDataset, check_audio
from hf_gradalign.data.checking import OutOfRangeClips


@pytest.fixture
def bad_paths(tmp_path, write_clip):
    """One file for each problem."""
    flac = write_clip("half.flac", 30_000)
    flac.write_bytes(flac.read_bytes()[:20_000])
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "zero.wav").touch()
    header = write_clip("header.wav")
    header.write_bytes(header.read_bytes()[:44])
    soundfile.write(tmp_path / "nan.wav", np.full(10, np.nan), 16_000, subtype="FLOAT")
    return [
        flac,
        tmp_path / "text.wav",
        tmp_path / "zero.wav",
        header,
        tmp_path / "nan.wav",
        tmp_path / "gone.wav",
        None,
    ]


REASONS = [
    r"utt_1 \(.*half.flac\): .*(corrupt|truncated)",
    r"utt_2 \(.*text.wav\): not audio that libsndfile or FFmpeg can read",
    r"utt_3 \(.*zero.wav\): it is empty \(zero bytes\)",
    r"utt_4 \(.*header.wav\): it is empty \(no samples\)",
    r"utt_5 \(.*nan.wav\): it has NaN or infinite samples",
    r"utt_6 \(.*gone.wav\): the file .* does not exist",
    r"utt_7: there is no audio \(null\)",
]


def test_good_clips_pass(write_clip, make_dataset):
    dataset = make_dataset([write_clip("a.wav"), write_clip("b.flac", rate=8000)])
    for rate in (None, 16_000):
        assert check_audio(dataset, rate).to_dict() == dataset.to_dict()


@pytest.mark.parametrize("num_proc", [None, 2])
def test_stop_lists_all_of_them(write_clip, make_dataset, bad_paths, num_proc):
    dataset = make_dataset([write_clip("good.wav"), *bad_paths])
    with pytest.raises(BadAudioError, match=r"7 of 8 clips cannot be decoded") as caught:
        check_audio(dataset, 16_000, num_proc=num_proc)
    lines = str(caught.value).splitlines()
    assert lines[-1] == "Fix them, or leave them out with --on_bad_audio skip."
    for clip, line, reason in zip(caught.value.bad_clips, lines[1:-1], REASONS, strict=True):
        assert str(clip) == line.strip()
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(line)
    assert [clip.utterance_id for clip in caught.value.bad_clips] == [f"utt_{index}" for index in range(1, 8)]
    assert caught.value.bad_clips[-1].path is None


@pytest.mark.parametrize("num_proc", [None, 2])
def test_skip_drops_them_with_a_warning(write_clip, make_dataset, bad_paths, num_proc, caplog):
    dataset = make_dataset([*bad_paths, write_clip("good.wav"), write_clip("also_good.wav")])
    with caplog.at_level(logging.WARNING, logger="hf_gradalign"):
        kept = check_audio(dataset, 16_000, on_bad_audio="skip", num_proc=num_proc)
    assert kept["utterance_id"][:] == ["utt_7", "utt_8"]
    assert "Left out: 7 of 9 clips cannot be decoded" in caplog.text
    assert "utt_5 (" in caplog.text


@pytest.mark.parametrize("on_bad_audio", ["stop", "skip"])
def test_only_bad_clips(make_dataset, bad_paths, on_bad_audio):
    with pytest.raises(BadAudioError, match=r"(?s)7 of 7 clips cannot be decoded.*No clip is left"):
        check_audio(make_dataset(bad_paths), on_bad_audio=on_bad_audio)


def test_a_long_list_is_cut(write_clip, make_dataset):
    dataset = make_dataset([write_clip("good.wav"), *["gone.wav"] * 23])
    with pytest.raises(BadAudioError, match=r"(?s)23 of 24 clips.*utt_20 .*\.\.\. and 3 more") as caught:
        check_audio(dataset)
    assert "utt_21" not in str(caught.value)
    assert len(caught.value.bad_clips) == 23


def test_a_changed_file_is_checked_again(tmp_path, write_clip):
    path = write_clip("a.wav")
    rows = [{"audio": str(clip), "utterance_id": clip.stem} for clip in (path, write_clip("b.wav"))]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = Dataset.from_json(str(tmp_path / "rows.jsonl"))
    assert dataset.cache_files  # What is done to a data set in memory is not cached anyway.
    check_audio(dataset)
    path.write_bytes(b"")
    with pytest.raises(BadAudioError, match="1 of 2"):
        check_audio(dataset)


def test_without_utterance_ids(write_clip, make_dataset):
    dataset = make_dataset([write_clip("a.wav"), "gone.wav"]).remove_columns("utterance_id")
    with pytest.raises(BadAudioError, match=r"row 1 \(gone.wav\): the file .*gone.wav does not exist"):
        check_audio(dataset)


def test_an_unknown_choice(write_clip, make_dataset):
    with pytest.raises(ValueError, match="on_bad_audio must be one of stop, skip, not 'ignore'"):
        check_audio(make_dataset([write_clip("a.wav")]), on_bad_audio="ignore")


@pytest.mark.parametrize("num_proc", [None, 2])
def test_samples_outside_the_range_are_reported(tmp_path, write_clip, make_dataset, make_samples, num_proc, caplog):
    loud = [tmp_path / "integers.wav", tmp_path / "loud.wav"]
    for path, scale in zip(loud, (32768, 10), strict=True):
        soundfile.write(path, scale * make_samples(8000), 16_000, subtype="FLOAT")
    with caplog.at_level(logging.WARNING, logger="hf_gradalign"):
        assert len(check_audio(make_dataset([write_clip("a.wav"), write_clip("b.mp3")]), 16_000)) == 2
        assert not caplog.text
        check_audio(make_dataset([write_clip("a.wav"), *loud]), 16_000, num_proc=num_proc)
    assert "2 of 3 clips have samples outside [-1, 1]: up to " in caplog.text
    assert "in utt_1. They look like 16-bit integers: divide them by 32768." in caplog.text


@pytest.mark.parametrize(
    ("peak", "advice"),
    [
        (2.0, None),
        (32_768.0, "16-bit integers: divide them by 32768."),
        (2.0**23, "24-bit integers: divide them by 8388608."),
        (2.0**31, "32-bit integers: divide them by 2147483648."),
        (2.0**31.5, None),
    ],
)
def test_advice_fits_the_peak(peak, advice):
    clips = OutOfRangeClips()
    clips.add("a", peak)
    note = clips.note(1)
    assert "They look like" not in note if advice is None else f"They look like {advice} They are used" in note


def views_of(clips, **options):
    options = {"sampling_rate": 16_000, "window_samples": 300, "seed": 1, **options}
    return ViewDataset(clips, {"clean": None}, **options)


def test_a_bad_clip_stops_the_training(write_clip, make_dataset):
    with pytest.raises(AudioDecodingError, match=r"Cannot decode utt_1: the file gone\.wav does not exist"):
        views_of(make_dataset([write_clip("a.wav"), "gone.wav"]))[1]


def test_a_bad_clip_is_replaced_by_the_next(write_clip, make_dataset, caplog):
    paths = [write_clip(f"{name}.wav", 400, seed=seed) for seed, name in enumerate("abc")]
    views = views_of(make_dataset([*paths, "gone.wav", "too.wav"]), on_bad_audio="skip")
    good = views_of(make_dataset([*paths, *paths[:2]]))
    for index in range(3):
        assert views[index]["clean"]["input_values"].tobytes() == good[index]["clean"]["input_values"].tobytes()
    for index in (3, 4):
        assert views[index]["clean"]["input_values"].tobytes() == good[0]["clean"]["input_values"].tobytes()
        assert views[index]["clean"]["labels"] == good[0]["clean"]["labels"]
    # Once, although it occurs twice.
    assert caplog.text.count("Cannot decode utt_3: the file gone.wav does not exist") == 1
    assert caplog.text.count("Cannot decode utt_4: the file too.wav does not exist") == 1


def test_training_on_only_bad_clips(make_dataset):
    with pytest.raises(AudioDecodingError, match="none of the 2 clips from this one on can be decoded"):
        views_of(make_dataset(["gone.wav", "too.wav"]), on_bad_audio="skip")[0]


def test_an_unknown_choice_for_training(write_clip, make_dataset):
    with pytest.raises(ValueError, match="on_bad_audio must be one of stop, skip, not 'ignore'"):
        views_of(make_dataset([write_clip("a.wav")]), on_bad_audio="ignore")
