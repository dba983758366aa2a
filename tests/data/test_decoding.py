import errno
import struct
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample

from hf_gradalign.data import AudioDecodingError, Window, crop, decode_audio

RATE = 16_000
EXACT = [
    ("a.wav", None),
    ("a.wav", "PCM_24"),
    ("a.wav", "FLOAT"),
    ("a.wav", "DOUBLE"),
    ("a.wav", "ULAW"),
    ("a.flac", None),
    ("a.aiff", None),
    ("a.au", None),
    ("a.caf", None),
    ("a.w64", None),
    ("a.rf64", None),
]
NOT_EXACT = [("a.ogg", "VORBIS"), ("a.opus", "OPUS"), ("a.mp3", None), ("a.wav", "IMA_ADPCM")]
POSITIONS = [0.0, 0.001, 0.1, 0.37, 0.5, 0.813, 0.999]


@pytest.mark.parametrize(("name", "subtype"), EXACT + NOT_EXACT)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_decoded(write_clip, make_samples, name, subtype, channels):
    path = write_clip(name, 30_000, channels=channels, subtype=subtype)
    decoded = decode_audio(path, RATE)
    assert decoded.dtype == np.float32
    assert decoded.ndim == 1
    expected = make_samples(30_000, channels).reshape(30_000, -1).mean(axis=1)
    length = min(len(decoded), 30_000)  # A block codec pads.
    assert abs(len(decoded) - 30_000) <= 1024
    assert np.corrcoef(decoded[:length], expected[:length])[0, 1] > 0.95


@pytest.mark.parametrize(
    ("name", "subtype", "channels"),
    [
        *((*one, 1) for one in EXACT + NOT_EXACT),
        *(
            pytest.param(*one, 2, marks=[] if one in EXACT[:1] + NOT_EXACT[:1] else pytest.mark.slow)
            for one in EXACT + NOT_EXACT
        ),
    ],
)
def test_a_window_is_a_slice_of_the_whole(write_clip, name, subtype, channels):
    path = write_clip(name, 30_000, channels=channels, subtype=subtype)
    whole = decode_audio(path, RATE)
    for window in (Window(n_samples, position) for n_samples in (1, 4000, 29_999, 50_000) for position in POSITIONS):
        np.testing.assert_array_equal(decode_audio(path, RATE, window=window), crop(whole, window), err_msg=str(window))


@pytest.mark.parametrize(("name", "subtype"), EXACT + NOT_EXACT)
def test_only_the_window_is_read_where_and_only_where_seeking_is_exact(write_clip, name, subtype):
    path = write_clip(name, 30_000, subtype=subtype)
    with patch.object(soundfile.SoundFile, "read", autospec=True, side_effect=soundfile.SoundFile.read) as read:
        decode_audio(path, RATE, window=Window(100, 0.5))
    n_read = [call.args[1] for call in read.call_args_list]
    assert n_read == [100 if (name, subtype) in EXACT else soundfile.info(path).frames]


