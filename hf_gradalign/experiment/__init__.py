"""A whole run, from its arguments to its results, as in `hf-gradalign train`."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.experiment.arguments import (
        AudioSpoofTrainingArguments,
        DataArguments,
        ModelArguments,
        RunArguments,
    )
    from hf_gradalign.experiment.command_line import (
        command_words,
        describe_resumed,
        keep_arguments,
        parse_arguments,
        resume_words,
    )
    from hf_gradalign.experiment.estimates import DryRunReport, require_disk_space
    from hf_gradalign.experiment.output_folder import (
        hold_output_folder,
        is_finished_run,
        remove_replaced,
        resolve_output_folder,
        set_aside,
    )
    from hf_gradalign.experiment.preparation import Preparation, prepare
    from hf_gradalign.experiment.publication import announce_hub, publish_run, require_publishable, write_run_card
    from hf_gradalign.experiment.rehearsal import rehearse
    from hf_gradalign.experiment.results import CountermeasureMetrics, RunResults, summary_table
    from hf_gradalign.experiment.run_fingerprint import check_resumed, keep_fingerprint
    from hf_gradalign.experiment.runner import FinishedRun, RunNotStarted, dry_run_experiment, run_experiment
    from hf_gradalign.experiment.training_run import Interrupted, train_and_evaluate
    from hf_gradalign.training.conflicts.figures import draw_conflicts, draw_run_figures
    from hf_gradalign.training.conflicts.record import ConflictHistory
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "AudioSpoofTrainingArguments",
    "ConflictHistory",
    "CountermeasureMetrics",
    "DataArguments",
    "DryRunReport",
    "FinishedRun",
    "Interrupted",
    "ModelArguments",
    "Preparation",
    "RunArguments",
    "RunNotStarted",
    "RunResults",
    "announce_hub",
    "check_resumed",
    "command_words",
    "describe_resumed",
    "draw_conflicts",
    "draw_run_figures",
    "dry_run_experiment",
    "hold_output_folder",
    "is_finished_run",
    "keep_arguments",
    "keep_fingerprint",
    "parse_arguments",
    "prepare",
    "publish_run",
    "rehearse",
    "remove_replaced",
    "require_disk_space",
    "require_publishable",
    "resolve_output_folder",
    "resume_words",
    "run_experiment",
    "set_aside",
    "summary_table",
    "train_and_evaluate",
    "write_run_card",
]
