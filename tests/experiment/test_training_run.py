import copy

import pytest
import torch
from datasets import DatasetDict
from transformers import TrainerCallback

from hf_gradalign.experiment import parse_arguments
from hf_gradalign.experiment.corpora import RunCorpora
from hf_gradalign.experiment.dry_run import synthetic_clips
from hf_gradalign.experiment.preparation import check_views, make_preparation
from hf_gradalign.experiment.training_run import make_trainer
from hf_gradalign.models import load_audio_classifier, small_wav2vec2_config

WORDS = ["--max_steps", "1", "--per_device_train_batch_size", "2", "--window_seconds", "0.25", "--disable_tqdm", "true"]
WORDS += ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "no", "--lr_scheduler_type"]
WORDS += ["constant", "--warmup_steps", "0", "--average_best_checkpoints", "1", "--max_grad_norm", "0"]
WORDS += ["--use_cpu", "true"]  # the step is repeated here, where the model is
WORDS += ["--conflict_record", "none", "--weight_decay", "0.1", "--learning_rate", "0.001"]


class KeepGradients(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def train_one_step(tmp_path, *words):
    """The model before and after a step, and the gradients in between."""
    run = parse_arguments(["--output_dir", str(tmp_path), *WORDS, *words])
    run.settle_defaults()
    torch.manual_seed(0)
    model, extractor = load_audio_classifier(random_config=small_wav2vec2_config(num_hidden_layers=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)  # biases are zero at first, and would not decay
    clips = DatasetDict({split: synthetic_clips(2, 0.25, 16_000, split) for split in ("train", "validation")})
    preparation = make_preparation(RunCorpora(clips, {}), check_views(run), model, extractor, run)
    before, keep = copy.deepcopy(model), KeepGradients()
    make_trainer(preparation, run.training, [keep]).train()
    return before, model, keep.gradients


def step_with(optimizer, model, gradients):
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].clone()
    optimizer.step()
    return dict(model.named_parameters())


def test_coupled_weight_decay_is_adam(tmp_path):
    before, after, gradients = train_one_step(tmp_path, "--coupled_weight_decay", "--adam_beta2", "0.99")
    adam = torch.optim.Adam(before.parameters(), lr=1e-3, weight_decay=0.1, betas=(0.9, 0.99))
    expected = step_with(adam, before, gradients)
    for name, parameter in after.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=0, atol=1e-9, msg=name)


def test_by_default_it_is_adamw_that_spares_biases(tmp_path):
    before, after, gradients = train_one_step(tmp_path)
    names = [name for name, _ in before.named_parameters() if name.endswith("bias")]
    adam = torch.optim.Adam(before.parameters(), lr=1e-3, weight_decay=0.1)
    coupled = step_with(adam, before, gradients)
    assert any(not torch.allclose(after.get_parameter(name), coupled[name], rtol=0, atol=1e-6) for name in names)


def test_another_optimizer_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--coupled_weight_decay", "--optim", "adafactor", "--output_dir", str(tmp_path)])
    assert "--coupled_weight_decay uses torch.optim.Adam: remove --optim adafactor" in capsys.readouterr().err
