"""The same on Apple's GPU (MPS), of which these tests have a stand-in: the update, the resumed run, and no float64."""

import shutil
from pathlib import Path

import pytest
import torch
from apple_gpu import apple_gpu
from gramians import OUR_METHODS
from toy import ToyViews, make_model, make_trainer, timeless, weights_of

from hf_gradalign.alignment import get_method
from hf_gradalign.alignment.statistics import conflicts
from hf_gradalign.experiment import parse_arguments, run_experiment

ON_GPU = {"use_cpu": False}


@pytest.mark.parametrize(
    ("method", "scope"), [("none", "model"), ("pcgrad", "model"), ("gradvac", "module"), ("cagrad", "parameter")]
)
def test_the_same_trajectory_as_on_the_cpu(tmp_path, monkeypatch, method, scope):
    def train(**options):
        model = make_model(class_weights=(0.3, 0.7))
        options |= {"align_gradients": method, "alignment_scope": scope, "conflict_record": "jsonl"}
        trainer = make_trainer(tmp_path, model=model, optim="adamw_torch", on_nonfinite="skip", **options)
        trainer.train()
        return trainer.args.device.type, {name: value.cpu() for name, value in weights_of(trainer).items()}

    _, on_cpu = train()
    with apple_gpu(monkeypatch):
        device, on_gpu = train(**ON_GPU)
    assert device == "mps"
    for name, value in on_cpu.items():
        torch.testing.assert_close(on_gpu[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_resumes_to_the_bit(tmp_path, monkeypatch):
    def make(folder):
        options = {"align_gradients": "gradvac", "save_strategy": "steps", "save_steps": 1, "logging_steps": 3}
        return make_trainer(tmp_path / folder, ToyViews(), make_model(dropout=0.2), **options, **ON_GPU)

    with apple_gpu(monkeypatch):
        whole, resumed = make("whole"), make("resumed")
        whole.train()
        name = "checkpoint-3"
        weights = [path.name for path in Path(whole.args.output_dir, name).glob("*.safetensors")]
        assert weights == ["model.safetensors"]  # what a rehearsal reads
        shutil.copytree(Path(whole.args.output_dir, name), Path(resumed.args.output_dir, name))
        torch.manual_seed(5)
        resumed.train(resume_from_checkpoint=True)
        for weight, value in weights_of(whole).items():
            assert torch.equal(value, weights_of(resumed)[weight]), weight
    assert timeless(whole.state.log_history) == timeless(resumed.state.log_history)


@pytest.mark.parametrize("method", OUR_METHODS)
def test_weights_are_those_of_the_cpu(monkeypatch, method):
    rows = torch.randn(50, 3, 5, generator=torch.Generator().manual_seed(0))
    rows[:, 1] = 1e-4 * rows[:, 1] - rows[:, 0]
    gramians = rows @ rows.mT
    on_cpu, on_gpu = get_method(method), get_method(method)
    for _ in range(2):
        expected = on_cpu(gramians)
        with apple_gpu(monkeypatch):
            weights = on_gpu(gramians.to("mps"))
            assert weights.device.type == "mps"
            assert torch.equal(weights.cpu(), expected)


@pytest.mark.parametrize("method", OUR_METHODS)
def test_gradients_that_are_not_finite_are_noticed(monkeypatch, method):
    gramians = torch.eye(2).repeat(3, 1, 1)
    gramians[1, 0, 0] = torch.nan
    gramians[2] = torch.nan
    with apple_gpu(monkeypatch):
        on_gpu = gramians.to("mps")
        weights = get_method(method)(on_gpu).cpu()
        assert conflicts(on_gpu).isnan().tolist() == [False, True, True]
    torch.testing.assert_close(weights[1:], torch.full((2, 2), 0.5))


@pytest.mark.slow
def test_a_whole_run_with_its_rehearsal(tmp_path, monkeypatch):
    words = ["--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "1", "--save_strategy", "steps"]
    words += ["--save_steps", "1", "--per_device_train_batch_size", "2", "--max_eval_samples", "4"]
    words += ["--window_seconds", "0.5", "--check_audio", "no", "--augment_on_device", "--align_gradients", "cagrad"]
    with apple_gpu(monkeypatch):
        run = parse_arguments([*words, "--output_dir", str(tmp_path / "run")])
        assert run.training.device.type == "mps"
        run_experiment(run)
    assert (tmp_path / "run" / "scores_test.txt").is_file()
    assert (tmp_path / "run" / "checkpoint-2" / "rng_state_mps.json").is_file()
