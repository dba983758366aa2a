import numpy as np
import pytest
import soundfile

from hf_gradalign.demo.background import Cancelled
from hf_gradalign.demo.recording import RecordingError, read_recording


def write(path, samples, rate=16_000):
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return str(path)


def test_length_and_envelope(tmp_path):
    samples = np.concatenate([np.zeros(16_000), np.full(16_000, -0.5)])
    recording = read_recording(write(tmp_path / "a.wav", samples), max_minutes=1)
    assert recording.seconds == 2.0
    assert len(recording.envelope) == 200  # every 10 ms
    assert recording.envelope[:100].max() == 0
    assert np.allclose(recording.envelope[100:], 1.0)


def test_a_long_recording_has_as_many_points_as_fit_on_the_page(tmp_path):
    recording = read_recording(write(tmp_path / "a.wav", np.full(800_000, 0.1), 8000), max_minutes=2)
    assert (recording.seconds, len(recording.envelope)) == (100.0, 500)


def test_a_tenth_of_a_second_is_a_recording(tmp_path):
    with pytest.raises(RecordingError, match=r"too short \(0.013 s\), so there is no speech to judge"):
        read_recording(write(tmp_path / "a.wav", [0.5] * 200), max_minutes=1)
    recording = read_recording(write(tmp_path / "a.wav", [0.5] + [0] * 1599), max_minutes=1)
    assert recording.envelope.tolist() == [1.0] + [0.0] * 9


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "This file is empty"),
        (b"hello, this is text", "This file cannot be read as audio. It may be damaged, or not audio at all."),
        (None, "The page no longer has this recording"),
    ],
    ids=["empty", "text", "gone"],
)
def test_a_file_that_is_no_recording(tmp_path, content, sentence):
    path = tmp_path / "x.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError, match=sentence) as raised:
        read_recording(str(path), max_minutes=1)
    assert str(tmp_path) not in str(raised.value)


def test_half_a_file(tmp_path):
    path = write(tmp_path / "a.wav", np.full(16_000, 0.1))
    with open(path, "rb+") as file:
        file.truncate(16_000)
    with pytest.raises(RecordingError, match=r"cannot be read as audio.*truncated"):
        read_recording(path, max_minutes=1)


def test_silence_and_what_is_as_good_as_that(tmp_path):
    hiss = np.random.default_rng(0).uniform(-0.0009, 0.0009, 16_000)
    for samples in (np.zeros(16_000), hiss):
        with pytest.raises(RecordingError, match="This recording is silent"):
            read_recording(write(tmp_path / "a.wav", samples), max_minutes=1)


@pytest.mark.parametrize("ending", ["wav", "ogg"])
def test_too_long(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.full(16_000 * 7, 0.1), 16_000)
    read_recording(str(path), max_minutes=0.12)
    with pytest.raises(RecordingError, match=r"too long. The page takes up to 0\.1 minutes"):
        read_recording(str(path), max_minutes=0.1)
    with pytest.raises(RecordingError, match=r"up to 1 minute\. Please"):
        read_recording(write(tmp_path / "b.wav", np.full(16_000 * 61, 0.1)), max_minutes=1)


def test_reading_can_be_ended(tmp_path):
    def stop():
        raise Cancelled

    with pytest.raises(Cancelled):
        read_recording(write(tmp_path / "a.wav", [0.5] * 100), max_minutes=1, go_on=stop)
