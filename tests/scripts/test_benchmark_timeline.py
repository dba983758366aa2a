import pytest

from hf_gradalign.models import SpoofDetectorConfig, small_wav2vec2_config


def test_ways_to_share(load_script, monkeypatch, capsys):
    script = load_script("benchmark_timeline")
    narrow = {"conv_dim": (8,) * 5, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    norm = {"feat_extract_norm": "layer", "conv_bias": True}
    config = SpoofDetectorConfig(small_wav2vec2_config(**narrow, **norm, num_conv_pos_embedding_groups=2), "linear")
    monkeypatch.setattr(script, "models", lambda size: {"tiny": config})
    assert script.main(["--seconds", "1", "--window_seconds", "0.5", "--rounds", "2"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row[0].removeprefix("| ").strip() for row in rows] == [
        "separate windows",
        "as it is (convolutions shared)",
        "share_encoder (encoder shared)",
    ]
    assert float(rows[1][3].strip(" |")) == pytest.approx(0, abs=1e-5)


def test_the_models_that_are_measured(load_script):
    assert len(load_script("benchmark_timeline").models("base")) == 4
