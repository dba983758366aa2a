import numpy as np
import pytest
from tiny_detectors import make_detector

from hf_gradalign.models import SpoofDetectorFeatureExtractor


@pytest.fixture
def script(load_script, monkeypatch):
    script = load_script("locate_halves")
    monkeypatch.setattr(script, "GROUPS", {"known": ("validation", "validation")})
    monkeypatch.setattr(script, "OF_OTHER_SETTINGS", "known")
    monkeypatch.setattr(script, "DEFAULT", (0.5, 0.25, False))
    monkeypatch.setattr(script, "OTHER_SETTINGS", [(0.5, 0.25, True)])
    return script


@pytest.mark.slow
def test_the_table_and_the_figure(script, tmp_path, capsys):
    model = make_detector()
    model.save_pretrained(tmp_path / "model")
    SpoofDetectorFeatureExtractor(n_samples=8000).save_pretrained(tmp_path / "model")
    pytest.importorskip("matplotlib")
    figure = tmp_path / "timeline.png"
    assert script.main([str(tmp_path / "model"), "--recordings", "1", "--figure", str(figure)]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if " | known | " in line]
    assert [row[0] for row in rows] == [f"| {kind}" for kind in script.HALVES for _ in range(2)]
    assert [row[2:6] for row in rows] == 2 * [["0.5", "0.25", "per window", "1"], ["0.5", "0.25", "encoder", "1"]]
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("make_half", "least", "most"), [("one_clip", 2, 4), pytest.param("several_clips", 4, 8, marks=pytest.mark.slow)]
)
def test_recordings_are_those_of_the_seed(script, make_half, least, most):
    first, again, other = (
        script.make_recordings("validation", "validation", getattr(script, make_half), 3, seed) for seed in (0, 0, 1)
    )
    for recording, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(recording.samples, same.samples)
        for seconds in (recording.boundary, len(recording.samples) / script.RATE - recording.boundary):
            assert least <= seconds <= most
    assert first[0].boundary != other[0].boundary
