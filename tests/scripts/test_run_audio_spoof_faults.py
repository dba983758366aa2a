"""Faults of a run that must not pass silently: an update that is not finite, damage, a link."""

import json
import re

import pytest
import torch

STEPS = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "logging_steps": 1}
DIVERGING = {"learning_rate": 1e18, "max_grad_norm": 0, "warmup_steps": 0, "lr_scheduler_type": "constant"}


def test_an_update_that_is_not_finite(tmp_path, run_script, capsys):
    out = tmp_path / "out"
    assert run_script("--align_gradients", output_dir=out, max_steps=3, **DIVERGING) == 1
    printed = capsys.readouterr().err
    assert re.search(r"error: Update 2 of 3 is not finite: the loss of views? clean.* is nan", printed)
    assert re.search(r"Items: train_\d+, train_\d+, train_\d+, train_\d+\. ", printed)
    assert "--on_nonfinite skip" in printed
    recorded = [json.loads(line)["step"] for line in (out / "conflicts.jsonl").read_text().splitlines()]
    # A GPU does not wait for each loss, so the run stops a few updates later.
    assert recorded == ([1, 2, 3] if torch.accelerator.is_available() else [1])


@pytest.mark.parametrize("name", ["best_checkpoints", "conflicts.jsonl"])
def test_a_link_out_of_the_folder(tmp_path, run_script, capsys, name):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / name).symlink_to(outside)
    assert run_script("--align_gradients", "--overwrite", output_dir=out) == 2
    assert f"{name} is a link out of the run's folder, to {outside}" in capsys.readouterr().err
    assert not list(outside.iterdir())
    assert (out / name).is_symlink()


def test_a_damaged_checkpoint(tmp_path, run_script, capsys, caplog):
    out = tmp_path / "out"
    options = {"load_best_model_at_end": False, "average_best_checkpoints": 1, **STEPS}
    assert run_script("--align_gradients", output_dir=out, **options) == 0
    path = out / "checkpoint-2" / "model.safetensors"
    with path.open("rb+") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(10_000))
    (out / "all_results.json").unlink()
    assert run_script("--resume_from_checkpoint", str(out / "checkpoint-2"), **options) == 2
    assert "model.safetensors is damaged: its content is not what was saved; resume from" in capsys.readouterr().err
    assert run_script("--resume_from_checkpoint", str(out), **options) == 0
    assert f"{out}/checkpoint-2 is not complete and is skipped: model.safetensors is damaged" in caplog.text
