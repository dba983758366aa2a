import io

import numpy as np
import pytest
import soundfile
from noise_clips import draw_clip

from hf_gradalign.audio.flac import has_more_sound
from hf_gradalign.audio.reading import read_sound, unread_by_libsndfile
from hf_gradalign.data import Window, decode_audio


def encode(n_samples, *, channels=1, rate=16_000, subtype="PCM_16"):
    clip = draw_clip(n_samples, n_samples)[:, None] * np.linspace(1, 0.5, channels)
    file = io.BytesIO()
    soundfile.write(file, clip, rate, format="FLAC", subtype=subtype)
    return file.getvalue()


def saying(data, n_samples):
    """The file with another number of samples in its header."""
    fields = int.from_bytes(data[18:26], "big")
    return data[:18] + (fields >> 36 << 36 | n_samples).to_bytes(8, "big") + data[26:]


@pytest.mark.parametrize("n_samples", [2, 192, 4096, 4097, 70_000])
@pytest.mark.parametrize(
    "options",
    [{}, {"channels": 8, "rate": 44_100}, {"rate": 12_345, "subtype": "PCM_24"}, {"rate": 96_000, "subtype": "PCM_S8"}],
)
def test_more_sound_than_the_header_says(n_samples, options):
    data = encode(n_samples, **options)
    assert not has_more_sound(data)
    for claimed in (n_samples - 1, 1):
        assert has_more_sound(saying(data, claimed))
    for claimed in (n_samples + 1, 0):  # truncated, and unknown
        assert not has_more_sound(saying(data, claimed))


def test_files_that_are_not_flac():
    data = encode(5000)
    for other in (b"", b"fLaC", data[:30], b"RIFF" + data, data[:4] + b"\1" + data[5:]):
        assert not has_more_sound(other)


def test_all_sound_is_read(tmp_path):
    data = encode(9000)
    whole = read_sound(data)
    (tmp_path / "a.flac").write_bytes(saying(data, 4500))
    tag = b"ID3\3\0\0\0\0\0\n" + bytes(10)
    for source in (tmp_path / "a.flac", saying(data, 4500), tag + saying(data, 4500)):
        np.testing.assert_array_equal(decode_audio(source, None, window=Window(100_000)), whole.samples)
    assert unread_by_libsndfile(tmp_path / "a.flac").endswith(
        "only as many samples as its header says, and it has more"
    )
    joined = read_sound(saying(data, 4500) + saying(data, 3000))
    np.testing.assert_array_equal(joined.samples, np.tile(whole.samples, 2))
