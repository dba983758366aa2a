"""Adam in place of AdamW, in a whole run."""

import json

import torch
from safetensors.torch import load_file


def test_resumes_to_the_bit_and_is_told(run_script, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    words = ["--align_gradients", "--coupled_weight_decay", "--weight_decay", "0.1", "--max_grad_norm", "0"]
    assert run_script(*words, output_dir=out, average_best_checkpoints=1, **steps) == 0
    groups = torch.load(out / "checkpoint-2" / "optimizer.pt", weights_only=True)["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1]
    card = (out / "README.md").read_text()
    assert "Adam, weight decay in the gradient" in card
    assert "gradient norm clipped at" not in card
    assert run_script("--resume_from_checkpoint", str(out / "checkpoint-1"), output_dir=again) == 0
    first, second = (load_file(folder / "model.safetensors") for folder in (out, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert json.loads((again / "all_results.json").read_text())["settings"]["training"]["coupled_weight_decay"]
