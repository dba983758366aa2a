import huggingface_hub.constants
import pytest
from transformers import AutoConfig, Wav2Vec2Config

from hf_gradalign.experiment.dry_run.stand_ins import is_out_of_reach, stand_in_config
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
    assert is_out_of_reach(unreachable.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises((OSError, ValueError)) as wrong:
        AutoConfig.from_pretrained(str(tmp_path / "empty"))
    assert not is_out_of_reach(wrong.value)
