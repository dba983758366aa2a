"""--augment_on_device, and recipes that a user types."""

import json

import pytest
import torch
from safetensors.torch import load_file


@pytest.mark.slow
def test_the_same_run_with_batches_augmented_in_the_training_process(run_script, tmp_path):
    figures, weights = [], []
    for name, more in (("workers", []), ("device", ["--augment_on_device"])):
        folder = tmp_path / name
        recipe = ["--views", "clean,far=musan_rir+rawboost5"]
        assert run_script(*recipe, *more, output_dir=folder, average_best_checkpoints=1) == 0
        figures.append(json.loads((folder / "all_results.json").read_text()))
        weights.append(load_file(folder / "model.safetensors"))
    assert figures[1]["eval_loss"] == pytest.approx(figures[0]["eval_loss"], abs=1e-4)
    for name, values in weights[0].items():
        torch.testing.assert_close(weights[1][name], values, atol=2e-5, rtol=0)


def test_nothing_to_do_on_the_device(run_script, tmp_path, capsys):
    assert run_script("--augment_on_device", "--augmentation", "codec", output_dir=tmp_path / "run") == 2
    assert "ends with RawBoost, the only augmentation" in capsys.readouterr().err
