"""What a file holds counts, not what its extension says."""

import numpy as np
import pytest
import soundfile
from encoded_audio import encode, loud_then_quiet, mp3

from hf_gradalign.audio import AudioDecodingError, read_sound, unread_by_libsndfile

SAMPLES = loud_then_quiet(20_000)
CONTENTS = {
    "mov": lambda: encode(SAMPLES, "mov", "pcm_s16le"),
    "mp4": lambda: encode(SAMPLES, "mp4", "aac"),
    "webm": lambda: encode(SAMPLES, "webm", "libopus", rate=48_000),
    "aac": lambda: encode(SAMPLES, "adts", "aac"),
}
TEXT = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123\n" * 9


@pytest.mark.parametrize(
    ("content", "extension"),
    [("mov", "mp3"), ("mp4", "MP3"), ("aac", "mp3"), ("mov", "au"), ("mp4", "vox"), ("webm", "gsm"), ("webm", "snd")],
)
def test_the_content_decides(content, extension, tmp_path):
    data = CONTENTS[content]()
    path = tmp_path / f"a.{extension}"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_sound(path).samples, read_sound(data).samples)


def test_recordings_that_libsndfile_misreads_are_reported(tmp_path):
    (tmp_path / "a.mp3").write_bytes(CONTENTS["mov"]())
    assert "its content is mov" in unread_by_libsndfile(tmp_path / "a.mp3")


def test_formats_without_a_header_keep_their_extensions(tmp_path):
    for extension, subtype in {"gsm": "GSM610", "vox": "VOX_ADPCM"}.items():
        raw = tmp_path / f"a.{extension}"
        soundfile.write(raw, SAMPLES, 8000, format="RAW", subtype=subtype)
        np.testing.assert_allclose(read_sound(raw).samples, soundfile.read(raw)[0], atol=1e-6)
        assert unread_by_libsndfile(raw) is None
    (tmp_path / "a.mp3").write_bytes(bytes(700) + mp3(SAMPLES, header=True))  # libsndfile goes by the extension
    assert len(read_sound(tmp_path / "a.mp3").samples) >= len(SAMPLES)
    assert unread_by_libsndfile(tmp_path / "a.mp3") is None


@pytest.mark.parametrize("extension", ["gsm", "vox", "au"])
def test_text_is_not_headerless_sound(extension, tmp_path):
    (tmp_path / f"a.{extension}").write_bytes(TEXT)
    with pytest.raises(AudioDecodingError, match="its content is text"):
        read_sound(tmp_path / f"a.{extension}")
