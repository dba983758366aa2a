"""What would end a run late is found before it trains."""

import sys

import corpus_trees
import pytest

from hf_gradalign.training import GradientAlignmentTrainer


@pytest.fixture
def never_train(monkeypatch):
    def train(*args, **kwargs):
        raise AssertionError("it trains")

    monkeypatch.setattr(GradientAlignmentTrainer, "training_step", train)


@pytest.fixture
def mp3(tmp_path, monkeypatch):
    """A recipe whose package is missing."""
    monkeypatch.setitem(sys.modules, "fast_mp3_augment", None)
    path = tmp_path / "mp3.yaml"
    path.write_text("- {transform: Mp3Compression, p: 0.001}")
    return path


NEEDED = "error: view 'augmented': entry 1 (Mp3Compression) needs pip install fast-mp3-augment\n"


@pytest.mark.parametrize("more", [[], ["--dry_run"], ["--dataloader_num_workers", "2"]])
def test_a_recipe_whose_package_is_missing(run_script, tmp_path, mp3, never_train, capsys, more):
    assert run_script(*more, output_dir=tmp_path / "out", augmentation=mp3) == 2
    assert NEEDED in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_recipe_whose_package_is_missing_in_a_stream(load_script, tmp_path, mp3, never_train, capsys):
    corpus = f"asvspoof2019_la:{corpus_trees.asvspoof2019_la(tmp_path / 'downloads')}"
    words = ["--streaming", "--corpus", corpus, "--max_steps", "7", "--augmentation", str(mp3)]
    assert load_script("run_audio_spoof").main([*words, "--output_dir", str(tmp_path / "out")]) == 2
    assert NEEDED in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
