"""What a dry run trains where there is no data and no network."""

import huggingface_hub.constants
import numpy as np
import pytest
from transformers import AutoConfig, Wav2Vec2Config

from hf_gradalign.data import decode_audio
from hf_gradalign.experiment.dry_run import is_hub_unreachable, stand_in_config, synthetic_clips
from hf_gradalign.models import SpoofDetectorConfig

XLS_R = "facebook/wav2vec2-xls-r-300m"


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_xls_r_has_its_sizes():
    config = stand_in_config(XLS_R)
    assert isinstance(config, Wav2Vec2Config)
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (24, 1024, 4096)
    assert config.to_dict() == SpoofDetectorConfig().backbone_config.to_dict()


def test_others_are_not_guessed():
    assert stand_in_config("facebook/wav2vec2-xls-r-1b") is None


def test_out_of_reach_is_not_the_same_as_wrong(tmp_path):
    with pytest.raises(OSError, match="connect") as unreachable:
        AutoConfig.from_pretrained(XLS_R)
    assert is_hub_unreachable(unreachable.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises((OSError, ValueError)) as wrong:
        AutoConfig.from_pretrained(str(tmp_path / "empty"))
    assert not is_hub_unreachable(wrong.value)


def test_both_classes_in_two_lengths():
    clips = synthetic_clips(5, 0.5, 16_000, "train")
    assert clips["label"][:] == [0, 1, 0, 1, 0]
    assert len(set(clips["utterance_id"][:])) == 5
    samples = [decode_audio(audio, 16_000) for audio in clips["audio"][:]]
    assert [len(clip) for clip in samples] == [6400, 6400, 9600, 9600, 6400]
    assert all(0.05 < np.abs(clip).max() < 1 for clip in samples)
    assert not clips.cache_files  # nothing on disk
