"""The steps that are compared, all of one model."""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer
from step_cost.models import VIEWS, make_batch, make_model
from step_cost.published_step import PublishedStep

SINGLE, PASSES, PUBLISHED = "single path", "two passes", "published step"
VARIANTS = {
    "single": "(a) one forward and backward pass, of the augmented view",
    "passes": "(b) one of each view, no alignment",
    "ours": "(c) aligned, by each method",
    "published": "(d) the step as published, done the plain way",
}


def names_of(variants: list[str], methods: list[str]) -> list[str]:
    """Rows of the table: a variant each, and for "ours" a method each."""
    rows = {"single": [SINGLE], "passes": [PASSES], "ours": methods, "published": [PUBLISHED]}
    return [name for variant in VARIANTS if variant in variants for name in rows[variant]]


class Workbench:
    """A model, a batch, and training steps of all kinds without the optimizer: gradients are set to none, and computed.

    Args:
        size: One of `SIZES`.
        utterances: Size of the batch of each view.
        seconds: Length of an utterance.
        dtype: "float32", or "bf16" for autocast.
        names: The steps wanted, as `names_of` gives them.

    Attributes:
        steps: A function for each name.
        trainers: The trainers behind the aligned ones.
        parameters: Number of the model's parameters.

    Raises:
        RuntimeError: If "bf16" was asked for and is not what the model computes in.
    """

    def __init__(self, size: str, utterances: int, seconds: float, dtype: str, names: list[str]) -> None:
        self._dtype = dtype
        self._folder = tempfile.TemporaryDirectory()
        model = make_model(size)
        self.parameters = model.num_parameters()
        self._model = model
        self._plain = self._make_trainer()
        # As train() does; autocast is wrapped around the model's forward, once for all trainers.
        self._model = self._plain.accelerator.prepare_model(model)
        self._plain.current_gradient_accumulation_steps = 1
        device = self._plain.args.device
        self._batch = {
            view: {name: value.to(device) for name, value in inputs.items()}
            for view, inputs in make_batch(utterances, seconds).items()
        }
        self.trainers: dict[str, GradientAlignmentTrainer] = {}
        self.steps = {name: self._timed(self._make_step(name)) for name in names}
        if dtype == "bf16":
            self._check_autocast()

    def _make_step(self, name: str) -> Callable[[], Any]:
        if name == SINGLE:
            return lambda: Trainer.training_step(self._plain, self._model, self._batch[VIEWS[1]])
        if name == PASSES:
            return self._two_passes
        if name == PUBLISHED:
            step = PublishedStep(self._model, self._plain.accelerator)
            return lambda: step(self._batch)
        trainer = self.trainers[name] = self._make_trainer(align_gradients=name)
        return lambda: trainer.training_step(self._model, self._batch)

    def _two_passes(self) -> None:
        for view in self._batch.values():
            Trainer.training_step(self._plain, self._model, view)

    def _timed(self, step: Callable[[], Any]) -> Callable[[], None]:
        def whole_step() -> None:
            self._model.zero_grad()
            step()
            synchronize()

        return whole_step

    def _make_trainer(self, **options: Any) -> GradientAlignmentTrainer:
        arguments = GradientAlignmentArguments(
            output_dir=self._folder.name,
            bf16=self._dtype == "bf16",
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            **options,
        )
        return GradientAlignmentTrainer(model=self._model, args=arguments)

    def _check_autocast(self) -> None:
        seen = set()
        linear = next(module for module in self._model.modules() if isinstance(module, nn.Linear))
        hook = linear.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
        with torch.no_grad():
            self._model(**self._batch[VIEWS[0]])
        hook.remove()
        if seen != {torch.bfloat16}:
            raise RuntimeError(f"bf16 was asked for, and the model computes in {seen}")


def synchronize() -> None:
    """Wait until a GPU, if there is one, has done what it was told to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
