"""The dual-path step as it is described, done the plain way."""

import copy
import random
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class PublishedStep:
    """One forward pass of both views, a backward pass of each, PCGrad on flat vectors of all parameters.

    Written from the description of the step of arXiv 2509.20682: the views go through the model as one batch, each
    view's loss is propagated back through the whole graph, which is retained, and the gradients (with a mask of the
    parameters that have one) are flattened, copied, projected, averaged where all views have one and summed elsewhere,
    and cut up again into `p.grad`.
    """

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        self._model = model
        self._accelerator = accelerator
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def __call__(self, batch: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Do the step, without the optimizer."""
        joined = {name: torch.cat([view[name] for view in batch.values()]) for name in next(iter(batch.values()))}
        joined = {name: value.to(self._accelerator.device) for name, value in joined.items()}
        labels = joined.pop("labels").chunk(len(batch))
        logits = self._model(**joined).logits.float().chunk(len(batch))
        gradients, masks = [], []
        for view_logits, view_labels in zip(logits, labels, strict=True):
            self._model.zero_grad()
            self._accelerator.backward(cross_entropy(view_logits, view_labels), retain_graph=True)
            gradients.append(self._flat_gradient())
            masks.append(self._flat_mask())
        self._put_back(self._merged(self._projected(gradients), masks))

    def _flat_gradient(self) -> Tensor:
        return torch.cat(
            [
                torch.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.clone().flatten()
                for parameter in self._parameters
            ]
        )

    def _flat_mask(self) -> Tensor:
        return torch.cat(
            [
                (torch.zeros_like(parameter) if parameter.grad is None else torch.ones_like(parameter)).flatten()
                for parameter in self._parameters
            ]
        )

    @torch.no_grad()
    def _projected(self, gradients: list[Tensor]) -> list[Tensor]:
        projected = copy.deepcopy(gradients)
        for gradient in projected:
            for other in random.sample(gradients, len(gradients)):
                product = torch.dot(gradient, other)
                if product < 0:
                    gradient -= product * other / other.norm() ** 2
        return projected

    @torch.no_grad()
    def _merged(self, gradients: list[Tensor], masks: list[Tensor]) -> Tensor:
        shared = torch.stack(masks).prod(dim=0).bool()
        merged = torch.zeros_like(gradients[0])
        merged[shared] = torch.stack([gradient[shared] for gradient in gradients]).mean(dim=0)
        merged[~shared] = torch.stack([gradient[~shared] for gradient in gradients]).sum(dim=0)
        return merged

    def _put_back(self, merged: Tensor) -> None:
        start = 0
        for parameter in self._parameters:
            end = start + parameter.numel()
            parameter.grad = merged[start:end].view_as(parameter).clone()
            start = end
