import io
import os
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from encoded_audio import RATE, encode, loud_then_quiet, mp3, rf64, wav

from hf_gradalign.audio import AudioDecodingError, read_sound, unread_by_libsndfile
from hf_gradalign.data import Window, crop, decode_audio

SAMPLES = loud_then_quiet()
N = len(SAMPLES)
ID3V2 = b"ID3\x03\0\0" + bytes([0, 1, 0, 0]) + bytes(2**14)
ID3V1 = b"TAG" + bytes(125)
LIST = b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf58.76.100\0"
NOISE = np.random.default_rng(1).integers(0, 256, 2000, dtype=np.uint8).tobytes()


def by_libsndfile(samples, file_format, subtype, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=file_format, subtype=subtype)
    return file.getvalue()


def heard(data):
    return read_sound(data).samples


def assert_hears_all(data, least_correlation):
    """Check that all of it is decoded correctly. Lossy codecs may add a few frames of silence."""
    samples = decode_audio(data, RATE)
    assert -700 <= len(samples) - N <= 4000  # WMA's encoder drops its last block
    lag = int(np.argmax(np.correlate(samples[:8000], SAMPLES[:4000], "valid")))
    assert np.corrcoef(samples[lag:][:N], SAMPLES[: len(samples) - lag])[0, 1] > least_correlation


# MP3


@pytest.mark.parametrize(
    "make",
    [
        lambda: mp3(SAMPLES, header=False),
        lambda: mp3(SAMPLES[::-1].copy(), header=False),
        lambda: ID3V2 + mp3(SAMPLES, header=False) + ID3V1,
        lambda: NOISE + mp3(SAMPLES, header=False),
        lambda: mp3(SAMPLES, header=False) + NOISE,
        lambda: encode(SAMPLES, "mp3", "libmp3lame", piped=True),
    ],
    ids=["loud_first", "quiet_first", "tags", "noise_before", "noise_behind", "piped"],
)
def test_mp3s_without_a_header_are_read_to_their_end(make, tmp_path):
    data = make()
    assert N <= len(heard(data)) <= N + 6 * 576  # noise looks like a frame or two
    (tmp_path / "a.mp3").write_bytes(data)
    np.testing.assert_array_equal(heard(tmp_path / "a.mp3"), heard(data))


@pytest.mark.parametrize("size", [12, 40])
def test_a_second_tag_hides_nothing(size):
    """FFmpeg wrote a tag before its header, which then ends beyond the bytes where it is looked for."""
    tag = b"ID3\3\0\0\0\0\0" + bytes([size]) + bytes(size)
    assert len(heard(tag + encode(SAMPLES, "mp3", "libmp3lame"))) >= N


def test_decodes_the_right_sound():
    assert_hears_all(mp3(SAMPLES, header=False), 0.9)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("encoder", [None, {"b": "64000"}])
def test_mp3s_whose_length_libsndfile_knows_are_read_by_it(header, encoder):
    data = mp3(SAMPLES, header=header, encoder=encoder)
    if header or encoder:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            np.testing.assert_array_equal(heard(data), file.read(dtype="float32"))


def test_joined_mp3s_are_read_to_their_end():
    one, other = mp3(SAMPLES, header=True), mp3(SAMPLES[:30_000], header=True)
    assert N + 30_000 <= len(heard(one + other)) <= N + 30_000 + 8 * 576
    assert len(soundfile.read(io.BytesIO(one + other))[0]) < N + 2000  # the part that libsndfile finds


