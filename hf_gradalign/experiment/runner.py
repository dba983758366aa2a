"""Runs one experiment, from its arguments to its results: checks everything, then trains."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerCallback

from hf_gradalign.experiment.arguments import RunArguments
from hf_gradalign.experiment.command_line import describe_resumed, keep_arguments
from hf_gradalign.experiment.dry_run import dry_run
from hf_gradalign.experiment.estimates import DryRunReport, require_disk_space
from hf_gradalign.experiment.output_folder import resolve_output_folder, set_aside
from hf_gradalign.experiment.preparation import Preparation, prepare
from hf_gradalign.experiment.publication import announce_hub, require_publishable
from hf_gradalign.experiment.rehearsal import rehearse
from hf_gradalign.experiment.results import RunResults
from hf_gradalign.experiment.run_fingerprint import check_resumed, keep_fingerprint
from hf_gradalign.experiment.training_run import train_and_evaluate
from hf_gradalign.training.distributed import check_processes
from hf_gradalign.utils.messages import is_outside_fault


class RunNotStarted(ValueError):
    """A check before training failed. `__cause__` is the error that says what is wrong."""


@dataclass
class FinishedRun:
    """What `run_experiment` returns.

    Attributes:
        results: The results, as written to `all_results.json`.
        preparation: The run's data and model.
    """

    results: RunResults
    preparation: Preparation


def run_experiment(
    run: RunArguments,
    *,
    evaluate_test: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
    notify: Callable[[str], object] | None = None,
) -> FinishedRun:
    """Train and evaluate a model, after trying everything that could go wrong.

    In order: settle the output folder and the checkpoint to resume from; load and check data, views and model; compare
    them with those of a resumed run; check the disk space; rehearse evaluation and saving; keep the arguments and the
    fingerprint in the output folder; train, select, evaluate and save.

    Args:
        run: The arguments. Defaults that depend on others are filled in, `output_dir` is settled, and `push_to_hub` is
            turned off: the caller publishes the finished run (`publish_run`).
        evaluate_test: Whether to evaluate on the test split, where there is one.
        callbacks: More callbacks for the Trainer.
        notify: Called with messages for the user before training starts, such as the options that a resumed run takes
            from its folder.

    Raises:
        RunNotStarted: If a check before training failed.
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint was saved.
        FloatingPointError: If a loss or gradient is not finite (see `on_nonfinite`).
    """
    args = run.training
    with _not_started():
        check_processes(args)
        checkpoint = _settle_output_folder(run, notify)
        preparation = prepare(run)
        fingerprint = check_resumed(preparation, run, checkpoint)
        if not evaluate_test:
            preparation.eval_datasets.pop("test", None)
        require_disk_space(preparation, args)
        rehearse(preparation, run)
        announce_hub(args)
        if args.should_save:
            if args.overwrite and checkpoint is None:
                set_aside(args.run_folder)
            keep_arguments(run.options, args.run_folder)
            if fingerprint is not None:
                keep_fingerprint(fingerprint, args.run_folder)
    return FinishedRun(train_and_evaluate(preparation, run, checkpoint, callbacks), preparation)


def dry_run_experiment(run: RunArguments, *, notify: Callable[[str], object] | None = None) -> DryRunReport:
    """Check a run and estimate its cost without training it (see `dry_run.dry_run`).

    Args:
        run: As for `run_experiment`.
        notify: As for `run_experiment`.

    Raises:
        RunNotStarted: If a check failed.
    """
    with _not_started():
        check_processes(run.training)
        _settle_output_folder(run, notify)
        return dry_run(run)


@contextlib.contextmanager
def _not_started() -> Generator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError | OSError | FloatingPointError) or is_outside_fault(error):
            raise RunNotStarted(str(error)) from error
        raise


def _settle_output_folder(run: RunArguments, notify: Callable[[str], object] | None) -> str | None:
    """Set the output folder, report what a resumed run takes from it, and return the checkpoint to resume from."""
    args = run.training
    args.output_dir, checkpoint = resolve_output_folder(
        args.output_dir, args.resume_from_checkpoint, args.align_gradients, overwrite=args.overwrite
    )
    if notify is not None and args.resume_from_checkpoint is not None and args.should_save:
        source = Path(checkpoint).parent if checkpoint else args.output_dir
        if taken := describe_resumed(run.options, source):
            notify(taken)
    require_publishable(args)
    return checkpoint
