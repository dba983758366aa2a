"""What a scoring is known by."""

import pytest

from hf_gradalign.scoring.fingerprint import digest_of_audio


@pytest.mark.parametrize("position", [0, -1])
def test_start_and_end_of_a_long_clip_count(tmp_path, position):
    before = bytearray(3 * 2**16)
    after = before.copy()
    after[position] = 1
    path = tmp_path / "clip.wav"
    digests = set()
    for content in (before, after):
        path.write_bytes(content)
        digests.add(digest_of_audio([{"path": str(path), "bytes": None}]))
        digests.add(digest_of_audio([{"path": None, "bytes": bytes(content)}]))
    assert len(digests) == 2  # wherever a clip's bytes are
