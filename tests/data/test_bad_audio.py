import pytest

from hf_gradalign.data import AudioDecodingError, ViewDataset


def views_of(clips, **options):
    options = {"sampling_rate": 16_000, "window_samples": 300, "seed": 1, **options}
    return ViewDataset(clips, {"clean": None}, **options)


def test_a_bad_clip_that_is_met_ends_the_training(write_clip, make_dataset):
    with pytest.raises(AudioDecodingError, match=r"Cannot decode utt_1: there is no file gone\.wav"):
        views_of(make_dataset([write_clip("a.wav"), "gone.wav"]))[1]


def test_or_the_next_one_takes_its_place(write_clip, make_dataset, caplog):
    paths = [write_clip(f"{name}.wav", 400, seed=seed) for seed, name in enumerate("abc")]
    views = views_of(make_dataset([*paths, "gone.wav", "too.wav"]), on_bad_audio="skip")
    good = views_of(make_dataset([*paths, *paths[:2]]))
    for index in range(3):
        assert views[index]["clean"]["input_values"].tobytes() == good[index]["clean"]["input_values"].tobytes()
    for index in (3, 4):
        assert views[index]["clean"]["input_values"].tobytes() == good[0]["clean"]["input_values"].tobytes()
        assert views[index]["clean"]["labels"] == good[0]["clean"]["labels"]
    assert caplog.text.count("Cannot decode utt_3: there is no file gone.wav") == 1  # once, though met twice
    assert caplog.text.count("Cannot decode utt_4: there is no file too.wav") == 1


def test_nothing_but_bad_clips(make_dataset):
    with pytest.raises(AudioDecodingError, match="nor can any of the 2 clips from there on"):
        views_of(make_dataset(["gone.wav", "too.wav"]), on_bad_audio="skip")[0]


def test_an_unknown_choice(write_clip, make_dataset):
    with pytest.raises(ValueError, match="on_bad_audio must be one of stop, skip, not 'ignore'"):
        views_of(make_dataset([write_clip("a.wav")]), on_bad_audio="ignore")
