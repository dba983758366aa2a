"""A `Trainer` whose evaluations see every item, restore the model and leave no worker processes behind."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers.trainer_utils import EvalLoopOutput

from hf_gradalign.training.compilation import uses_cuda_graphs
from hf_gradalign.training.dataset_checks import check_labels
from hf_gradalign.training.distributed import is_sharded
from hf_gradalign.training.mps_generator import MpsGeneratorTrainer
from hf_gradalign.training.view_batch import refuse_views
from hf_gradalign.utils.loader_workers import start_worker


class EvaluatingTrainer(MpsGeneratorTrainer):
    """Fixes how the base class's options affect evaluations.

    - `bf16_full_eval` and `fp16_full_eval` cast the inputs as well as the weights. The base class casts only the
      weights, and speech models fail. Afterward, the original weights are restored. The base class leaves the model in
      half precision, so later training and saving would use it. As in the base class, evaluations within `train()` run
      in the precision of training.
    - `dataloader_drop_last` drops only the last batch of training, not the last items of an evaluation.
    - With `dataloader_persistent_workers`, `evaluate(other_dataset)` evaluates that data set. The base class reuses the
      loader of the previous one. The workers of `predict` end when it returns.
    - With `batch_eval_metrics`, a `compute_metrics` that has a method `reset` is reset before each evaluation, so an
      interrupted evaluation does not count.
    - A `compute_metrics` that has a method `use_model` is given the model before each evaluation.
    - A loss that weights its items is a weighted mean over the whole data set (`record_loss`), unless `compute_metrics`
      returns a loss. The base class takes the mean over batches, which depends on how items are divided into them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loss_terms: list[Tensor] = []
        super().__init__(*args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Return the evaluation loader, which is reused only for the same data set."""
        if not isinstance(eval_dataset, str):
            wanted = self.eval_dataset if eval_dataset is None else eval_dataset
            loaders = getattr(self, "_eval_dataloaders", {})
            if "eval" in loaders and self._dataset_of_loader is not wanted:
                self._release(loaders.pop("eval"))
            self._dataset_of_loader = wanted
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
        with _override_arguments(self.args, options):
            loader = super()._get_dataloader(dataset, description, batch_size, sampler_fn, is_training, dataloader_key)
        inner = getattr(loader, "base_dataloader", loader)
        inner.worker_init_fn = partial(start_worker, then=inner.worker_init_fn)
        if seeded:
            # A loader draws a seed when it starts its workers: at every epoch and evaluation, or once if workers
            # persist. If the seed came from the global generator, a resumed run would have other dropout.
            inner.generator = torch.Generator().manual_seed(self.args.seed)
        return loader

    def _release(self, loader: DataLoader) -> None:
        """End a loader's workers by dropping all references to it."""
        if loader in self.accelerator._dataloaders:
            self.accelerator._dataloaders.remove(loader)
        if self.callback_handler.eval_dataloader is loader:
            self.callback_handler.eval_dataloader = None

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as the base class does, and restore a model that was cast to half precision.

        Raises:
            ValueError: If the data set numbers the classes differently than the model.
        """
        model, compute = self.model, self.compute_metrics
        assert model is not None  # `model_init` makes one if none was given
        check_labels(self.accelerator.unwrap_model(model), getattr(dataloader, "dataset", None))
        if (reset := getattr(compute, "reset", None)) is not None:
            reset()
        if (use_model := getattr(compute, "use_model", None)) is not None:
            use_model(self.accelerator.unwrap_model(model))
        computed: dict[str, float] = {}

        def keep_metrics(*args: Any, **kwargs: Any) -> dict[str, float]:
            assert compute is not None
            metrics = compute(*args, **kwargs)
            computed.update(metrics or {})  # with metrics by batch, only the last call has any
            return metrics

        self._loss_terms = []
        casts = self._evaluation_dtype() is not None and not is_sharded(model)
        with (
            _restore_weights(model) if casts else nullcontext(),
            _override_arguments(self, {} if compute is None else {"compute_metrics": keep_metrics}),
        ):
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        name = f"{metric_key_prefix}_loss"
        if self._loss_terms and computed.keys().isdisjoint(("loss", name)):
            total, weight = torch.cat(self._loss_terms).cpu().double().sum(0).tolist()
            loss = total / weight if weight else float("nan")
            output = output._replace(metrics={**(output.metrics or {}), name: loss})
        self._loss_terms = []
        return output

    def record_loss(self, terms: Tensor) -> None:
        """Record the terms of an evaluation batch, shape (B, 2): each item's part of the loss and its denominator."""
        # One row per item, so that items that only fill up the last batch of several processes can be dropped.
        self._loss_terms.append(self.gather_function(terms))

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Predict as the base class does, with the inputs (not the labels) cast to a half-precision model's type.

        Outputs that the next pass would overwrite (`uses_cuda_graphs`) are copied.
        """
        refuse_views(inputs, "the data set")
        dtype = self._evaluation_dtype()
        if dtype is not None:
            inputs = {
                name: value if name in self.label_names else _cast(value, dtype) for name, value in inputs.items()
            }
        outputs = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return recursively_apply(torch.clone, outputs) if uses_cuda_graphs(self.args) else outputs

    def _evaluation_dtype(self) -> torch.dtype | None:
        """Return the type that the base class casts the model to for this evaluation; None if it does not."""
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
def _override_arguments(args: Any, options: dict[str, Any]) -> Generator[None]:
    before = {name: getattr(args, name) for name in options}
    try:
        for name, value in options.items():
            setattr(args, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(args, name, value)


@contextmanager
def _restore_weights(model: nn.Module) -> Generator[None]:
    """On exit, restore the tensors of the model's parameters and buffers, whatever they were cast to."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for parameter, data in parameters:
            parameter.data = data
        for module, values in buffers:
            module._buffers.update(values)