def test_half_an_mp3_with_a_header_is_reported():
    data = mp3(SAMPLES, header=True)
    with pytest.raises(AudioDecodingError, match=r"it is truncated: \d+ of 40\d\d\d samples"):
        read_sound(data[: len(data) // 2])


# Several recordings in a file


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16"), ("WAV", "PCM_16"), ("AIFF", "PCM_16")],
)
def test_joined_files_and_chained_streams_are_read_to_their_end(file_format, subtype, tmp_path):
    parts = [by_libsndfile(part, file_format, subtype) for part in (SAMPLES[:15_000], SAMPLES[15_000:])]
    alone = [soundfile.read(io.BytesIO(part), dtype="float32")[0] for part in parts]
    (tmp_path / "joined").write_bytes(b"".join(parts))
    for source in (b"".join(parts), tmp_path / "joined"):
        np.testing.assert_array_equal(heard(source), np.concatenate(alone))


def test_a_chained_stream_whose_beginning_is_missing_is_reported():
    part = by_libsndfile(SAMPLES, "OGG", "VORBIS")
    middle = part[part.index(b"OggS", 4) :]
    with pytest.raises(AudioDecodingError):
        read_sound(middle + part)


def test_sound_that_libsndfile_alone_would_miss(tmp_path):
    files = {
        "joined.ogg": by_libsndfile(SAMPLES, "OGG", "VORBIS") * 2,
        "a.mp3": mp3(SAMPLES, header=False),
        "b.mp3": mp3(SAMPLES, header=True),
        "c.flac": by_libsndfile(SAMPLES, "FLAC", "PCM_16"),
        "d.wav": wav(SAMPLES, data=20_000),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    reasons = {name: unread_by_libsndfile(tmp_path / name) for name in files}
    assert [name for name, reason in reasons.items() if reason is None] == ["b.mp3", "c.flac"]
    assert "first of its 2 recordings" in reasons["joined.ogg"]
    assert "no header says how long it is" in reasons["a.mp3"]


def test_flac_with_tags():
    part = ID3V2 + by_libsndfile(SAMPLES, "FLAC", "PCM_16")
    assert len(heard(part)) == N
    assert len(heard(part + part)) == 2 * N


@pytest.mark.parametrize(
    "data", [b"OggS\0\x02", b"RIFF\0\0\0\0WAVE", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"\0\0\0\x08ftyp"]
)
def test_truncated_headers(data):
    with pytest.raises(AudioDecodingError):
        read_sound(data)


def test_a_length_beyond_all_memory():
    data = bytearray(by_libsndfile(SAMPLES, "FLAC", "PCM_16"))
    data[21] |= 0x0F  # of the 36 bits of STREAMINFO's total samples
    with pytest.raises(AudioDecodingError, match=r"corrupt|truncated"):
        read_sound(bytes(data))


def test_links_of_other_codecs_and_rates():
    parts = [by_libsndfile(SAMPLES, "OGG", "VORBIS"), by_libsndfile(SAMPLES[:8000], "OGG", "OPUS", 8000)]
    assert len(heard(b"".join(parts))) == N + 16_000


def test_the_second_half_of_a_joined_file_that_is_cut_off_is_reported():
    part = by_libsndfile(SAMPLES, "FLAC", "PCM_16")
    with pytest.raises(AudioDecodingError, match=r"corrupt|truncated"):
        read_sound(part + part[: len(part) // 2])


@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("amr", "libopencore_amrnb"), ("adts", "aac")])
def test_joined_files_of_phones(container, codec):
    data = encode(SAMPLES, container, codec, rate=8000)
    assert len(heard(data + data)) == 2 * len(heard(data))


# Sizes in headers


@pytest.mark.parametrize(
    "sizes",
    [
        {"riff": 2**32 - 1, "data": 2**32 - 1},  # FFmpeg and OpenAI's speech to a pipe
        {"riff": 2**32 - 1, "data": 2**32 - 1 - 36},
        {"riff": 2**32 - 1, "data": 2**32 - 1, "before": LIST},
        {"riff": 2**32 - 1, "data": 2**32 - 1, "after": LIST},
        {"riff": 0x7FFFF024, "data": 0x7FFFF000},  # SoX, eSpeak
        {"riff": 0x80000024, "data": 0x80000000},  # arecord
        {"riff": 2_000_000_036, "data": 2_000_000_000},
        {"riff": 0x40000024, "data": 0x40000000},
        {"riff": 0, "data": 0},
        {"riff": 36, "data": 0},
        {"data": 0},
        {"data": 0, "after": LIST},
        {"data": 2**32 - 1},
        {"riff": 0},
        {"riff": 1000},
        {"riff": 500_000},
        {"after": LIST},
        {"after": bytes(3000)},
        {"after": ID3V2},
        {"before": b"JUNK\x03\0\0\0abc\0"},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", [{}, {"extensible": True}, {"floats": True}], ids=str)
def test_wav_files_are_read_to_their_end_whatever_their_sizes(sizes, form, tmp_path):
    data = wav(SAMPLES, **sizes, **form)
    expected = soundfile.read(io.BytesIO(wav(SAMPLES, **form)), dtype="float32")[0]
    (tmp_path / "a.wav").write_bytes(data)
    for source in (data, tmp_path / "a.wav"):
        np.testing.assert_array_equal(heard(source), expected)


@pytest.mark.parametrize(
    "sizes", [(0, 0, 0), (2**64 - 1,) * 3, (2**63 - 1, 2**63 - 1, 0), (2 * N + 72, 2 * N, N)], ids=str
)
def test_rf64(sizes):
    assert len(heard(rf64(SAMPLES, sizes))) == N


def test_speech_servers_that_send_a_header_with_each_sentence():
    data = wav(SAMPLES, riff=2**32 - 1, data=2**32 - 1)
    np.testing.assert_array_equal(heard(data + data), np.tile(heard(data), 2))


@pytest.mark.parametrize("container", ["wav", "aiff", "caf", "au", "flac"])
def test_what_ffmpeg_writes_to_a_pipe(container):
    codec = {"wav": "pcm_s16le", "flac": "flac"}.get(container, "pcm_s16be")
    np.testing.assert_array_equal(
        heard(encode(SAMPLES, container, codec, piped=True)), (SAMPLES * 32767).astype("int16") / np.float32(32768)
    )


@pytest.mark.parametrize(
    "data",
    [
        wav(SAMPLES, riff=4 * N + 36, data=4 * N),
        wav(SAMPLES)[: -N // 2],
        rf64(SAMPLES, (4 * N + 72, 4 * N, 2 * N)),
        rf64(SAMPLES, (5_000_000_072, 5_000_000_002, 2_500_000_001)),
    ],
    ids=["message", "cut", "rf64", "long_rf64"],
)
def test_wav_files_that_are_cut_short_are_reported(data):
    with pytest.raises(AudioDecodingError, match=r"it is truncated: it has .* bytes of sound"):
        read_sound(data)


def test_a_wav_file_with_more_sound_than_its_header_says_is_reported():
    with pytest.raises(
        AudioDecodingError, match=r"20000 bytes of sound, but 60000 more bytes follow that are not a chunk"
    ):
        read_sound(wav(SAMPLES, data=20_000))


@pytest.mark.parametrize("after", [b"", LIST])
def test_an_empty_wav_file_is_empty(after):
    with pytest.raises(AudioDecodingError, match=r"it is empty \(no samples\)"):
        read_sound(wav(SAMPLES[:0], after=after))


# What libsndfile cannot read


@pytest.mark.parametrize(
    ("container", "codec", "rate", "muxer"),
    [
        ("ipod", "aac", RATE, {}),
        ("ipod", "alac", RATE, {}),
        ("mp4", "aac", 44_100, {"movflags": "+frag_keyframe+empty_moov"}),
        ("mov", "pcm_s16le", RATE, {}),
        ("webm", "libopus", 48_000, {}),
        ("webm", "libopus", 48_000, {"live": "1"}),
        ("adts", "aac", RATE, {}),
        ("mpegts", "aac", 44_100, {}),
        ("flv", "aac", 44_100, {}),
        ("amr", "libopencore_amrnb", 8000, {}),
        ("3gp", "libopencore_amrnb", 8000, {}),
        ("asf", "wmav2", 44_100, {}),
        ("ac3", "ac3", 48_000, {}),
        ("avi", "libmp3lame", RATE, {}),
        ("wv", "wavpack", RATE, {}),
        ("tta", "tta", RATE, {}),
    ],
)
def test_what_phones_and_browsers_record_is_read(container, codec, rate, muxer, tmp_path):
    data = encode(SAMPLES, container, codec, rate=rate, muxer=muxer, encoder={"b": "96k"} if rate > 8000 else {})
    with pytest.raises(soundfile.SoundFileError):
        soundfile.SoundFile(io.BytesIO(data))
    assert_hears_all(data, {"libopencore_amrnb": 0.6, "wmav2": -1}.get(codec, 0.9))
    (tmp_path / "recording.wav").write_bytes(data)  # whatever it is called
    whole = decode_audio(tmp_path / "recording.wav", RATE)
    np.testing.assert_array_equal(whole, decode_audio(data, RATE))
    for position in (0.0, 0.4, 0.99):
        window = Window(5000, position)
        np.testing.assert_array_equal(decode_audio(data, RATE, window=window), crop(whole, window))


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1"])
@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("matroska", "pcm_s16le"), ("wv", "wavpack")])
def test_channels_are_averaged(layout, container, codec):
    # FFmpeg puts mono sound into one or two of the channels.
    assert_hears_all(encode(SAMPLES, container, codec, layout=layout), 0.8)


@pytest.mark.parametrize(
    ("container", "codec", "muxer"),
    [
        ("ipod", "aac", {"movflags": "+faststart"}),
        ("ipod", "aac", {}),
        ("mp4", "aac", {"movflags": "+frag_keyframe+empty_moov"}),
        ("ipod", "alac", {"movflags": "+faststart"}),
        ("webm", "libopus", {}),
        ("tta", "tta", {}),
        ("wv", "wavpack", {}),
    ],
)
def test_half_of_such_a_file_is_reported(container, codec, muxer):
    data = encode(SAMPLES, container, codec, rate=48_000, muxer=muxer)
    with pytest.raises(AudioDecodingError, match=r"truncated|corrupt"):
        read_sound(data[: len(data) // 2])


def test_a_film_without_sound():
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(stream.encode(None))
    with pytest.raises(AudioDecodingError, match="it has no sound"):
        read_sound(file.getvalue())


@pytest.mark.parametrize(
    "data",
    [
        np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes(),
        (SAMPLES * 32767).astype("<i2").tobytes(),
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 40,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123\n",
    ],
    ids=["noise", "headerless", "html", "lfs"],
)
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a"])
def test_files_that_are_not_audio(data, name, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AudioDecodingError, match="not audio that libsndfile or FFmpeg can read"):
        read_sound(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:{}\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_list_of_files_opens_none_of_them(text, tmp_path):
    (tmp_path / "other.aac").write_bytes(encode(SAMPLES, "adts", "aac"))
    (tmp_path / "list.mp3").write_text(text.format(tmp_path / "other.aac"))
    with pytest.raises(AudioDecodingError, match="not audio that libsndfile or FFmpeg can read"):
        read_sound(tmp_path / "list.mp3")


# Seeking


@pytest.mark.parametrize("file_format", ["WAV", "FLAC"])
def test_only_the_window_is_decoded(file_format, tmp_path):
    path = tmp_path / f"a.{file_format.lower()}"
    soundfile.write(path, SAMPLES, RATE)
    with patch.object(soundfile.SoundFile, "read", autospec=True, side_effect=soundfile.SoundFile.read) as read:
        samples = decode_audio(path, None, window=Window(100, 0.5))
    assert [call.args[1] for call in read.call_args_list] == [100]
    np.testing.assert_array_equal(samples, heard(path)[N // 2 - 50 :][:100])


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "a.flac"
    part = by_libsndfile(SAMPLES, "FLAC", "PCM_16")
    for times in (1, 2, 1):
        path.write_bytes(times * part)
        os.utime(path, ns=(times, times))
        assert len(heard(path)) == times * N
