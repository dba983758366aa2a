"""Files with a part that is missing, zeroed or changed are refused, if anything in them shows it."""

import io

import numpy as np
import pytest
import soundfile
from encoded_audio import RATE, encode, loud_then_quiet, mp3

from hf_gradalign.audio import AudioDecodingError, read_sound

SAMPLES = loud_then_quiet()


def by_libsndfile(file_format, subtype="PCM_16"):
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE, format=file_format, subtype=subtype)
    return file.getvalue()


def zeroed(data, start, stop):
    start, stop = int(start * len(data)), int(stop * len(data))
    return data[:start] + bytes(stop - start) + data[stop:]


@pytest.mark.parametrize("file_format", ["AU", "CAF", "NIST", "W64", "SVX", "VOC", "AIFF", "WAV", "RF64", "FLAC"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.96])
def test_a_cut_file_of_samples_is_reported(file_format, share, tmp_path):
    data = by_libsndfile(file_format)
    path = tmp_path / "a"
    path.write_bytes(data[: int(share * len(data))])
    for source in (path, path.read_bytes()):
        with pytest.raises(AudioDecodingError, match=r"it is truncated|it is corrupt"):
            read_sound(source)


@pytest.mark.parametrize(
    "make",
    [lambda: by_libsndfile("MP3", "MPEG_LAYER_III"), lambda: mp3(SAMPLES, header=True)],
    ids=["libsndfile", "ffmpeg"],
)
@pytest.mark.parametrize("span", [(0.4, 0.5), (0.5, 0.55), (0.6, 0.9), (0.8, 1), (0.95, 1)], ids=str)
def test_zeros_in_an_mp3_with_a_header_are_reported(make, span):
    data = make()
    with pytest.raises(AudioDecodingError, match=r"it is truncated: \d+ of \d+ samples could be read"):
        read_sound(zeroed(data, *span))


def test_an_mp3_whose_header_libsndfile_does_not_see_is_read():
    data = bytearray(by_libsndfile("MP3", "MPEG_LAYER_III"))
    whole = len(read_sound(bytes(data)).samples)
    assert data[13:17] == b"Xing"
    data[11] ^= 1
    assert len(soundfile.read(io.BytesIO(data))[0]) < 0.9 * whole
    assert len(read_sound(bytes(data)).samples) >= whole


@pytest.mark.parametrize(("container", "codec"), [("tta", "tta"), ("wv", "wavpack"), ("ogg", "flac")])
def test_the_checksums_of_lossless_formats_are_checked(container, codec):
    data = encode(SAMPLES, container, codec)
    place = int(0.7 * len(data))
    with pytest.raises(AudioDecodingError, match="it is corrupt"):
        read_sound(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("matroska", "aac"), ("flv", "aac")])
@pytest.mark.parametrize("span", [(0.4, 0.5), (0.9, 1), (0.8, 0.95)], ids=str)
def test_zeros_in_a_recording_of_a_browser_are_reported(container, codec, span):
    data = encode(SAMPLES, container, codec, rate=48_000 if codec == "libopus" else 44_100)
    with pytest.raises(AudioDecodingError, match=r"it is (truncated|corrupt)"):
        read_sound(zeroed(data, *span))


def test_zeros_in_raw_aac_are_reported():
    with pytest.raises(AudioDecodingError, match=r"bytes look like sound|cannot be decoded"):
        read_sound(zeroed(encode(SAMPLES, "adts", "aac"), 0.4, 0.55))


def test_raw_amr_that_ends_within_a_frame_is_reported():
    data = encode(SAMPLES, "amr", "libopencore_amrnb", rate=8000)
    with pytest.raises(AudioDecodingError, match="it is truncated: it ends within a packet"):
        read_sound(data[:-5])


def test_a_short_mp3_in_a_wav_file_is_read():
    samples = read_sound(encode(SAMPLES[:3000], "wav", "libmp3lame")).samples
    assert len(samples) >= 3000


@pytest.mark.parametrize("container", ["matroska", "avi", "ogg"])
def test_flac_in_other_containers_is_read(container):
    samples = read_sound(encode(SAMPLES, container, "flac")).samples
    np.testing.assert_array_equal(samples, (SAMPLES * 32767).astype("int16") / np.float32(32768))
