"""A checkpoint restores the whole model, or is refused."""

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file
from toy import ToyClassifier, ToyViews, largest_difference, make_arguments, make_model, make_trainer, weights_of
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from hf_gradalign.training import GradientAlignmentTrainer, load_whole_state
from hf_gradalign.training.checkpoint_integrity import MANIFEST_NAME
from hf_gradalign.training.checkpoint_weights import require_all_weights

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
PATCHES = {"patch_size": 4, "max_length": 16, "num_mel_bins": 8, "frequency_stride": 4, "time_stride": 4}
MODELS = {
    "renamed": lambda: ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **SIZES)),
    "renamed, audio": lambda: ASTForAudioClassification(ASTConfig(**PATCHES, **SIZES)),
    "merged experts": lambda: MixtralForCausalLM(
        MixtralConfig(vocab_size=8, num_key_value_heads=2, num_local_experts=3, **SIZES)
    ),
    "tied": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=2)),
}


def make(name, seed=0):
    torch.manual_seed(seed)
    return MODELS[name]()


@pytest.mark.parametrize("was_loaded", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_saved_weights_can_be_loaded(tmp_path, name, was_loaded):
    model = make(name)
    model.save_pretrained(tmp_path)
    if was_loaded:  # such a model knows which names it was loaded with
        model = type(model).from_pretrained(tmp_path)
        model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() != model.state_dict().keys()
    for other in (make(name, seed=1), type(model).from_pretrained(tmp_path)):
        torch.nn.init.zeros_(next(other.parameters()))
        missing, unexpected = load_whole_state(other, saved)
        require_all_weights(other, missing, unexpected, "it")
        assert largest_difference(other.state_dict(), model.state_dict()) == 0
        assert load_whole_state(other, other.state_dict()) == ([], [])  # these are the model's own names


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, 8, 8, generator=generator) + index % 2
        return {view: {"pixel_values": image * scale, "labels": index % 2} for view, scale in (("a", 1), ("b", 2))}


def image_trainer(folder, **options):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "per_device_train_batch_size": 4, **options}
    items = Images()
    return GradientAlignmentTrainer(
        make("renamed"),
        make_arguments(folder, **options),
        train_dataset=items,
        eval_dataset=[items[index]["a"] for index in range(4)],
    )


def test_resumes_and_ends_with_the_best_under_other_names(tmp_path):
    whole = image_trainer(tmp_path / "whole")
    whole.train()
    sharded = tmp_path / "whole" / "checkpoint-1"
    parts = image_trainer(tmp_path / "parts", max_steps=2)
    parts.train()
    resumed = image_trainer(tmp_path / "parts")
    resumed.train(resume_from_checkpoint=True)
    assert largest_difference(weights_of(resumed), weights_of(whole)) == 0
    # The same, from several files.
    model = ViTForImageClassification.from_pretrained(sharded)
    (sharded / "model.safetensors").unlink()
    (sharded / MANIFEST_NAME).unlink()
    model.save_pretrained(sharded, max_shard_size="4KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    resumed = image_trainer(tmp_path / "whole")
    resumed.train(resume_from_checkpoint=str(sharded))
    assert largest_difference(weights_of(resumed), weights_of(whole)) == 0

    best = image_trainer(
        tmp_path / "best",
        **{"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "learning_rate": 3.0},
        **{"metric_for_best_model": "score", "greater_is_better": False},
    )
    best.compute_metrics = lambda _: {"score": best.state.global_step}
    best.train()
    losses = [row["eval_loss"] for row in best.state.log_history if "eval_loss" in row]
    assert best.evaluate()["eval_loss"] == losses[0] != losses[-1]


class TiedClassifier(ToyClassifier):
    """Not a model of transformers, with a tied weight and one that is not contiguous."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.turned = torch.nn.Parameter(torch.randn(6, 4).T)

    def forward(self, x, labels=None, **kwargs):
        x = self.second(self.first(x).tanh()) + x @ (self.turned.T @ self.turned)
        return super().forward(x, labels)


def test_a_plain_module_with_tied_weights(tmp_path):
    options = {
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "eval_dataset": [item["clean"] for item in ToyViews(4)],
        "metric_for_best_model": "loss",
        "average_best_checkpoints": 2,
        "max_steps": 4,
    }
    trained = []
    for folder, checkpoint in (("whole", None), ("resumed", tmp_path / "whole" / "checkpoint-2")):
        torch.manual_seed(0)
        trainer = make_trainer(tmp_path / folder, model=TiedClassifier(), **options)
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        assert trainer.averaged_checkpoints == 2
        assert trainer.model.second.weight is trainer.model.first.weight
        trained.append(weights_of(trainer))
    assert largest_difference(*trained) == 0
    model = TiedClassifier()
    load_model(model, tmp_path / "whole" / "checkpoint-4" / "model.safetensors")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    options |= {"eval_dataset": [item["clean"] for item in ToyViews(4)], "metric_for_best_model": "loss"}
    trainer = make_trainer(tmp_path, max_steps=2, **options)
    trainer.train()
    path = tmp_path / "checkpoint-2" / "model.safetensors"
    weights = load_file(path)
    lacking = {name: value for name, value in weights.items() if name != "hidden.weight"}
    (path.parent / MANIFEST_NAME).unlink()
    for state, message in (
        (lacking, r"checkpoint-2 does not fit the model: it lacks hidden.weight. Use the model that it was trained"),
        ({**lacking, "old": weights["hidden.weight"]}, "it lacks hidden.weight, and the model lacks old"),
    ):
        save_file(state, path, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=message):
            make_trainer(tmp_path, **options).train(resume_from_checkpoint=str(path.parent))
        trainer.state.best_model_checkpoint = str(path.parent)
        with pytest.raises(ValueError, match=message):
            trainer._load_best_model()
    model = make_model()
    model._keys_to_ignore_on_load_missing, model._keys_to_ignore_on_load_unexpected = [r"^hidden\."], ["old"]
    make_trainer(tmp_path, model=model, **options).train(resume_from_checkpoint=str(path.parent))


def test_incomplete_adapters_are_refused(tmp_path):
    peft = pytest.importorskip("peft")

    def trainer():
        model = peft.get_peft_model(make_model(), peft.LoraConfig(r=2, target_modules=["hidden", "classifier"]))
        return make_trainer(tmp_path, model=model, save_strategy="steps", save_steps=1, max_steps=1)

    trainer().train()
    path = tmp_path / "checkpoint-1" / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "hidden.lora_A" in name)
    save_file({key: value for key, value in weights.items() if key != name}, path, metadata={"format": "pt"})
    (path.parent / MANIFEST_NAME).unlink()
    with pytest.raises(ValueError, match=f"checkpoint-1 does not fit the model: it lacks {name}"):
        trainer().train(resume_from_checkpoint=True)
