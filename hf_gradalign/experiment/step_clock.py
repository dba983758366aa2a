"""When updates and evaluation batches were done."""

import time

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StepClock(TrainerCallback):
    """Notes the moments, in seconds; waits for the accelerator, so it is for a few steps and not for a run.

    Attributes:
        updates: The end of each update.
        evaluations: The end of each evaluation batch.
    """

    def __init__(self) -> None:
        self.updates: list[float] = []
        self.evaluations: list[float] = []

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.updates.append(_now(args.device))

    def on_prediction_step(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.evaluations.append(_now(args.device))


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


__all__ = ["StepClock"]
