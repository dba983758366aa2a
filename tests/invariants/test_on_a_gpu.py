"""The same on a GPU: the update, the resumed run, and that nothing waits for the device."""

import shutil
from pathlib import Path

import pytest
import torch
from test_modes import check_modes
from toy import ToyViews, make_model, make_trainer, timeless, weights_of
from transformers import TrainerCallback

pytestmark = pytest.mark.gpu

ON_GPU = {"use_cpu": False, "dataloader_pin_memory": True}


@pytest.mark.parametrize("method", ["none", "pcgrad", "gradvac", "cagrad"])
@pytest.mark.parametrize("scope", ["model", "module", "parameter"])
def test_the_same_trajectory_as_on_the_cpu(tmp_path, method, scope):
    def train(**options):
        trainer = make_trainer(tmp_path, align_gradients=method, alignment_scope=scope, **options)
        trainer.train()
        return {name: value.cpu() for name, value in weights_of(trainer).items()}

    on_cpu, on_gpu = train(), train(**ON_GPU)
    for name, value in on_cpu.items():
        torch.testing.assert_close(on_gpu[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_resumes_to_the_bit(tmp_path):
    def make(folder):
        model = make_model(dropout=0.2)
        options = {"align_gradients": "gradvac", "save_strategy": "steps", "save_steps": 1, "logging_steps": 3}
        return make_trainer(tmp_path / folder, ToyViews(), model, **options, **ON_GPU)

    whole, resumed = make("whole"), make("resumed")
    whole.train()
    name = "checkpoint-3"
    shutil.copytree(Path(whole.args.output_dir, name), Path(resumed.args.output_dir, name))
    resumed.train(resume_from_checkpoint=True)
    for weight, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(resumed)[weight]), weight
    assert timeless(whole.state.log_history) == timeless(resumed.state.log_history)


class RefuseWaiting(TrainerCallback):
    """From the third to the second-to-last update, an operation that waits for the GPU raises an error."""

    def on_step_begin(self, args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("error" if 2 <= state.global_step < 7 else "default")


@pytest.mark.parametrize("method", ["pcgrad", "gradvac", "cagrad"])
@pytest.mark.parametrize("options", [{}, {"bf16": True}, {"conflict_record": "jsonl", "conflict_record_modules": True}])
def test_nothing_waits_between_logs(tmp_path, method, options):
    trainer = make_trainer(
        tmp_path,
        model=make_model(class_weights=[0.3, 0.7]),
        align_gradients=method,
        optim="adamw_torch",
        max_grad_norm=1.0,
        logging_steps=8,
        callbacks=[RefuseWaiting()],
        **options,
        **ON_GPU,
    )
    try:
        trainer.train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.state.global_step == 8


@pytest.mark.slow
def test_modes_on_a_gpu(tmp_path):
    rows = check_modes(tmp_path / "rows.json", "--accelerator", "--processes", "1")
    assert len(rows) > 10
