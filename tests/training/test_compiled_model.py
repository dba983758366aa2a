"""torch.compile does not change the result of training."""

import pytest
import torch
from tiny_detectors import FAMILIES, SMALL, make_clips, make_detector
from torch._dynamo.utils import counters
from toy import ToyViews, largest_difference, make_model, make_trainer, weights_of
from transformers import TrainingArguments

from hf_gradalign.training.compilation import prepare_for_compile


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    yield
    torch.compiler.reset()


def test_a_compiled_model_takes_the_same_updates(tmp_path):
    weights = []
    # This backend needs no C++ compiler, and the graphs are the same.
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        trainer = make_trainer(tmp_path, align_gradients="cagrad", max_steps=3, **options)
        trainer.train()
        weights.append(weights_of(trainer))
    assert type(trainer.model_wrapped).__name__ == "OptimizedModule"
    assert largest_difference(*weights) < 1e-6


MORE = [(family, "linear") for family in FAMILIES[1:]] + [("wav2vec2", head) for head in SMALL if head != "linear"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "head"),
    [("wav2vec2", "linear"), *(pytest.param(*one, marks=pytest.mark.long) for one in MORE)],
)
def test_a_detector_is_one_graph(family, head):
    model = make_detector(family, head).train()
    prepare_for_compile(model, TrainingArguments("unused", use_cpu=True))
    counters.clear()
    compiled = torch.compile(model, backend="aot_eager")
    compiled(make_clips(), labels=torch.tensor([0, 1, 0])).loss.backward()
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(("checkpointing", "wanted"), [(False, False), (True, True)])
def test_convolutions_need_input_gradients_only_for_checkpointing(checkpointing, wanted):
    model = make_detector().train()
    args = TrainingArguments("unused", use_cpu=True, gradient_checkpointing=checkpointing)
    prepare_for_compile(model, args)
    assert model.backbone.feature_extractor._requires_grad is wanted


def test_graph_breaks_are_explained(caplog):
    args = TrainingArguments("unused", use_cpu=True)
    prepare_for_compile(make_detector(), args)
    assert not caplog.records
    prepare_for_compile(make_detector(backbone={"layerdrop": 0.1, "mask_time_prob": 0.5}), args)
    assert "layerdrop above 0" in caplog.text  # SpecAugment is off
    prepare_for_compile(make_detector(backbone={"mask_time_prob": 0.5, "apply_spec_augment": True}), args)
    assert "mask_time_prob above 0" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("class_weights", [None, [0.3, 0.7]])
def test_cuda_graphs_do_not_overwrite_kept_tensors(tmp_path, class_weights):
    logs, weights, clips = [], [], [item["clean"] for item in map(ToyViews().__getitem__, range(32))]
    for options in ({"tf32": True}, {"torch_compile": True, "torch_compile_mode": "reduce-overhead"}):
        model = make_model(class_weights=class_weights)
        trainer = make_trainer(tmp_path, model=model, eval_dataset=clips, use_cpu=False, max_steps=8, **options)
        trainer.train()
        logs.append([log.get("loss") for log in trainer.state.log_history])
        weights.append(weights_of(trainer))
        logs[-1].append(trainer.evaluate()["eval_loss"])
    assert logs[0] == pytest.approx(logs[1], abs=1e-3)
    assert largest_difference(*weights) < 1e-2
