"""What a dry run found."""

from collections.abc import Mapping
from dataclasses import dataclass

from hf_gradalign.experiment.disk_space import DiskSpace
from hf_gradalign.experiment.dry_run.estimate import RunEstimate


@dataclass(frozen=True)
class DryRunReport:
    """What two updates told of the run.

    Attributes:
        model: The model's name, as the arguments have it, and its head.
        has_random_weights: Whether the model's own weights were out of reach.
        corpus: What is trained on, as the arguments have it.
        clips: How many clips each split has; `train` is left out where it is streamed.
        views: Each view's recipe by name.
        alignment: The alignment method.
        n_parameters: Parameters of the model.
        n_trained: Those of them that are trained.
        utterances: Utterances an update, over all processes and micro-batches.
        device: Where it ran: cpu, cuda, ...
        peak_memory_mib: Of the accelerator, or of this process; None where nothing says.
        seconds_per_update: Of the second of two updates, with the loading of its batches.
        seconds_per_clip: Of loading and augmenting one utterance in all views, on one process.
        bound: What an update waits for most: the model, the data or the disk.
        loader_workers: Processes that do that; 0 for the training process itself.
        seconds_per_evaluation_batch: Of the second of two evaluation batches.
        utterances_per_evaluation_batch: On one process.
        estimate: What it all comes to.
        disk: What the run writes, and what is free.
        epochs: The largest number of epochs; None where updates are counted.
        patience: Of early stopping, in evaluations; None without.
    """

    model: str
    has_random_weights: bool
    corpus: str
    clips: Mapping[str, int]
    views: Mapping[str, str]
    alignment: str
    n_parameters: int
    n_trained: int
    utterances: int
    device: str
    peak_memory_mib: float | None
    seconds_per_update: float
    seconds_per_clip: float
    bound: str
    loader_workers: int
    seconds_per_evaluation_batch: float
    utterances_per_evaluation_batch: int
    estimate: RunEstimate
    disk: DiskSpace
    epochs: float | None
    patience: int | None

    def text(self) -> str:
        """The report for people."""
        lines = ["Dry run: two updates and two evaluation batches on synthetic audio. Nothing was kept."]
        lines += [f"  {name:<22}{value}" for name, value in self._rows() if value is not None]
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, str | None]]:
        estimate = self.estimate
        memory = "of this process, all included" if self.device == "cpu" else f"on {self.device}"
        workers = f"{self.loader_workers} loader workers" if self.loader_workers else "the training process"
        least = None
        if estimate.least_seconds is not None:
            least = f"{duration(estimate.least_seconds)}, if no evaluation is better than the first (patience "
            least += f"{self.patience})"
        return [
            (
                "model",
                self.model + (", with random weights: the Hub is out of reach" if self.has_random_weights else ""),
            ),
            ("parameters", f"{self.n_parameters / 1e6:.2f}M, of which {self.n_trained / 1e6:.2f}M are trained"),
            ("corpus", self.corpus),
            ("clips", self._clips()),
            ("views", ", ".join(f"{name} ({recipe})" for name, recipe in self.views.items())),
            ("alignment", self.alignment),
            ("an update", f"{_utterances(self.utterances)} in {len(self.views)} view{'s' * (len(self.views) > 1)}"),
            ("peak memory", None if self.peak_memory_mib is None else f"{self.peak_memory_mib:.0f} MiB, {memory}"),
            ("seconds an update", f"{self.seconds_per_update:.3g}"),
            ("loading a clip", f"{1000 * self.seconds_per_clip:.3g} ms in all views, by {workers}"),
            ("held back by", self.bound),
            (
                "an evaluation batch",
                f"{self.seconds_per_evaluation_batch:.3g} s for {_utterances(self.utterances_per_evaluation_batch)}",
            ),
            ("disk", self.disk.described() + ("" if self.disk.is_enough else ": too little")),
            ("updates an epoch", None if estimate.updates_per_epoch is None else str(estimate.updates_per_epoch)),
            (
                "whole run, at most",
                f"{duration(estimate.seconds)} ({self._length()}: {duration(estimate.training_seconds)}; "
                f"{estimate.evaluations} evaluation{'s' * (estimate.evaluations != 1)} and the test: "
                f"{duration(estimate.evaluation_seconds)})",
            ),
            ("at least", least),
        ]

    def _length(self) -> str:
        return f"{self.estimate.updates} updates" + ("" if self.epochs is None else f", {self.epochs:g} epochs")

    def _clips(self) -> str:
        shown = {} if "train" in self.clips else {"train": "streamed"}
        return ", ".join(f"{split} {size}" for split, size in {**shown, **self.clips}.items())


def _utterances(count: int) -> str:
    return f"{count} utterance{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds for people, in the two largest units that matter."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


__all__ = ["DryRunReport", "duration"]
