"""Detectors that are trained from scratch by name."""

import pytest
import torch
from transformers.utils import logging

from hf_gradalign.models import (
    ARCHITECTURES,
    ID2LABEL,
    SpoofDetectorFeatureExtractor,
    architecture_config,
    is_architecture,
    load_audio_classifier,
)

# With the norms that are loaded and not used, which the published counts include.
SIZES = {"aasist": 297_866, "aasist_l": 85_306}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_published_sizes(name):
    model, extractor = load_audio_classifier(name, class_weights={"spoof": 0.1, "bonafide": 0.9})
    unused = [b for key, b in model.named_buffers() if key.split(".")[-2:] in (["norm1", "weight"], ["norm1", "bias"])]
    assert sum(value.numel() for value in [*model.parameters(), *unused]) == SIZES[name]
    assert isinstance(extractor, SpoofDetectorFeatureExtractor)
    assert (extractor.n_samples, extractor.do_normalize) == (64_600, False)
    assert (model.config.n_samples, model.config.id2label) == (64_600, ID2LABEL)
    assert model.config.class_weights == [0.1, 0.9]
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 8000)).logits.isfinite().all()


def test_published_ratios():
    ratios = {name: architecture_config(name).head_options.get("pool_ratios") for name in ARCHITECTURES}
    assert ratios == {"aasist": None, "aasist_l": [0.4, 0.5, 0.7]}
    model, _ = load_audio_classifier("aasist")
    assert model.config.head_options["pool_ratios"] == [0.5, 0.7, 0.5]
    assert model.config.head_options["temperatures"] == [2.0, 2.0, 100.0]


def test_a_folder_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_architecture("aasist")
    assert not is_architecture("./aasist")
    (tmp_path / "aasist").mkdir()
    warnings = []
    monkeypatch.setattr(logging.get_logger("hf_gradalign.models.architectures"), "warning_once", warnings.append)
    assert is_architecture("aasist")
    assert warnings == ["aasist is trained from scratch. The folder aasist is not used; to use it, write ./aasist."]
    (tmp_path / "aasist" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"aasist is an architecture .* and also a folder .* write ./aasist for"):
        load_audio_classifier("aasist")
    assert not is_architecture("./aasist")


def test_other_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not any(map(is_architecture, (None, "someone/aasist", "aasist/checkpoint-3", "wavlm")))
    for name in ("AASIST", "aasist-l", "AASIST-L"):
        with pytest.raises(ValueError, match=f"there is no model {name}: .* write {name.lower().replace('-', '_')}$"):
            is_architecture(name)
        (tmp_path / name).mkdir()
        assert not is_architecture(name)