@pytest.mark.parametrize("rate", [8000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_rates_are_resampled(write_clip, rate, channels):
    path = write_clip("a.flac", rate, rate=rate, channels=channels)
    native = decode_audio(path, None)
    assert len(native) == rate
    decoded = decode_audio(path, RATE)
    expected = resample(torch.from_numpy(native), rate, RATE).numpy()
    np.testing.assert_array_equal(decoded, expected)
    assert len(decoded) == RATE
    window = Window(4000, 0.4)
    np.testing.assert_array_equal(decode_audio(path, RATE, window=window), crop(decoded, window))


def test_a_resampled_tone_keeps_its_pitch(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100), 44_100)
    spectrum = np.abs(np.fft.rfft(decode_audio(tmp_path / "a.wav", RATE)))
    assert spectrum.argmax() == 1000


def test_channels_are_averaged(tmp_path, make_samples):
    left, right = make_samples(1000, seed=1), make_samples(1000, seed=2)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(decode_audio(tmp_path / "a.wav", RATE), (left + right) / 2, atol=1e-7)


def test_path_string_bytes_and_struct_are_the_same(write_clip):
    path = write_clip("a.flac")
    expected = decode_audio(path, RATE)
    data = path.read_bytes()
    forms = [str(path), data, {"bytes": None, "path": str(path)}, {"bytes": data, "path": None}]
    for audio in [*forms, {"bytes": data, "path": "not/there.flac"}]:
        np.testing.assert_array_equal(decode_audio(audio, RATE), expected)


def _fails(audio, reason, **options):
    with pytest.raises(AudioDecodingError, match=reason) as caught:
        decode_audio(audio, RATE, **options)
    return caught.value


def test_a_missing_file_is_named(tmp_path):
    error = _fails(tmp_path / "nope.wav", r"Cannot decode .*nope.wav: the file .*nope.wav does not exist")
    assert error.reason.startswith("the file ")
    assert str(_fails(tmp_path / "nope.wav", "does not exist", name="utt_7")).startswith("Cannot decode utt_7: ")


@pytest.mark.parametrize("audio", [None, {"bytes": None, "path": None}])
def test_null_audio(audio):
    _fails(audio, r"there is no audio \(null\)")


def test_zero_length_file(tmp_path):
    (tmp_path / "a.wav").touch()
    _fails(tmp_path / "a.wav", r"it is empty \(zero bytes\)")
    _fails({"bytes": b"", "path": "a.wav"}, r"Cannot decode a.wav: it is empty \(zero bytes\)")


def test_text_with_the_extension_wav(tmp_path):
    (tmp_path / "a.wav").write_text("This is no audio. " * 50)
    _fails(tmp_path / "a.wav", "not audio that libsndfile or FFmpeg can read, or corrupt")


def test_headerless_audio(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(100))
    _fails(tmp_path / "a.raw", "not audio that libsndfile or FFmpeg can read")


def test_a_header_without_samples(write_clip):
    data = write_clip("a.wav").read_bytes()[:44]
    _fails(data, r"a clip given as bytes: it is empty \(no samples\)")


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize(
    ("name", "subtype"), [("a.flac", None), ("a.mp3", None), ("a.opus", "OPUS"), ("a.ogg", "VORBIS")]
)
def test_half_a_file(write_clip, name, subtype, as_bytes):
    path = write_clip(name, 30_000, subtype=subtype)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    _fails(path.read_bytes() if as_bytes else path, "truncated|corrupt|no samples")


def test_a_flac_that_does_not_say_its_length(write_clip):
    path = write_clip("a.flac")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # The 36 bits of STREAMINFO's total samples.
    data[22:26] = bytes(4)
    np.testing.assert_array_equal(decode_audio(bytes(data), RATE), decode_audio(path, RATE))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-np.inf, "NaN or infinite"), (-7e28, r"reach 7e\+28")],
)
def test_samples_that_are_not_sound(tmp_path, make_samples, bad, reason):
    samples = make_samples(1000)
    samples[500] = bad
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    _fails(tmp_path / "a.wav", reason)


def _with_rate(path, rate):
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    return bytes(data)


def test_impossible_rates(write_clip):
    path = write_clip("a.wav")
    _fails(_with_rate(path, 0), "not audio that libsndfile or FFmpeg can read, or corrupt")
    _fails(_with_rate(path, 999_983), "sampling rate of 999983 Hz has too small a common divisor with 16000 Hz")


@pytest.mark.parametrize("rate", [0, -16_000])
def test_the_wanted_rate_must_be_positive(write_clip, rate):
    with pytest.raises(ValueError, match=f"sampling_rate must be positive, not {rate}"):
        decode_audio(write_clip("a.wav"), rate)


def test_the_error_survives_being_rebuilt_from_its_message():
    # torch's loader does this with an error from a worker.
    error = AudioDecodingError("no good", "utt_1")
    assert str(AudioDecodingError(str(error))) == "Cannot decode utt_1: no good"


@pytest.mark.parametrize(
    ("file_format", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "PCM_16"), ("W64", "PCM_16")]
)
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_files_that_are_cut_off_are_reported(tmp_path, file_format, subtype, kept):
    path = tmp_path / f"clip.{file_format.lower()}"
    soundfile.write(path, np.zeros(16_000, np.float32), 16_000, format=file_format, subtype=subtype)
    decode_audio(path, 16_000)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(AudioDecodingError, match="it is truncated"):
        decode_audio(path, 16_000)


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\x24\xf0\xff\x7f"])
def test_headers_written_before_the_length_is_known(tmp_path, size):
    path = tmp_path / "piped.wav"
    soundfile.write(path, np.zeros(16_000, np.float32), 16_000, subtype="PCM_16")
    whole = path.read_bytes()
    place = whole.index(b"data")
    path.write_bytes(whole[:4] + size + whole[8 : place + 4] + size + whole[place + 8 :])
    assert len(decode_audio(path, 16_000)) == 16_000


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("function", ["mmap.mmap", "os.stat"])
def test_a_fault_of_the_machine_is_not_a_bad_clip(tmp_path, function, number):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.zeros(100), RATE)
    with patch(function, side_effect=OSError(number, "fault")), pytest.raises(OSError, match="fault"):
        decode_audio(path, RATE)


@pytest.mark.parametrize(("name", "reason"), [("", "is not a file"), ("a\0.wav", "does not exist")])
def test_what_is_no_file_is_a_bad_clip(tmp_path, name, reason):
    _fails(tmp_path / name, reason)


def test_a_path_that_cannot_be_looked_up_is_a_bad_clip(tmp_path):
    with pytest.raises(AudioDecodingError, match=r"it cannot be read \(File name too long\)"):
        decode_audio(tmp_path / f"{300 * 'a'}.wav", RATE)
