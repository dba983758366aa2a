"""A `Trainer` whose evaluations see every item of the right data set, and leave the model and no process behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from hf_gradalign.training.distributed import is_sharded


class EvaluatingTrainer(Trainer):
    """Mends what the base class's options do to evaluations.

    - `bf16_full_eval` and `fp16_full_eval` cast what the model is given along with its weights, where the base class
      casts the weights alone and speech models fail. The weights are as they were when the evaluation is over, where
      the base class leaves them in half precision, to be saved or trained on. As in the base class, evaluations
      within `train()` run in the precision of training.
    - `dataloader_drop_last` drops the last batch of training alone, not the last items of an evaluation.
    - With `dataloader_persistent_workers`, `evaluate(other_dataset)` evaluates the data set that it is given, where
      the base class takes the loader of the one before; and the workers of `predict` end with it.
    - With `batch_eval_metrics`, a `compute_metrics` that has a method `reset` begins with it: what an evaluation that
      was broken off had gathered does not count.
    """

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """As the base class's; a loader is used again for the same data set only."""
        if not isinstance(eval_dataset, str):
            wanted = self.eval_dataset if eval_dataset is None else eval_dataset
            loaders = getattr(self, "_eval_dataloaders", {})
            if "eval" in loaders and self._evaluated_by_loader is not wanted:
                self._let_go(loaders.pop("eval"))
            self._evaluated_by_loader = wanted
        return super().get_eval_dataloader(eval_dataset)

    def _get_dataloader(
        self,
        dataset: Dataset,
        description: str,
        batch_size: int,
        sampler_fn: Any = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> DataLoader:
        options: dict[str, Any] = {}
        if not is_training:
            options["dataloader_drop_last"] = False
            if dataloader_key is None:
                options["dataloader_persistent_workers"] = False  # the loader of `predict` is used once
        seeded = self.args.dataloader_num_workers > 0 and self.args.dataloader_persistent_workers
        with _replaced(self.args, options):
            loader = super()._get_dataloader(dataset, description, batch_size, sampler_fn, is_training, dataloader_key)
        if seeded:
            # A loader takes a seed for its workers when it starts them: at every epoch and evaluation, or, where they
            # persist, once. Taken from the global generator it would shift a resumed run's dropout.
            generator = torch.Generator().manual_seed(self.args.seed)
            getattr(loader, "base_dataloader", loader).generator = generator
        return loader

    def _let_go(self, loader: DataLoader) -> None:
        """End a loader's workers, by keeping nothing that refers to it."""
        if loader in self.accelerator._dataloaders:
            self.accelerator._dataloaders.remove(loader)
        if self.callback_handler.eval_dataloader is loader:
            self.callback_handler.eval_dataloader = None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As the base class's; a model that it casts to half precision is put back."""
        if hasattr(self.compute_metrics, "reset"):
            self.compute_metrics.reset()
        if self._half_precision() is None or is_sharded(self.model):
            return super().evaluation_loop(*args, **kwargs)
        with _weights_put_back(self.model):
            return super().evaluation_loop(*args, **kwargs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """As the base class's; a model in half precision is given its inputs (not its labels) in it."""
        dtype = self._half_precision()
        if dtype is not None:
            inputs = {
                name: value if name in self.label_names else _cast(value, dtype) for name, value in inputs.items()
            }
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def _half_precision(self) -> torch.dtype | None:
        """What the base class casts the model to for the evaluation at hand; None where it leaves it alone."""
        if self.is_in_train:
            return None
        if self.args.fp16_full_eval:
            return torch.float16
        return torch.bfloat16 if self.args.bf16_full_eval else None


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return recursively_apply(
        lambda tensor: tensor.to(dtype), value, test_type=lambda x: isinstance(x, Tensor) and x.is_floating_point()
    )


@contextmanager
def _replaced(args: Any, options: dict[str, Any]) -> Iterator[None]:
    before = {name: getattr(args, name) for name in options}
    try:
        for name, value in options.items():
            setattr(args, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(args, name, value)


@contextmanager
def _weights_put_back(model: nn.Module) -> Iterator[None]:
    """On leaving, the model's parameters and buffers are the tensors that they were, whatever they were cast to."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for parameter, data in parameters:
            parameter.data = data
        for module, values in buffers:
            module._buffers.update(values)


__all__ = ["EvaluatingTrainer"]
